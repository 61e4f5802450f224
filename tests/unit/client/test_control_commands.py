"""The commands for missions under way, against a simulated orchestrator: what they ask for, print, and end with."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from client.commands.executing import moment
from client.errors import ClientError
from gonogo import sealing
from gonogo.digests import digest, step_digest
from gonogo.signatures import SSHSIG, new_signing_key, verify
from gonogo.v1 import events_pb2, evidence_pb2, executor_pb2, orchestrator_pb2, plan_pb2, sealed_pb2
from tests.unit.client.orchestrator_simulator import Simulator
from tests.unit.client.test_commands import Command, gonogo, tried, written

__all__ = ["gonogo"]

RESULTS = digest(b"done so far")
ACTIONS = {
    events_pb2.PAUSE_KIND_REQUESTED: (events_pb2.CONTROL_ACTION_RESUME,),
    events_pb2.PAUSE_KIND_FAILURE: (events_pb2.CONTROL_ACTION_RETRY,),
    events_pb2.PAUSE_KIND_INTERRUPTED: (events_pb2.CONTROL_ACTION_RETRY,),
    events_pb2.PAUSE_KIND_REVOKED: (events_pb2.CONTROL_ACTION_RESUME,),
    events_pb2.PAUSE_KIND_STEP_APPROVAL: (events_pb2.CONTROL_ACTION_APPROVE_STEP,),
    events_pb2.PAUSE_KIND_UNKNOWN_EFFECT: (events_pb2.CONTROL_ACTION_RECONCILE,),
}
SIGNED = {events_pb2.PAUSE_KIND_STEP_APPROVAL, events_pb2.PAUSE_KIND_UNKNOWN_EFFECT}


def pause_of(simulator: Simulator, mission: str, kind: events_pb2.PauseKind.ValueType) -> executor_pb2.Pause:
    """Return an honest pause at the mission's first step."""
    report = simulator.missions[mission].report
    assert report is not None
    pause = executor_pb2.Pause(
        kind=kind,
        reason="as the executor says",
        step_id="s1",
        default_action=plan_pb2.PAUSE_DEFAULT_ROLL_BACK,
        results_digest=RESULTS,
        change_set_digest=step_digest(digest(report.body), "s1"),
        actions=[*ACTIONS[kind], events_pb2.CONTROL_ACTION_STOP],
        repairable=kind not in SIGNED,
    )
    pause.deadline.FromJsonString("2030-01-01T00:00:00Z")
    return pause


def approved(gonogo: Command, plan_file: Path) -> str:
    mission = tried(gonogo, plan_file)
    assert gonogo("approve", mission, "--yes").code == 0
    return mission


def paused(gonogo: Command, simulator: Simulator, plan_file: Path, kind: events_pb2.PauseKind.ValueType) -> str:
    """Return a mission that waits."""
    mission = approved(gonogo, plan_file)
    simulator.pause(mission, pause_of(simulator, mission, kind))
    return mission


@pytest.mark.parametrize(
    ("kind", "code", "reason"),
    [
        (events_pb2.PAUSE_KIND_STEP_APPROVAL, 3, "EXECUTION_PAUSED"),
        (events_pb2.PAUSE_KIND_UNKNOWN_EFFECT, 3, "EFFECT_UNKNOWN"),
        (events_pb2.PAUSE_KIND_REQUESTED, 3, "EXECUTION_PAUSED"),
        (events_pb2.PAUSE_KIND_REVOKED, 4, "APPROVAL_REVOKED"),
        (events_pb2.PAUSE_KIND_FAILURE, 6, "EXECUTION_PAUSED"),
        (events_pb2.PAUSE_KIND_INTERRUPTED, 6, "EXECUTION_PAUSED"),
    ],
)
def test_execute_ends_where_the_mission_waits(
    gonogo: Command,
    simulator: Simulator,
    plan_file: Path,
    kind: events_pb2.PauseKind.ValueType,
    code: int,
    reason: str,
) -> None:
    """It says why, until when, what happens then, and the very commands that go on."""
    mission = approved(gonogo, plan_file)
    simulator.pauses = [pause_of(simulator, mission, kind)]
    ran = gonogo("execute", mission, "-o", "json")
    assert (ran.code, ran.error["reason"], ran.error["code"]) == (code, reason, code)
    assert ran.json["status"] == "paused"
    assert ran.json["pause"] == {
        "kind": events_pb2.PauseKind.Name(kind).removeprefix("PAUSE_KIND_").lower(),
        "reason": "as the executor says",
        "step_id": "s1",
        "deadline": "2030-01-01T00:00:00Z",
        "default_action": "roll_back",
        "results_digest": RESULTS,
        "change_set_digest": simulator.missions[mission].mission.pause.change_set_digest,
        "actions": [_named(one) for one in [*ACTIONS[kind], events_pb2.CONTROL_ACTION_STOP]],
        "repairable": kind not in SIGNED,
    }
    assert "until 2030-01-01T00:00:00Z, then roll_back" in ran.error["message"]
    assert f"gonogo stop {mission} --roll-back" in ran.error["remedy"]


