"""Two executors in processes of their own, each with its own state, on one workspace."""

import os
import time
from pathlib import Path

import pytest

from executor.runner.executions import RefusedError
from executor.workspace.commit import Committer
from executor.workspace.staging import StagingUnavailableError
from executor.workspace.workspace import Workspace, WorkspaceBusyError
from tests.unit.executor.commit_house import workspace
from tests.unit.executor.house import WORKSPACE_ID
from tests.unit.executor.test_recovery import ROLL_BACK, RealHouse, become_a_process_of_its_own

NAMES = ("a", "b")


@pytest.fixture
def roots(tmp_path: Path) -> list[Path]:
    """Two states, whose workspace is the same directory."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "one").write_bytes(b"old one")
    roots = [tmp_path / name for name in NAMES]
    for root in roots:
        root.mkdir()
        (root / WORKSPACE_ID).symlink_to(tmp_path / "shared")
    return roots


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def execute_slowly(root: Path) -> None:
    """Dry run, wait until the other one has too, and execute; the outcome goes into a file."""
    apply = Committer.apply

    def slow(self: Committer, *arguments: object, **options: object) -> object:
        time.sleep(0.1)
        return apply(self, *arguments, **options)  # type: ignore[arg-type]  # handed on as they came

    Committer.apply = slow  # type: ignore[assignment,method-assign]  # only in this process
    house = RealHouse(root)
    dry_run = house.dry_run

    def dry_run_and_wait(*arguments: object) -> object:
        report = dry_run(*arguments)  # type: ignore[arg-type]  # handed on as they came
        (root / "ready").touch()
        for name in NAMES:
            wait_for(root.parent / name / "ready")
        return report

    house.dry_run = dry_run_and_wait  # type: ignore[assignment,method-assign]  # only in this process
    try:
        house.run(ROLL_BACK)
        outcome = house.core.get_execution(mission_id="m-1").progress(0).record.outcome
        assert outcome is not None
        (root / "outcome").write_text(outcome.value)
    except RefusedError as error:
        (root / "outcome").write_text(error.fault.reason)


def test_the_second_mission_waits_and_then_sees_drift(roots: list[Path]) -> None:
    """Both dry runs saw the old files; of two executions at once one is made, and the other one changes nothing."""
    children = []
    for root in roots:
        child = os.fork()
        if child == 0:
            try:
                become_a_process_of_its_own()
                execute_slowly(root)
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    assert sorted((root / "outcome").read_text() for root in roots) == ["BASE_DRIFTED", "success"]
    shared = roots[0].parent / "shared"
    assert {path.name: path.read_bytes() for path in shared.iterdir()} == {
        "one": b"new one",
        "two": b"new two",
        "three": b"new three",
    }


def test_executors_without_a_common_state_lock_each_other_out(tmp_path: Path) -> None:
    """The directory itself is locked, so that nothing has to be shared but the workspace."""
    (tmp_path / "workspace").mkdir()
    one, other = workspace(tmp_path), workspace(tmp_path)
    other._locks = tmp_path / "other locks"
    with one.lock(), pytest.raises(WorkspaceBusyError), other.lock(timeout=0.02):
        pass
    with other.lock(timeout=0):
        pass
    close(one, other)


def test_one_journal_has_one_executor(tmp_path: Path) -> None:
    """A second executor on the same workspace and staging directory can not commit until the first has ended."""
    (tmp_path / "workspace").mkdir()
    one, other = workspace(tmp_path), workspace(tmp_path)
    one.committer(no_objects)  # type: ignore[arg-type]  # never asked
    with pytest.raises(StagingUnavailableError, match="another executor"):
        other.committer(no_objects)  # type: ignore[arg-type]  # never asked
    one.close()
    other.committer(no_objects)  # type: ignore[arg-type]  # never asked
    other.close()


no_objects = object()


def close(*workspaces: Workspace) -> None:
    for one in workspaces:
        one.close()
