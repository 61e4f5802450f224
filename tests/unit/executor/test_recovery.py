"""Executors that die in the middle of an execution, and what the next one makes of it."""

import gc
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from executor.adapters.ledger_sqlite import SqliteLedger
from executor.domain.events import ExecutionCompleted, ReceiptIssued, RollbackCompleted, StepCompleted, StepStarted
from executor.domain.receipt import Outcome, Receipt
from executor.runner import execute, step_receipts
from executor.runner.execute import Executioner
from executor.runner.letting_go import Commits
from executor.runner.ports import Event
from executor.workspace import journal, switch
from executor.workspace.commit import Committer
from executor.workspace.journal import Journal
from executor.workspace.objects import ObjectStore
from executor.workspace.record import Applied
from executor.workspace.staging import Slot
from gonogo.v1 import plan_pb2
from tests.unit.executor.house import WORKSPACE_ID, House
from tests.unit.executor.plan_house import LIMITS

OLD = {"one": b"old one", "three": b"old three"}
NEW = {"one": b"new one", "two": b"new two", "three": b"new three"}
STEPS = len(NEW)
CHILD_SECONDS = 60


class RealHouse(House):
    """An executor that really commits: over the files that its simulator foresees."""

    def __init__(self, root: Path) -> None:
        self.staging = root / "staging"
        super().__init__(root)

    def open(self) -> None:
        objects = ObjectStore(self.own / "objects", self._small_object)
        self.executioner = Executioner(  # type: ignore[assignment]  # the real one in place of the writing one
            sandbox=None, objects=objects, copy_limits=LIMITS, tools=()
        )
        super().open()

    def _small_object(self, digest: str) -> bytes | None:
        return self.ledger.small_object(digest)  # a ledger that is opened only now

    def run(self, policy: "plan_pb2.FailurePolicy.ValueType") -> None:
        """Execute a plan that writes three files."""
        plan = self.plan()
        plan.failure_policy = policy
        del plan.steps[:]
        for number, (path, content) in enumerate(NEW.items(), 1):
            write = plan_pb2.WriteFile(path=path, content=content.decode())
            plan.steps.append(
                plan_pb2.Step(step_id=f"s{number}", description="write it", stage=plan_pb2.STAGE_EDIT, write_file=write)
            )
        sealed = self.sealed_plan(plan)
        report = self.dry_run(sealed)
        self.execute(self.request(sealed, report, self.approve(sealed, report)))

    def events(self) -> tuple[Event, ...]:
        return self.core.get_execution(mission_id="m-1").progress(0).events

    def staged(self) -> set[str]:
        return {path.name for path in (self.root / "staging").iterdir() if not path.name.startswith("journal.")}