def _named(action: int) -> str:
    return events_pb2.ControlAction.Name(events_pb2.ControlAction.ValueType(action))[15:].lower()


def test_watch_ends_well_at_a_pause_that_somebody_asked_for(
    gonogo: Command, simulator: Simulator, plan_file: Path
) -> None:
    """Other pauses end it as they end `execute`; the events come out either way."""
    mission = paused(gonogo, simulator, plan_file, events_pb2.PAUSE_KIND_REQUESTED)
    ran = gonogo("watch", mission)
    assert (ran.code, ran.err) == (0, "")
    assert f"gonogo resume {mission}" in ran.out
    lines = gonogo("watch", mission, "-o", "ndjson").out.splitlines()
    assert json.loads(lines[-1])["type"] == "execution_paused"
    simulator.pause(mission, pause_of(simulator, mission, events_pb2.PAUSE_KIND_FAILURE))
    ran = gonogo("watch", mission)
    assert (ran.code, f"gonogo retry {mission}" in ran.err) == (6, True)


def test_who_interrupts_an_execution_is_told_that_it_goes_on(
    gonogo: Command, simulator: Simulator, plan_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person who presses ctrl-C may take that for a stop."""
    mission = approved(gonogo, plan_file)

    async def interrupted(*_: object) -> None:
        raise asyncio.CancelledError

    monkeypatch.setattr("client.running.waiting_mission", interrupted)
    ran = gonogo("execute", mission, "-o", "json")
    assert (ran.code, ran.error["reason"]) == (1, "INTERRUPTED")
    assert f"gonogo stop {mission} ends it" in ran.error["remedy"]


def test_a_watch_that_breaks_off_says_where_to_go_on(gonogo: Command, simulator: Simulator, plan_file: Path) -> None:
    """The command behind the last event shown, fit to be pasted: nobody has to know how a token looks."""
    mission = approved(gonogo, plan_file)
    simulator.breaks_off = True
    ran = gonogo("watch", mission, "-o", "ndjson")
    assert (ran.code, ran.error["reason"]) == (1, "NOT_RUNNING")
    assert f"gonogo watch {mission} --from 't$1' goes on" in ran.error["remedy"]


def test_watch_goes_past_pauses_that_are_over(gonogo: Command, simulator: Simulator, plan_file: Path) -> None:
    """A pause in the past is told and followed by what came after it."""
    mission = paused(gonogo, simulator, plan_file, events_pb2.PAUSE_KIND_FAILURE)
    assert gonogo("retry", mission).code == 0
    ran = gonogo("watch", mission)
    assert (ran.code, "execution_resumed" in ran.out) == (0, True)


def test_controls_are_sent_as_they_are_asked_for(gonogo: Command, simulator: Simulator, plan_file: Path) -> None:
    """Action, reason and roll-back reach the orchestrator; the answer is the mission as it stands then."""
    mission = approved(gonogo, plan_file)
    said = gonogo("pause", mission, "-m", "lunch", "-o", "json")
    assert (said.code, said.json["status"], said.json["pause"]["kind"]) == (0, "paused", "requested")
    assert simulator.asked[-1].reason == "lunch"
    simulator.pause(mission, pause_of(simulator, mission, events_pb2.PAUSE_KIND_REQUESTED))
    said = gonogo("resume", mission[:10], "-o", "json")
    assert (said.code, said.json["status"], said.json["pause"]) == (0, "active", None)
    simulator.pause(mission, pause_of(simulator, mission, events_pb2.PAUSE_KIND_FAILURE))
    assert gonogo("retry", mission, "-o", "json").json["status"] == "active"
    simulator.pause(mission, pause_of(simulator, mission, events_pb2.PAUSE_KIND_FAILURE))
    said = gonogo("stop", mission, "--roll-back", "-m", "enough", "-o", "json")
    assert (said.json["status"], said.json["outcome"]) == ("cancelled", "rolled_back")
    asked = simulator.asked[-1]
    assert (asked.action, asked.roll_back, asked.reason) == (events_pb2.CONTROL_ACTION_STOP, True, "enough")


def test_what_does_not_fit_is_refused(gonogo: Command, simulator: Simulator, plan_file: Path) -> None:
    """The orchestrator's reason and remedy come out, and nothing else."""
    mission = paused(gonogo, simulator, plan_file, events_pb2.PAUSE_KIND_REQUESTED)
    ran = gonogo("retry", mission, "-o", "json")
    assert (ran.code, ran.out, ran.error["reason"]) == (7, "", "STATE_FORBIDS")


def word(simulator: Simulator, mission: str) -> sealed_pb2.Sealed:
    """Return the signed word that came in, whose signature is the owner's."""
    [sealed] = simulator.words[mission]
    [signature] = sealed.signatures
    key = simulator.audit.rules.persons[0].keys[0]
    from gonogo.signatures import load_public_key

    assert (signature.key_id, signature.scheme) == (key.key_id, SSHSIG)
    verify(
        load_public_key(key.public_key),
        scheme=signature.scheme,
        signature=signature.signature,
        media_type=sealed.media_type,
        body=sealed.body,
        extra=signature.extra,
    )
    return sealed


@pytest.mark.parametrize("deny", [False, True])
def test_a_step_is_approved_or_denied_by_a_signature_over_just_that(
    gonogo: Command, simulator: Simulator, plan_file: Path, deny: bool
) -> None:
    """The document names execution, segment, step, what it would do and what was done; the step is shown first."""
    simulator.changes = [[written(simulator, "a.txt", b"old\n", b"new\n")]]
    mission = paused(gonogo, simulator, plan_file, events_pb2.PAUSE_KIND_STEP_APPROVAL)
    waiting = simulator.missions[mission].mission.pause.change_set_digest
    command = ("deny-step",) if deny else ("approve-step", "--yes")
    ran = gonogo(command[0], mission, "s1", *command[1:], "-m", "because")
    assert ran.code == 0, ran.err
    if not deny:
        assert all(shown in ran.err for shown in ("STEP of mission", "write_file", "-old", "+new", RESULTS))
    sealed = word(simulator, mission)
    approval = sealing.open_sealed(sealed.body, evidence_pb2.StepApproval)
    assert sealed.media_type == sealing.STEP_APPROVAL
    assert (approval.mission_id, approval.execution_id) == (mission, f"x-{mission}")
    assert (approval.segment, approval.step_id) == (0, "s1")
    assert (approval.change_set_digest, approval.results_digest) == (waiting, RESULTS)
    assert (approval.approver, approval.comment) == ("owner", "because")
    wanted = evidence_pb2.DECISION_DENY if deny else evidence_pb2.DECISION_APPROVE
    assert approval.decision == wanted
    assert approval.expires_at.ToDatetime() - approval.approved_at.ToDatetime() == timedelta(hours=1)


@pytest.mark.parametrize(("option", "happened"), [("--happened", True), ("--did-not", False)])
def test_an_effect_is_reconciled_by_a_signature(
    gonogo: Command, simulator: Simulator, plan_file: Path, option: str, happened: bool
) -> None:
    """The document names execution and step, what was done so far, and what the person says."""
    mission = paused(gonogo, simulator, plan_file, events_pb2.PAUSE_KIND_UNKNOWN_EFFECT)
    said = gonogo("reconcile", mission, "s1", option, "-m", "I looked", "-o", "json")
    assert (said.code, said.json["status"]) == (0, "active"), said.err
    found = sealing.open_sealed(word(simulator, mission).body, evidence_pb2.Reconciliation)
    assert (found.happened, found.person, found.reason) == (happened, "owner", "I looked")
    assert (found.execution_id, found.step_id, found.results_digest) == (f"x-{mission}", "s1", RESULTS)


def test_a_reconciliation_says_one_thing(gonogo: Command, simulator: Simulator, plan_file: Path) -> None:
    """Neither and both are wrong usage."""
    mission = paused(gonogo, simulator, plan_file, events_pb2.PAUSE_KIND_UNKNOWN_EFFECT)
    for options in ((), ("--happened", "--did-not")):
        assert gonogo("reconcile", mission, "s1", *options).code == 2
    assert mission not in simulator.words


Lie = Callable[[Simulator, str], None]


def _other_digest(simulator: Simulator, mission: str) -> None:
    simulator.missions[mission].mission.pause.change_set_digest = digest(b"another step")


def _other_report(simulator: Simulator, mission: str) -> None:
    stored = simulator.missions[mission]
    assert stored.report is not None
    stored.report.body = stored.report.body.replace(b'"nonce":"n"', b'"nonce":"m"')


def _other_key(simulator: Simulator, mission: str) -> None:
    simulator.executor_key = new_signing_key()
    simulator.DryRunMission(orchestrator_pb2.DryRunMissionRequest(mission_id=mission), None)  # type: ignore[arg-type]  # an honest call never looks at its context


def _other_plan(simulator: Simulator, mission: str) -> None:
    stored = simulator.missions[mission]
    stored.plan.body = stored.plan.body.replace(b"a.txt", b"b.txt")


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (_other_digest, "PLAN_MISMATCH"),
        (_other_report, "SIGNATURE_INVALID"),
        (_other_key, "SIGNATURE_INVALID"),
        (_other_plan, "PLAN_MISMATCH"),
    ],
)
def test_another_step_than_the_executor_reported_is_not_signed(
    gonogo: Command, simulator: Simulator, plan_file: Path, lie: Lie, reason: str
) -> None:
    """An orchestrator that swaps step, report or plan gets no signature."""
    mission = paused(gonogo, simulator, plan_file, events_pb2.PAUSE_KIND_STEP_APPROVAL)
    lie(simulator, mission)
    ran = gonogo("approve-step", mission, "s1", "--yes", "-o", "json")
    assert (ran.code, ran.error["reason"]) == (7, reason)
    assert mission not in simulator.words


