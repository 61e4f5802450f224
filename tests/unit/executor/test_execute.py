"""The execution: the dry run's bytes are committed, failures are undone, and the policy decides about the rest."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.domain.events import (
    CheckpointCreated,
    DiffProposed,
    DivergenceDetected,
    ExecutionCompleted,
    FailureDetected,
    RollbackCompleted,
    StepCompleted,
    StepStarted,
)
from executor.domain.plan import (
    Action,
    AppendText,
    CreateFile,
    DeletePath,
    FailurePolicy,
    ListDirectory,
    MovePath,
    ReadFile,
    ReplaceText,
    SetMode,
)
from executor.domain.receipt import Outcome
from executor.domain.report import ReportStatus
from tests.unit.executor.plan_house import PlanHouse, plan_house, shell, suite


@pytest.fixture
def house(tmp_path: Path) -> Iterator[PlanHouse]:
    with plan_house(tmp_path) as opened:
        (opened.root / "guide.md").write_text("colour\n")
        (opened.root / "old.txt").write_text("old")
        (opened.root / "old.txt").chmod(0o600)
        yield opened


EDITS: tuple[Action, ...] = (
    ReplaceText(path="guide.md", old="colour", new="color", expected_count=0),
    DeletePath(path="old.txt", recursive=False),
    CreateFile(path="new.md", content=b"new\n", mode=0o640),
    shell("mkdir -p a/b && date +%N > a/b/stamp && ln -s b a/link && chmod 700 a"),
    MovePath(path="a", to="z"),
    SetMode(path="guide.md", mode=0o600),
)


def until(moment: float) -> Action:
    """A test run that passes before a moment and fails after it."""
    return suite(f"test $(date +%s%3N) -lt {round(moment * 1000)}")


def test_the_result_is_what_the_dry_run_found(house: PlanHouse) -> None:
    """The command's nanosecond stamp is the dry run's: it was not run again, and both fingerprints are equal."""
    plan = house.plan(*EDITS)
    found = house.simulate(plan)
    (stamp,) = [change for change in found.steps[3].changes if change.path == b"a/b/stamp"]
    result = house.execute(plan, found)
    assert (result.outcome, result.errors, result.divergence_details) == (Outcome.SUCCESS, (), ())
    assert result.after_fingerprint == found.after_fingerprint
    assert stamp.new is not None
    assert house.objects.read(stamp.new.digest, 0, 100) == (house.root / "z/b/stamp").read_bytes()
    assert [path for path, _ in result.before] == [path for path, _ in result.after]
    assert all(step.success and step.expected_vs_actual_match and step.precondition_met for step in result.steps)
    assert list(house.staging.glob("*SLOT*")) == []


def test_each_committed_step_has_its_events_in_order(house: PlanHouse) -> None:
    """Started, the change announced, a checkpoint, completed."""
    plan = house.plan(EDITS[2])
    found = house.simulate(plan)
    house.execute(plan, found)
    kinds = [type(event) for event in house.events[-6:]]
    assert kinds[-5:] == [StepStarted, DiffProposed, CheckpointCreated, StepCompleted, ExecutionCompleted]


def test_roll_back_restores_everything_when_a_later_step_fails(house: PlanHouse) -> None:
    """Bytes, modes, times and deleted files, whatever the commands and edits before did."""
    before = house.tree()
    plan = house.plan(*EDITS, until(time.time() + 5), policy=FailurePolicy.ROLL_BACK)
    found = house.simulate(plan)
    assert found.status is ReportStatus.SUCCESS
    time.sleep(5)
    result = house.execute(plan, found)
    assert (result.outcome, result.abort_reason) == (Outcome.ROLLED_BACK, "DIVERGED")
    assert house.tree() == before
    assert [step.rollback_invoked and step.rollback_succeeded for step in result.steps[:-1]] == [True] * len(EDITS)
    assert dict(result.after) == dict(result.before)
    assert sum(isinstance(event, RollbackCompleted) for event in house.events) == len(EDITS)


@pytest.mark.parametrize(
    ("policy", "outcome", "ran"),
    [(FailurePolicy.STOP, Outcome.PARTIAL, 2), (FailurePolicy.CONTINUE, Outcome.PARTIAL, 3)],
)
def test_stop_keeps_and_continue_goes_on(house: PlanHouse, policy: FailurePolicy, outcome: Outcome, ran: int) -> None:
    """The failing step alone is undone; later steps run only under `continue`."""
    plan = house.plan(
        CreateFile(path="one", content=b"1", mode=0o644),
        until(time.time() + 4),
        CreateFile(path="two", content=b"2", mode=0o644),
        policy=policy,
    )
    found = house.simulate(plan)
    time.sleep(4)
    result = house.execute(plan, found)
    assert (result.outcome, len(result.steps)) == (outcome, ran)
    assert (house.root / "one").exists()
    assert (house.root / "two").exists() is (policy is FailurePolicy.CONTINUE)


def test_a_first_step_that_can_not_start_aborts_with_nothing_committed(house: PlanHouse) -> None:
    """Somebody changed the file between the gates and the step: their edit stays, and the receipt says so."""
    plan = house.plan(AppendText(path="guide.md", content="more\n"))
    found = house.simulate(plan)
    (house.root / "guide.md").write_text("somebody else\n")
    result = house.execute(plan, found)
    assert (result.outcome, result.abort_reason) == (Outcome.ABORTED, "BASE_DRIFTED")
    assert (house.root / "guide.md").read_text() == "somebody else\n"
    (step,) = result.steps
    assert (step.success, step.precondition_met) == (False, False)
    assert any(isinstance(event, FailureDetected) for event in house.events)


def test_a_result_that_differs_is_divergence_and_is_undone(house: PlanHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody writes into the new file right after the rename: named by path, the step undone, their file kept."""
    plan = house.plan(CreateFile(path="one", content=b"1", mode=0o644))
    found = house.simulate(plan)
    committer = house.workspace.committer(house.objects)
    apply = committer.apply

    def disturbed(slot: str, changes: object, **options: object) -> object:
        applied = apply(slot, changes, **options)  # type: ignore[arg-type]  # handed on as it came
        (house.root / "one").chmod(0o600)
        return applied

    monkeypatch.setattr(committer, "apply", disturbed)
    result = house.execute(plan, found)
    assert result.outcome in {Outcome.ROLLED_BACK, Outcome.UNKNOWN}
    assert result.abort_reason == "DIVERGED"
    assert any(detail.startswith("one: file 0600") for detail in result.divergence_details)
    assert any(isinstance(event, DivergenceDetected) for event in house.events)


def test_reads_are_compared_with_what_the_dry_run_found(house: PlanHouse) -> None:
    """A file or listing that changed in between makes the step fail, and nothing else is touched."""
    plan = house.plan(ReadFile(path="guide.md"), ListDirectory(path="."))
    found = house.simulate(plan)
    assert house.execute(plan, found).outcome is Outcome.SUCCESS
    (house.root / "guide.md").write_text("changed\n")
    result = house.execute(plan, found, "x-2")
    assert (result.outcome, result.abort_reason) == (Outcome.ABORTED, "DIVERGED")


def test_tests_run_again_on_the_committed_workspace(house: PlanHouse) -> None:
    """They see the real files, and what they write is thrown away."""
    plan = house.plan(EDITS[2], suite("grep -q new new.md && touch written"))
    found = house.simulate(plan)
    result = house.execute(plan, found)
    assert (result.outcome, result.steps[1].action_type) == (Outcome.SUCCESS, "verify")
    assert not (house.root / "written").exists()
