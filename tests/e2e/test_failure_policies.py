"""What happens to a mission one of whose steps fails in the execution, after all of them worked in the dry run.

The step that fails is a test run whose verdict hangs on a folder of the operator's tools: commands see it, no
fingerprint holds it, and the tests here turn it on and off between dry run and execution.
"""

import asyncio
import json
import os
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from client.exit_codes import ExitCode
from client.json_form import short_name
from gonogo import sealing
from gonogo.v1 import evidence_pb2
from tests.e2e.by_hand import pair
from tests.e2e.installation import Installation, tree_of
from tests.e2e.wire_house import Desk, desk, ledger_rows

pytestmark = pytest.mark.sandbox

OLD_TIME = 1_500_000_000_123_456_789
POLL_SECONDS = 0.02
Tree = dict[str, tuple[Any, ...]]


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder whose file `on` decides about the verdict."""
    return tmp_path_factory.mktemp("tools")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, tools: Path) -> Iterator[Installation]:
    """Both services; commands see the tools."""
    with pair(tmp_path_factory.mktemp("policies"), tools=[tools]) as both:
        yield both.house


@pytest.fixture
async def one(house: Installation) -> AsyncIterator[Desk]:
    """A person at work."""
    async with desk(house.state) as opened:
        yield opened


@pytest.fixture
def before(site: Path, tools: Path) -> Tree:
    """The workspace, made anew with modes, old times, links and a tree to be deleted; returns what it holds."""
    for path in sorted(site.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
    (site / "doomed" / "deep").mkdir(parents=True)
    (site / "doomed" / "deep" / "file").write_bytes(b"\0deep\xff")
    (site / "doomed" / "link").symlink_to("deep/file")
    (site / "edited.txt").write_text("old\n")
    (site / "edited.txt").chmod(0o640)
    (site / "tool.sh").write_text("#!/bin/sh\n")
    (site / "moved.txt").write_text("moved\n")
    (site / "moved.txt").chmod(0o600)
    for path in [*sorted(site.rglob("*"), reverse=True), site]:
        os.utime(path, ns=(OLD_TIME, OLD_TIME), follow_symlinks=False)
    (tools / "on").touch()
    return tree_of(site)


def policy_plan(policy: str, tools: Path) -> str:
    """A plan with a change of each kind, a test run that will fail, and one more change behind it."""
    steps = [
        {"replace_text": {"path": "edited.txt", "old": "old", "new": "new"}},
        {"delete_path": {"path": "doomed", "recursive": True}},
        {"move_path": {"path": "moved.txt", "to": "elsewhere.txt"}},
        {"set_mode": {"path": "tool.sh", "mode": "0755"}},
        {"run_command": {"argv": ["sh", "-c", "mkdir made && echo made > made/file"]}},
        {"run_tests": {"argv": ["test", "-e", str(tools / "on")]}},
        {"create_file": {"path": "behind.txt", "content": "behind\n"}},
    ]
    return json.dumps({"objective": "Try it", "workspace": "site", "failure_policy": policy, "steps": steps})


CHANGED = {"s1", "s2", "s3", "s4", "s5"}
FLAGS = ("success", "rollback_invoked", "rollback_succeeded")


async def failed_in_execution(one: Desk, house: Installation, tools: Path, policy: str) -> evidence_pb2.Receipt:
    """Approve the plan while its test passes, turn the test off, execute by the command; return the receipt."""
    mission = await one.approved(policy_plan(policy, tools))
    (tools / "on").unlink()
    ran = house.run("execute", mission, "-o", "json")
    assert ran.code == ExitCode.FAILED, ran.err
    found = await one.client.get(mission)
    receipt = sealing.open_sealed(found.receipt.body, evidence_pb2.Receipt)
    assert (ran.json["outcome"], ran.json["receipt_id"]) == (
        short_name(receipt, "execution_status"),
        receipt.receipt_id,
    )
    assert ran.error["remedy"]
    assert (short_name(found.mission, "status"), ledger_rows(house.state, [mission])) == ("failed", 1)
    assert house.json("verify", mission)["valid"]
    assert receipt.abort_reason == "DIVERGED"
    assert any(error.startswith("s6: ") for error in receipt.errors)
    return receipt


def flags_of(receipt: evidence_pb2.Receipt) -> dict[str, tuple[bool, bool, bool]]:
    """Return of each step whether it worked, was undone, and was undone well."""
    return {step.step_id: (step.success, step.rollback_invoked, step.rollback_succeeded) for step in receipt.steps}


async def test_roll_back_restores_everything_newest_first(
    house: Installation, one: Desk, site: Path, tools: Path, before: Tree
) -> None:
    """Bytes, modes, times, links, deleted trees and moved files are as they were; the step behind was never begun."""
    receipt = await failed_in_execution(one, house, tools, "roll_back")
    assert tree_of(site) == before
    assert short_name(receipt, "execution_status") == "rolled_back"
    assert flags_of(receipt) == {
        **dict.fromkeys(sorted(CHANGED), (True, True, True)),
        "s6": (False, False, False),
    }
    assert {snapshot.path for snapshot in receipt.after} >= {"edited.txt", "doomed", "moved.txt", "elsewhere.txt"}
    assert list(receipt.after) == list(receipt.before)


def kept(tree: Tree) -> dict[str, object]:
    """Return what the five changes leave: content, or the mode where only that was changed."""
    found: dict[str, object] = {name: state[2] for name, state in tree.items()}
    found["tool.sh"] = stat.S_IMODE(tree["tool.sh"][0])
    return found


KEPT = {
    "edited.txt": b"new\n",
    "elsewhere.txt": b"moved\n",
    "tool.sh": 0o755,
    "made": None,
    "made/file": b"made\n",
}


async def test_stop_keeps_what_was_done_and_begins_nothing_more(
    house: Installation, one: Desk, site: Path, tools: Path, before: Tree
) -> None:
    """The changes before the failing step stay, the outcome is partial, nothing behind it was begun."""
    receipt = await failed_in_execution(one, house, tools, "stop")
    assert kept(tree_of(site)) == KEPT
    assert short_name(receipt, "execution_status") == "partial"
    assert flags_of(receipt) == {
        **dict.fromkeys(sorted(CHANGED), (True, False, False)),
        "s6": (False, False, False),
    }
    assert (receipt.steps_succeeded, receipt.steps_failed) == (5, 1)


async def test_continue_goes_on_behind_the_step_that_failed(
    house: Installation, one: Desk, site: Path, tools: Path, before: Tree
) -> None:
    """Everything but the failing step is done, and the outcome is partial all the same."""
    receipt = await failed_in_execution(one, house, tools, "continue")
    assert kept(tree_of(site)) == {**KEPT, "behind.txt": b"behind\n"}
    assert short_name(receipt, "execution_status") == "partial"
    assert flags_of(receipt) == {
        **dict.fromkeys(sorted(CHANGED | {"s7"}), (True, False, False)),
        "s6": (False, False, False),
    }
    assert (receipt.steps_succeeded, receipt.steps_failed) == (6, 1)


async def test_a_first_step_that_fails_leaves_nothing_done(
    house: Installation, one: Desk, site: Path, tools: Path, before: Tree
) -> None:
    """Claimed and nothing committed is aborted, under each policy that stops there."""
    for policy in ("roll_back", "stop"):
        steps = [
            {"run_tests": {"argv": ["test", "-e", str(tools / "on")]}},
            {"create_file": {"path": "n", "content": ""}},
        ]
        (tools / "on").touch()
        mission = await one.approved(
            json.dumps({"objective": "Try", "workspace": "site", "failure_policy": policy, "steps": steps})
        )
        (tools / "on").unlink()
        receipt = await one.receipt(mission)
        assert short_name(receipt, "execution_status") == "aborted"
        assert tree_of(site) == before


def interrupted_plan(policy: str, tools: Path) -> str:
    """A plan that waits between two changes for the folder of tools to be turned on."""
    waiting = f"while ! test -e {tools}/on; do sleep 0.02; done; ! test -e {tools}/fail"
    steps = [
        {"create_file": {"path": "first.txt", "content": "first\n"}},
        {"run_tests": {"argv": ["sh", "-c", waiting]}},
        {"replace_text": {"path": "edited.txt", "old": "old", "new": "new"}},
    ]
    return json.dumps({"objective": "Try it", "workspace": "site", "failure_policy": policy, "steps": steps})


async def interrupted(one: Desk, site: Path, tools: Path, policy: str, name: str) -> evidence_pb2.Receipt:
    """Execute such a plan; while it waits somebody writes to a file; return the receipt."""
    mission = await one.approved(interrupted_plan(policy, tools))
    (tools / "on").unlink()
    running = asyncio.create_task(one.receipt(mission))
    while not (site / "first.txt").exists():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(POLL_SECONDS)
    (site / name).write_text("somebody was here\n")
    (tools / "on").touch()
    return await running


@pytest.mark.parametrize(
    ("policy", "outcome", "first"), [("roll_back", "rolled_back", False), ("stop", "partial", True)]
)
async def test_a_file_that_somebody_changed_meanwhile_is_not_overwritten(
    one: Desk, site: Path, tools: Path, before: Tree, policy: str, outcome: str, first: bool
) -> None:
    """The step finds that its file is another one, does nothing to it, and the policy decides about the rest."""
    receipt = await interrupted(one, site, tools, policy, "edited.txt")
    assert (site / "edited.txt").read_text() == "somebody was here\n"
    assert (site / "first.txt").exists() is first
    assert short_name(receipt, "execution_status") == outcome
    third = receipt.steps[2]
    assert (third.success, third.precondition_met, bool(third.error_message)) == (False, False, True)


async def test_what_can_not_be_undone_without_a_loss_is_left_and_told_as_unknown(
    one: Desk, site: Path, tools: Path, before: Tree
) -> None:
    """Somebody wrote into a file that the mission had created: rolling back keeps their bytes and a person decides."""
    (tools / "fail").touch()
    try:
        (tools / "fail").unlink()
        mission = await one.approved(interrupted_plan("roll_back", tools))
        (tools / "on").unlink()
        running = asyncio.create_task(one.receipt(mission))
        while not (site / "first.txt").exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(POLL_SECONDS)
        (site / "first.txt").write_text("somebody was here\n")
        (tools / "fail").touch()
        (tools / "on").touch()
        receipt = await running
    finally:
        (tools / "fail").unlink(missing_ok=True)
    contents = {state[2] for state in tree_of(site).values()}
    assert b"somebody was here\n" in contents, "somebody's bytes are gone from the workspace"
    assert short_name(receipt, "execution_status") == "unknown"
    assert receipt.divergence_detected
    assert (receipt.steps[0].rollback_invoked, receipt.steps[0].rollback_succeeded) == (True, False)
    assert short_name((await one.client.get(mission)).mission, "status") == "paused"