def test_only_the_step_that_waits_is_signed(gonogo: Command, simulator: Simulator, plan_file: Path) -> None:
    """Another step, another kind of pause, and no pause at all are refused before a key is looked for."""
    mission = approved(gonogo, plan_file)
    assert gonogo("approve-step", mission, "s1", "--yes", "-o", "json").error["reason"] == "STEP_NOT_WAITING"
    simulator.pause(mission, pause_of(simulator, mission, events_pb2.PAUSE_KIND_STEP_APPROVAL))
    assert gonogo("approve-step", mission, "s2", "--yes", "-o", "json").error["reason"] == "STEP_NOT_WAITING"
    told = gonogo("reconcile", mission, "s1", "--happened", "-o", "json").error
    assert told["reason"] == "STEP_NOT_WAITING"
    assert "'s1' for another reason, step_approval" in told["message"]
    late = gonogo("approve-step", mission, "s1", "--yes", "--expires-in", "9999999d", "-o", "json")
    assert (late.code, late.error["reason"]) == (2, "USAGE")
    assert mission not in simulator.words


def test_without_a_terminal_a_step_is_not_approved(gonogo: Command, simulator: Simulator, plan_file: Path) -> None:
    """It ends as waiting, with the command that goes on from here."""
    mission = paused(gonogo, simulator, plan_file, events_pb2.PAUSE_KIND_STEP_APPROVAL)
    ran = gonogo("approve-step", mission, "s1", "-o", "json")
    assert (ran.code, ran.error["reason"]) == (3, "NO_TERMINAL")
    assert f"gonogo approve-step {mission} s1" in ran.error["remedy"]


