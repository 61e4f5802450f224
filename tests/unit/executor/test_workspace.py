"""The workspace: the directory that was opened, one execution at a time, apart from state and staging."""

import threading
from pathlib import Path

import pytest

from executor.workspace.commit import Committer, StagingUnavailableError
from executor.workspace.workspace import WorkspaceBusyError, WorkspaceUnknownError, check_placement
from tests.unit.executor.commit_house import Site, site, workspace

__all__ = ["site"]


def test_staging_must_be_outside_and_on_the_same_file_system(site: Site) -> None:
    """A staging directory that can not serve is refused with its remedy."""
    for place in (site.root / "inside", site.root, Path("/dev/shm/gonogo-test-staging")):
        with pytest.raises(StagingUnavailableError) as caught:
            Committer(site.directory, place, site.batch)
        assert "--staging" in caught.value.fault.remedy
        assert place == site.root or not place.exists()


def test_a_replaced_root_is_noticed(tmp_path: Path) -> None:
    """The workspace is the directory that was opened, not whatever has its name later."""
    (tmp_path / "workspace").mkdir()
    here = workspace(tmp_path)
    assert here.open() is here.open()
    (tmp_path / "workspace").rename(tmp_path / "old")
    with pytest.raises(WorkspaceUnknownError):
        here.open()
    (tmp_path / "workspace").mkdir()
    with pytest.raises(WorkspaceUnknownError, match="another directory"):
        here.open()
    here.close()


def test_a_missing_root_or_staging_is_an_error_with_a_remedy(tmp_path: Path, site: Site) -> None:
    """A workspace without a directory, or without staging, says what the operator can do."""
    with pytest.raises(WorkspaceUnknownError):
        workspace(tmp_path, "none").open()
    here = workspace(tmp_path)
    here.staging = None
    with pytest.raises(StagingUnavailableError):
        here.committer(site.batch)
    here.close()


def test_one_execution_at_a_time(tmp_path: Path) -> None:
    """A second holder waits, in this process and across processes, and gives up after its time."""
    (tmp_path / "workspace").mkdir()
    here, other_process = workspace(tmp_path), workspace(tmp_path)
    for second in (here, other_process):
        with here.lock(), pytest.raises(WorkspaceBusyError), second.lock(timeout=0.02):
            pass
        with second.lock(timeout=0):
            pass
    entered = threading.Event()

    def wait() -> None:
        with other_process.lock(timeout=10):
            entered.set()

    with here.lock():
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert not entered.wait(0.05)
    waiting.join()
    assert entered.is_set()
    here.close()
    other_process.close()


@pytest.mark.parametrize("state", ["a/state", ".", "a", "b/.."])
def test_state_and_workspaces_must_lie_beside_each_other(tmp_path: Path, state: str) -> None:
    """A state directory in a workspace, or around one, is refused at the start."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    check_placement([workspace(tmp_path, "a"), workspace(tmp_path, "b")], tmp_path / "state")
    with pytest.raises(WorkspaceUnknownError):
        check_placement([workspace(tmp_path, "a")], tmp_path / state)
    with pytest.raises(WorkspaceUnknownError):
        check_placement([workspace(tmp_path, "a"), workspace(tmp_path, "a/x")], tmp_path / "state")
