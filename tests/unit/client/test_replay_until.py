"""`gonogo replay --until SEQ MISSION`: how it is asked for, and how it is shown."""

import json

import pytest

from client.__main__ import run_command
from client.render.states import replayed_text, state_text
from client.state import StateDirectory

FOUND = {
    "mission_id": "m-1",
    "sequence": 6,
    "last_sequence": 17,
    "pos": 21,
    "event": "mission_approved",
    "time": "2026-01-02T03:04:05.678901+00:00",
    "actor": "owner",
    "broken_at": None,
    "mission": {
        "approvals": [{"approval_id": "a-1", "approver": "owner"}],
        "mission_id": "m-1",
        "objective": "Write \u202ea file",
        "plan_digest": "sha256:00",
        "status": "approved",
    },
    "steps": [
        {"step_id": "s1", "kind": "write_file", "stage": "edit", "target": "a", "status": "planned", "duration_ms": 0}
    ],
}


def test_a_state_is_shown_with_its_event_ids_approvals_and_steps() -> None:
    """What could mislead a reader is spelt out."""
    assert state_text(FOUND).splitlines() == [
        "event        6 of 17: mission_approved by owner, 2026-01-02T03:04:05.678901+00:00",
        "status       approved",
        "mission_id   m-1",
        r"objective    Write \u{202e}a file",
        "plan_digest  sha256:00",
        "",
        "approvals:",
        "approval_id  a-1",
        "approver     owner",
        "",
        "step_id  kind        stage  status   target",
        "s1       write_file  edit   planned  a",
    ]


def test_a_pause_is_shown_like_everything_else() -> None:
    """Its fields stand below each other, in words."""
    mission = {"status": "paused", "pause": {"kind": "failure", "actions": ["retry", "stop"], "repairable": True}}
    lines = state_text({**FOUND, "mission": mission, "steps": []}).splitlines()
    assert lines[-4:] == ["pause:", "kind        failure", "actions     retry, stop", "repairable  yes"]


def test_a_comparison_is_told_in_words() -> None:
    """A person reads yes and none, and not how Python writes them."""
    told = replayed_text({"events": 3, "broken_at": None, "equal": True})
    assert told.splitlines() == ["events     3", "broken at  none", "equal      yes"]


@pytest.mark.parametrize("arguments", [["m-1"], ["--until", "3"], ["--until", "0", "m-1"], ["--until", "x", "m-1"]])
def test_half_of_the_question_is_a_usage_error(
    shared_state: StateDirectory, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """A mission needs its event, an event its mission, and events are counted from 1."""
    assert run_command(["replay", *arguments, "--state", str(shared_state.root), "-o", "json"]) == 2
    assert json.loads(capsys.readouterr().err)["reason"] == "USAGE"