REPAIR = "steps:\n  - write_file: {path: b.txt, content: 'fixed\\n'}\n"


def test_a_repair_is_shown_with_its_dry_run_and_how_to_approve_it(
    gonogo: Command, simulator: Simulator, plan_file: Path, tmp_path: Path
) -> None:
    """Given or proposed, the plan is the next segment's, and its report is checked before it is shown."""
    mission = paused(gonogo, simulator, plan_file, events_pb2.PAUSE_KIND_FAILURE)
    other = tmp_path / "repair.yaml"
    other.write_text(REPAIR)
    ran = gonogo("repair", mission, "-f", str(other))
    assert ran.code == 0, ran.err
    assert all(shown in ran.out for shown in ("r1-s1", "b.txt", "REPORT (signed by the executor"))
    assert f"gonogo approve {mission}" in ran.err
    waits = f"a repair plan waits: gonogo approve {mission} signs it, gonogo execute {mission} goes on with it"
    assert waits in gonogo("show", mission).out
    assert f"gonogo execute {mission} goes on with the repair plan" in gonogo("approve", mission, "--yes").err
    simulator.missions[mission].mission.pause.repairable = True
    said = gonogo("repair", mission, "--no-dry-run", "-o", "json")
    assert (said.code, said.json["report"], said.json["segment"]) == (0, None, 2)
    assert said.json["plan"]["journal_digest"] == RESULTS
    assert said.json["explanation"]