ROLL_BACK, STOP, CONTINUE = (
    plan_pb2.FAILURE_POLICY_ROLL_BACK,
    plan_pb2.FAILURE_POLICY_STOP,
    plan_pb2.FAILURE_POLICY_CONTINUE,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A place for an executor, with the old files in its workspace."""
    (tmp_path / WORKSPACE_ID).mkdir()
    for name, content in OLD.items():
        (tmp_path / WORKSPACE_ID / name).write_bytes(content)
        os.utime(tmp_path / WORKSPACE_ID / name, ns=(10**18, 10**18))
    os.utime(tmp_path / WORKSPACE_ID, ns=(10**18, 10**18))
    return tmp_path


def kill_at(place: object, name: str, *, call: int = 1, after: bool = False) -> None:
    """Have this process die by SIGKILL just before, or after, a call of some function."""
    real, calls = getattr(place, name), 0

    def deadly(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **named)
        if calls == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(place, name, deadly)


def kill_at_rename(call: int, *, after: bool) -> None:
    """Die at one of the renames, whichever kind it is."""
    calls = 0

    def counted(real: Callable[..., None]) -> Callable[..., None]:
        def rename(*arguments: object) -> None:
            nonlocal calls
            calls += 1
            if calls == call and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            real(*arguments)
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)

        return rename

    for name in ("rename_new", "exchange"):
        setattr(switch, name, counted(getattr(switch, name)))


def tear(call: int) -> None:
    """Die when half of a record is written."""
    write, calls = journal._write_at, 0

    def torn(fd: int, data: bytes, offset: int) -> None:
        nonlocal calls
        if b'"operations"' in data:
            calls += 1
            if calls == call:
                write(fd, data[: len(data) // 2], offset)
                os.kill(os.getpid(), signal.SIGKILL)
        write(fd, data, offset)

    journal._write_at = torn


def become_a_process_of_its_own() -> None:
    """Leave what the parent had alone: collecting a forked gRPC object would wait for threads that are not here."""
    gc.freeze()
    signal.alarm(CHILD_SECONDS)


def in_child(act: Callable[[], object]) -> bool:
    """Do something in a process of its own, and tell whether that was killed."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        become_a_process_of_its_own()
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def die(root: Path, policy: int, deadly: Callable[[], object]) -> None:
    """Execute the mission in a process that dies of something."""

    def act() -> None:
        house = RealHouse(root)
        deadly()
        house.run(policy)  # type: ignore[arg-type]  # one of the policies

    assert in_child(act)


@contextmanager
def restarted(root: Path) -> Iterator[tuple[RealHouse, Receipt]]:
    """Start the next executor, which recovers; its successor finds nothing left to do."""
    house = RealHouse(root)
    try:
        [receipt] = house.receipts
        yield house, receipt
        check_events(house.events())
    finally:
        house.close()
    last = RealHouse(root)
    assert last.receipts == ()
    last.close()


def check_events(events: tuple[Event, ...]) -> None:
    """Numbered from one without a gap, with one end and one receipt, and every committed step told."""
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    kinds = [type(event.payload) for event in events]
    assert kinds[-2:] == [ExecutionCompleted, ReceiptIssued]
    assert kinds.count(ExecutionCompleted) == kinds.count(ReceiptIssued) == 1
    started = [event.payload.step_id for event in events if isinstance(event.payload, StepStarted)]
    completed = [event.payload.step_id for event in events if isinstance(event.payload, StepCompleted)]
    assert started == completed == sorted(set(started))


def is_old(root: Path) -> bool:
    """Whether the workspace is as it was, times included."""
    site = root / WORKSPACE_ID
    same_times = {path.stat().st_mtime_ns for path in (site, site / "one", site / "three")} == {10**18}
    return {path.name: path.read_bytes() for path in site.iterdir()} == OLD and same_times


POINTS: dict[str, tuple[Callable[[], object], Outcome, int]] = {
    # Where it dies; what a mission that rolls back comes to; how many steps one that stops has kept.
    "before anything": (lambda: kill_at(Executioner, "run"), Outcome.ABORTED, 0),
    "while it stages": (lambda: kill_at(Slot, "make", after=True), Outcome.ABORTED, 0),
    "in the middle of the record": (lambda: tear(1), Outcome.ABORTED, 0),
    "in the middle of the second record": (lambda: tear(2), Outcome.ROLLED_BACK, 1),
    "before the record is durable": (lambda: kill_at(Journal, "sync"), Outcome.ROLLED_BACK, 0),
    "before the first rename": (lambda: kill_at_rename(1, after=False), Outcome.ROLLED_BACK, 0),
    "after the first rename": (lambda: kill_at_rename(1, after=True), Outcome.ROLLED_BACK, 1),
    "before the second rename": (lambda: kill_at_rename(2, after=False), Outcome.ROLLED_BACK, 1),
    "after the second rename": (lambda: kill_at_rename(2, after=True), Outcome.ROLLED_BACK, 2),
    "after the last rename": (lambda: kill_at_rename(3, after=True), Outcome.SUCCESS, 3),
    "before the receipt": (lambda: kill_at(SqliteLedger, "finish"), Outcome.SUCCESS, 3),
}


@pytest.mark.parametrize("point", POINTS)
def test_under_roll_back_a_mission_is_whole_or_not_there_at_all(root: Path, point: str) -> None:
    """Wherever the process dies, the workspace is the old or the new one in every byte, and one receipt says which."""
    deadly, outcome, _ = POINTS[point]
    die(root, ROLL_BACK, deadly)
    with restarted(root) as (house, receipt):
        result = receipt.result
        assert result.outcome is outcome
        assert result.divergence_details == ()
        if outcome is Outcome.SUCCESS:
            assert house.files() == NEW
            assert (result.abort_reason, result.errors) == ("", ())
            assert len(house.ledger.checkpoints("m-1")) == STEPS
            assert all(step.success and not step.rollback_invoked for step in result.steps)
        else:
            assert is_old(root)
            assert result.abort_reason == "INTERNAL"
            assert house.ledger.checkpoints("m-1") == ()
            assert house.staged() == set()
            assert all(step.rollback_succeeded for step in result.steps)
            assert dict(result.after) == dict(result.before)


@pytest.mark.parametrize("policy", [STOP, CONTINUE])
@pytest.mark.parametrize("point", POINTS)
def test_stop_and_continue_keep_the_steps_that_were_committed(root: Path, point: str, policy: int) -> None:
    """A half-made step is undone, those before it stay, and can still be undone by their checkpoints."""
    deadly, _, kept = POINTS[point]
    die(root, policy, deadly)
    with restarted(root) as (house, receipt):
        expected = {0: Outcome.ABORTED, STEPS: Outcome.SUCCESS}.get(kept, Outcome.PARTIAL)
        assert receipt.result.outcome is expected
        files = list(NEW)[:kept]
        assert house.files() == {**OLD, **{name: NEW[name] for name in files}}
        checkpoints = house.ledger.checkpoints("m-1")
        assert [one.step_id for one in checkpoints] == [f"s{number}" for number in range(1, kept + 1)]
        # Of what was replaced the old object is kept; the file that was new has none.
        assert len(house.staged()) == len([name for name in files if name in OLD])
        if "one" in files:
            committer = house.workspace.committer(ObjectStore(root / "none", lambda _: None))
            fd = committer.old_file(Applied.decode(checkpoints[0].record), b"one")
            assert os.read(fd, 100) == OLD["one"]
            os.close(fd)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("rename", [1, 2])
def test_a_recovery_that_dies_is_made_again(root: Path, rename: int, after: bool) -> None:
    """Killed between two renames of the rollback and started once more, it comes to the same end."""
    die(root, ROLL_BACK, lambda: kill_at_rename(3, after=False))

    def recover_and_die() -> None:
        kill_at_rename(rename, after=after)
        RealHouse(root)

    assert in_child(recover_and_die)
    with restarted(root) as (house, receipt):
        assert receipt.result.outcome is Outcome.ROLLED_BACK
        assert is_old(root)
        assert house.staged() == set()
        assert sum(isinstance(event.payload, RollbackCompleted) for event in house.events()) == STEPS


@pytest.mark.parametrize(
    ("deadly", "known"),
    [
        pytest.param(lambda: kill_at(SqliteLedger, "finish"), False, id="before its receipt"),
        pytest.param(lambda: kill_at(SqliteLedger, "finish", after=True), True, id="after its receipt"),
        pytest.param(lambda: kill_at(Committer, "discard"), True, id="before the slots are gone"),
        pytest.param(lambda: kill_at(Committer, "discard", after=True), True, id="between two slots"),
    ],
)
def test_a_rollback_s_receipt_comes_before_its_slots_go(
    root: Path,
    deadly: Callable[[], object],
    known: bool,
) -> None:
    """A recovery that dies around its receipt leaves one receipt and no slot, whoever finishes it."""
    die(root, ROLL_BACK, lambda: kill_at_rename(3, after=False))

    def recover_and_die() -> None:
        deadly()
        RealHouse(root)

    assert in_child(recover_and_die)
    house = RealHouse(root)
    assert len(house.receipts) == (0 if known else 1)
    record = house.ledger.execution(mission_id="m-1")
    assert record is not None
    assert record.outcome is Outcome.ROLLED_BACK
    assert is_old(root)
    assert house.staged() == set()
    house.close()


@pytest.mark.parametrize(
    "deadly",
    [
        pytest.param(lambda: kill_at(SqliteLedger, "finish", after=True), id="after its receipt"),
        pytest.param(lambda: kill_at(Commits, "let_go", after=True), id="after its journal"),
    ],
)
def test_a_mission_that_ended_keeps_its_checkpoints(root: Path, deadly: Callable[[], object]) -> None:
    """A process that dies after the receipt changes nothing: the next one only lets go of the journal."""
    die(root, ROLL_BACK, deadly)
    house = RealHouse(root)
    assert house.receipts == ()
    assert house.files() == NEW
    assert len(house.ledger.checkpoints("m-1")) == STEPS
    assert len(house.staged()) == len(OLD)
    assert house.workspace.committer(ObjectStore(root / "none", lambda _: None)).pending() == ()
    house.close()


def test_somebody_else_s_change_is_kept_beside_the_former_version(root: Path) -> None:
    """What an editor saved after the crash stays, the rest is undone, and the receipt says which path and where."""
    die(root, ROLL_BACK, lambda: kill_at_rename(3, after=False))
    (root / WORKSPACE_ID / "one").write_bytes(b"EDIT")
    with restarted(root) as (house, receipt):
        result = receipt.result
        assert result.outcome is Outcome.UNKNOWN
        assert house.files() == {**OLD, "one": b"EDIT"}
        [told] = result.divergence_details
        assert told.startswith("one was changed by somebody else")
        [kept] = [path for path in (root / "staging").iterdir() if path.read_bytes() == OLD["one"]]
        assert str(kept) in told
        assert {step.step_id: step.rollback_succeeded for step in result.steps} == {"s1": False, "s2": True, "s3": True}
        assert house.ledger.checkpoints("m-1") == ()


def test_an_edit_of_a_finished_mission_s_file_undoes_nothing(root: Path) -> None:
    """All steps were done, and then somebody went on working: nothing is taken from under them."""
    die(root, ROLL_BACK, lambda: kill_at(SqliteLedger, "finish"))
    (root / WORKSPACE_ID / "one").write_bytes(b"EDIT")
    with restarted(root) as (house, receipt):
        assert receipt.result.outcome is Outcome.UNKNOWN
        assert house.files() == {**NEW, "one": b"EDIT"}
        assert receipt.result.divergence_details == ("one: not what the report said",)
        assert len(house.ledger.checkpoints("m-1")) == STEPS


def test_a_lost_journal_is_noticed(root: Path) -> None:
    """Where the disk shows what nobody wrote down, nobody knows what was done, and the receipt says so."""
    die(root, ROLL_BACK, lambda: kill_at_rename(3, after=False))
    shutil.rmtree(root / "staging")
    with restarted(root) as (house, receipt):
        assert receipt.result.outcome is Outcome.UNKNOWN
        assert len(receipt.result.divergence_details) == 2
        assert house.files() == {**NEW, "three": OLD["three"]}


def test_a_workspace_that_is_not_served_can_not_be_looked_at(root: Path) -> None:
    """The receipt says so; when the workspace is back, what was half made is undone all the same."""
    die(root, ROLL_BACK, lambda: kill_at_rename(2, after=True))
    house = House.__new__(RealHouse)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tests.unit.executor.house.WORKSPACE_ID", "another")
        (root / "another").mkdir()
        house.__init__(root)  # type: ignore[misc]  # an executor for another workspace
        [receipt] = house.receipts
        house.close()
    assert receipt.result.outcome is Outcome.UNKNOWN
    assert "not served" in receipt.result.errors[1]
    last = RealHouse(root)
    assert last.receipts == ()
    assert last.files() == {**OLD, "one": NEW["one"], "two": NEW["two"]}
    assert last.workspace.committer(ObjectStore(root / "none", lambda _: None)).pending() == ()
    last.close()


def test_an_execution_that_breaks_off_is_rolled_back_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error in the middle is no reason to leave half a mission behind, nor to wait for a restart."""
    real, calls = step_receipts.step_receipt, 0

    def breaks(*arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise ZeroDivisionError("broken")
        return real(*arguments)  # type: ignore[arg-type]  # handed on as they came

    monkeypatch.setattr(execute, "step_receipt", breaks)
    house = RealHouse(root)
    house.run(ROLL_BACK)
    progress = house.core.get_execution(mission_id="m-1").progress(0)
    assert progress.record.outcome is Outcome.ROLLED_BACK
    check_events(progress.events)
    assert is_old(root)
    assert house.staged() == set()
    house.close()


def test_a_success_whose_receipt_could_not_be_stored_is_one_after_the_restart(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start proves from the journal that every step was done."""
    monkeypatch.setattr("executor.runner.carrying_out.STORE_ATTEMPTS", 1)
    house = RealHouse(root)
    with monkeypatch.context() as patched:
        patched.setattr(house.ledger, "finish", lambda *_, **__: (_ for _ in ()).throw(ZeroDivisionError))
        house.run(ROLL_BACK)
    house.close()
    with restarted(root) as (following, receipt):
        assert receipt.result.outcome is Outcome.SUCCESS
        assert following.files() == NEW