def test_a_repair_whose_dry_run_fails_says_so(gonogo: Command, simulator: Simulator, plan_file: Path) -> None:
    """Plan and report come out, and the exit code is the report's."""
    mission = paused(gonogo, simulator, plan_file, events_pb2.PAUSE_KIND_FAILURE)
    simulator.status = evidence_pb2.REPORT_STATUS_FAILED
    ran = gonogo("repair", mission, "-o", "json")
    assert (ran.code, ran.json["report"]["status"], ran.error["reason"]) == (6, "failed", "SIMULATION_FAILED")


def _asked(monkeypatch: pytest.MonkeyPatch, *answers: str) -> list[str]:
    """Have somebody at a terminal answer so; returns the questions."""
    from client.approving import Terminal

    left, questions = list(answers), list[str]()

    def ask(question: str) -> str:
        questions.append(question)
        return left.pop(0)

    monkeypatch.setattr("client.commands.executing.this_terminal", lambda: Terminal(ask=ask))
    return questions


@pytest.mark.parametrize(
    ("kind", "answers", "asked"),
    [
        (events_pb2.PAUSE_KIND_FAILURE, ("retry",), events_pb2.CONTROL_ACTION_RETRY),
        (events_pb2.PAUSE_KIND_REQUESTED, ("what?", "resume"), events_pb2.CONTROL_ACTION_RESUME),
        (events_pb2.PAUSE_KIND_FAILURE, ("roll-back",), events_pb2.CONTROL_ACTION_STOP),
        (events_pb2.PAUSE_KIND_STEP_APPROVAL, ("approve", "y"), events_pb2.CONTROL_ACTION_APPROVE_STEP),
        (events_pb2.PAUSE_KIND_STEP_APPROVAL, ("approve", "n", "deny"), events_pb2.CONTROL_ACTION_APPROVE_STEP),
        (events_pb2.PAUSE_KIND_UNKNOWN_EFFECT, ("happened",), events_pb2.CONTROL_ACTION_RECONCILE),
    ],
)
def test_run_asks_what_to_do_about_a_pause_and_goes_on(
    gonogo: Command,
    simulator: Simulator,
    plan_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: events_pb2.PauseKind.ValueType,
    answers: tuple[str, ...],
    asked: int,
) -> None:
    """What the person answers is done, and the same stream is followed to its end."""
    questions = _asked(monkeypatch, "y", *answers)
    waits: list[str] = []
    honest = simulator.waiting

    def waiting(stored: Any) -> Any:
        simulator.pauses = [pause_of(simulator, stored.mission.mission_id, kind)]
        waits.append(stored.mission.mission_id)
        return honest(stored)

    monkeypatch.setattr(simulator, "waiting", waiting)
    ran = gonogo("run", "-f", str(plan_file), "-o", "json")
    assert (ran.code, ran.json["outcome"]) == (0, "success"), ran.err
    assert simulator.asked[-1].action == asked
    assert simulator.asked[-1].roll_back == (answers[0] == "roll-back")
    assert any("What now:" in question for question in questions)


def test_run_leaves_a_pause_that_nobody_decides_about(
    gonogo: Command, simulator: Simulator, plan_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty answer leaves it waiting, with the commands that go on."""
    _asked(monkeypatch, "y", "")
    honest = simulator.waiting

    def waiting(stored: Any) -> Any:
        simulator.pauses = [pause_of(simulator, stored.mission.mission_id, events_pb2.PAUSE_KIND_FAILURE)]
        return honest(stored)

    monkeypatch.setattr(simulator, "waiting", waiting)
    ran = gonogo("run", "-f", str(plan_file), "-o", "json")
    assert (ran.code, ran.error["reason"]) == (6, "EXECUTION_PAUSED")
    assert "gonogo retry m-" in ran.error["remedy"]
    assert simulator.asked == []


def test_run_has_a_repair_approved_and_goes_on_with_it(
    gonogo: Command, simulator: Simulator, plan_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proposed plan is shown, signed as any other, and handed over by executing the mission again."""
    _asked(monkeypatch, "y", "repair", "y")
    honest, pauses = simulator.waiting, [events_pb2.PAUSE_KIND_FAILURE]

    def waiting(stored: Any) -> Any:
        if pauses:
            simulator.pauses = [pause_of(simulator, stored.mission.mission_id, pauses.pop())]
        else:
            stored.mission.status = events_pb2.MISSION_STATUS_ACTIVE
        return honest(stored)

    monkeypatch.setattr(simulator, "waiting", waiting)
    ran = gonogo("run", "-f", str(plan_file), "-o", "json")
    assert (ran.code, ran.json["outcome"]) == (0, "success"), ran.err
    assert "the failing file as it was" in ran.err
    [stored] = simulator.missions.values()
    assert stored.mission.segment == 1
    assert len(stored.approvals) == 1


def test_queueing_carries_priority_and_times(gonogo: Command, simulator: Simulator, plan_file: Path) -> None:
    """They go with --detach only; a time is a moment with its zone, or a length from now on."""
    mission = approved(gonogo, plan_file)
    simulator.refuse["execute"] = ("OVERLOADED", 8)
    gonogo("execute", mission, "--detach", "--priority", "7", "--not-before", "2030-01-01T00:00:00Z", "--expires", "2h")
    assert gonogo("execute", mission, "--priority", "7").code == 2
    assert gonogo("execute", mission, "--detach", "--expires", "2030-01-01T00:00:00").code == 2
    assert gonogo("execute", mission, "--detach", "--priority", "101").code == 2
    [seen] = simulator.executed
    assert (seen.detach, seen.priority) == (True, 7)
    assert seen.not_before.ToJsonString() == "2030-01-01T00:00:00Z"
    assert abs(seen.expires_at.ToDatetime(tzinfo=UTC) - datetime.now(UTC) - timedelta(hours=2)) < timedelta(minutes=1)
    assert moment("") is None
    assert moment("2030-01-01T02:00:00+02:00") == datetime(2030, 1, 1, tzinfo=UTC)
    later = moment("2h")
    assert later is not None
    assert abs(later - datetime.now(UTC) - timedelta(hours=2)) < timedelta(minutes=1)


@pytest.mark.parametrize("text", ["tomorrow", "9999999d", "36501d", "2027-13-01"])
def test_what_is_no_moment_says_both_forms(text: str) -> None:
    """A length that leads out of the calendar is refused like a word, with a time and a length to write instead."""
    with pytest.raises(ClientError) as caught:
        moment(text)
    assert caught.value.reason == "USAGE"
    assert all(form in caught.value.remedy for form in ("2027-01-04T10:00:00Z", "15m"))


def test_the_queue_is_shown_with_its_depth(gonogo: Command, simulator: Simulator, plan_file: Path) -> None:
    """A list in one object, and a table with why each waits."""
    mission = approved(gonogo, plan_file)
    simulator.missions[mission].mission.status = events_pb2.MISSION_STATUS_QUEUED
    said = gonogo("queue", "-o", "json").json
    assert (said["depth"], said["missions"][0]["mission_id"], said["missions"][0]["position"]) == (1, mission, 1)
    assert mission in gonogo("queue", "--workspace", "site").out
    assert gonogo("queue", "--workspace", "other", "-o", "json").json == {"depth": 0, "missions": []}
    nobody = gonogo("queue", "--workspace", "other")
    assert (nobody.out, nobody.err) == ("", "nothing waits for its turn\n")
    assert gonogo("queue", "--workspace", "other", "-o", "json").err == ""


def test_processes_are_listed_and_stopped(gonogo: Command, simulator: Simulator) -> None:
    """An empty list is a list; what is stopped says how it ended."""
    assert gonogo("processes", "-o", "json").json == []
    assert "no live step" in gonogo("processes").err
    simulator.processes = [executor_pb2.LiveProcess(process_id="pr-1", mission_id="m-1", running=True, command="[]")]
    assert gonogo("processes", "-o", "json").json[0]["running"] is True
    said = gonogo("stop-process", "pr-1", "-o", "json").json
    assert (said["running"], said["ended"]) == (False, "stopped by owner")
    assert gonogo("stop-process", "pr-2", "-o", "json").error["reason"] == "NOT_FOUND"
    assert "stopped by owner" in gonogo("processes").out


def test_feedback_is_good_or_bad(gonogo: Command, simulator: Simulator, plan_file: Path) -> None:
    """Exactly one of the two, with what the person says of it."""
    mission = tried(gonogo, plan_file)
    assert gonogo("feedback", mission, "--bad", "-m", "wrong file", "-o", "json").json["mission_id"] == mission
    assert (simulator.feedback[-1].rating, simulator.feedback[-1].text) == (events_pb2.RATING_BAD, "wrong file")
    assert "noted as good" in gonogo("feedback", mission, "--good").err
    assert gonogo("feedback", mission).code == 2
    assert gonogo("feedback", mission, "--good", "--bad").code == 2


def test_signals_give_rates_as_numbers_between_nothing_and_one(gonogo: Command, simulator: Simulator) -> None:
    """Four digits behind the point; too few outcomes are null; a person reads percent."""
    rate = orchestrator_pb2.SignalRate(
        kind="run_command", tool="make", samples=7, success_rate=8_333, low=4_350, high=9_712, weight=655
    )
    few = orchestrator_pb2.SignalRate(kind="write_file", samples=2, insufficient=True)
    bins = [orchestrator_pb2.ReliabilityBin(low=8_000, high=9_000, samples=7, stated=8_500, realised=8_571)]
    simulator.signals = orchestrator_pb2.GetSignalsResponse(
        rates=[rate, few],
        calibration=orchestrator_pb2.Calibration(
            samples=7, brier=1_234, brier_of_mean=2_000, calibration_error=71, bins=bins
        ),
        failures=[orchestrator_pb2.RecurringFailure(kind="run_command", reason="DIVERGED", path="a", count=3)],
        stages=[orchestrator_pb2.StageDuration(stage=plan_pb2.STAGE_TEST, samples=3, median_ms=900, p95_ms=1_200)],
    )
    said = gonogo("signals", "--kind", "run_command", "-o", "json").json
    first, second = said["rates"]
    assert (first["success_rate"], first["low"], first["high"], first["weight"]) == (0.8333, 0.435, 0.9712, 6.55)
    assert (second["insufficient"], second["success_rate"], second["low"], second["high"]) == (True, None, None, None)
    assert (said["calibration"]["brier"], said["calibration"]["bins"][0]["realised"]) == (0.1234, 0.8571)
    assert (said["failures"][0]["count"], said["stages"][0]["stage"]) == (3, "test")
    text = gonogo("signals").out
    assert all(shown in text for shown in ("83.3 %", "insufficient data", "0.1234", "DIVERGED", "900 ms"))
    simulator.signals = orchestrator_pb2.GetSignalsResponse()
    assert gonogo("signals", "-o", "json").json["calibration"]["brier"] is None
    assert gonogo("signals").out == ""
    assert "nothing to learn from" in gonogo("signals").err
    assert "gonogo signals shows what there is" in gonogo("signals", "--tool", "make").err


def test_the_doctor_says_what_live_steps_may_use(gonogo: Command, simulator: Simulator) -> None:
    """By kind, with the workspaces where not all may; where the trust file names nothing, that."""

    def findings() -> dict[str, str]:
        return {one["name"]: one["detail"] for one in gonogo("doctor", "-o", "json").json["findings"]}

    assert findings()["executor far sides"].startswith("none")
    simulator.far_sides = [
        executor_pb2.FarSide(kind="domain", name="example.org"),
        executor_pb2.FarSide(kind="database", name="shop", workspaces=["site"]),
    ]
    found = findings()
    assert (found["executor domains"], found["executor databases"]) == ("example.org", "shop (site)")
