"""A workspace: a directory that plans may change, opened once, and changed by one execution at a time."""

import contextlib
import fcntl
import hashlib
import os
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from executor.domain.errors import ExecutorError
from executor.workspace.commit import Committer
from executor.workspace.globs import Globs
from executor.workspace.objects import Objects
from executor.workspace.paths import LARGEST_FILE, Directory
from executor.workspace.staging import StagingUnavailableError

_POLL_SECONDS = 0.005


class WorkspaceUnknownError(ExecutorError):
    """The workspace's directory is not there, not usable, or not the one that the executor opened at its start."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__("WORKSPACE_UNKNOWN", message, remedy)


class WorkspaceBusyError(ExecutorError):
    """Another execution holds the workspace for longer than the caller waits; the same call may work later."""


class Workspace:
    """One workspace, as the executor's operator named it.

    Args:
        workspace_id: its id in plans.
        root: its directory.
        staging: a directory on the same file system and outside of it; None where there is no such place.
        locks: the executor's directory of lock files.
        hidden: paths that no dry run shows.
        volatile: paths that change by themselves and that no command sees.
        largest_file: bytes of the largest file that is read for its digest; steps that touch a larger one are refused.
    """

    def __init__(
        self,
        *,
        workspace_id: str,
        root: Path,
        staging: Path | None,
        locks: Path,
        hidden: Globs,
        volatile: Globs,
        largest_file: int = LARGEST_FILE,
    ) -> None:
        self.workspace_id = workspace_id
        self.root = root
        self.staging = staging
        self.hidden = hidden
        self.volatile = volatile
        self._locks = locks
        self._largest_file = largest_file
        self._directory: Directory | None = None
        self._committer: Committer | None = None
        self._lock_fds: tuple[int, ...] = ()
        self._opening = threading.Lock()
        self._thread_lock = threading.Lock()

    def use(self, *, hidden: Globs, volatile: Globs, largest_file: int) -> None:
        """Go by other rules from now on; whoever works under the former ones finds out at the end."""
        with self._opening:
            self.hidden = hidden
            self.volatile = volatile
            self._largest_file = largest_file
            if self._directory is not None:
                self._directory.largest = largest_file

    def open(self) -> Directory:
        """Return the workspace's directory, opened at the first call and kept; it is never the caller's to close.

        Raises:
            WorkspaceUnknownError: it is missing, or its path is another directory by now.
        """
        directory = self._directory or self._first_open()
        try:
            status = self.root.stat()
        except OSError as error:
            raise self._unknown(f"is not there: {error.strerror}") from error
        if (status.st_dev, status.st_ino) != (directory.device, directory.inode):
            raise self._unknown("is another directory than when the executor started")
        return directory

    def committer(self, objects: Objects) -> Committer:
        """Return the workspace's committer, made at the first call and kept.

        Args:
            objects: where the content of new files is; the same at every call.

        Raises:
            StagingUnavailableError: there is no usable staging directory.
        """
        if self.staging is None:
            raise StagingUnavailableError(f"workspace {self.workspace_id!r} has no staging directory")
        directory = self.open()
        with self._opening:
            if self._committer is None:
                committer = Committer(directory, self.staging, objects)
                try:
                    committer.take_journal()
                except StagingUnavailableError:
                    committer.close()
                    raise
                self._committer = committer
            return self._committer

    @contextlib.contextmanager
    def lock(self, timeout: float = 30.0) -> Iterator[None]:
        """Hold the workspace against every other execution, of this process and of others.

        Args:
            timeout: seconds to wait for it.

        Raises:
            WorkspaceBusyError: it was held all that time.
        """
        until = time.monotonic() + timeout
        if not self._thread_lock.acquire(timeout=max(timeout, 0)):
            raise self._busy(timeout)
        try:
            with contextlib.ExitStack() as held:
                for fd in self._lock_fds or self._open_locks():
                    self._take(fd, until, timeout)
                    held.callback(fcntl.flock, fd, fcntl.LOCK_UN)
                yield
        finally:
            self._thread_lock.release()

    def close(self) -> None:
        """Close what was opened; the workspace is not used any more."""
        with self._opening:
            if self._committer is not None:
                self._committer.close()
            if self._directory is not None:
                self._directory.close()
            for fd in self._lock_fds:
                os.close(fd)
            self._committer = self._directory = None
            self._lock_fds = ()

    def _first_open(self) -> Directory:
        with self._opening:
            if self._directory is None:
                try:
                    self._directory = Directory.open(self.root, largest=self._largest_file)
                except OSError as error:
                    raise self._unknown(f"can not be opened: {error.strerror}") from error
            return self._directory

    def _open_locks(self) -> tuple[int, ...]:
        """Open what stands for the workspace: a file of this executor's, and the directory itself for all others."""
        file = os.open(self._lock_path(), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        directory = os.open(b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.open().fd)
        self._lock_fds = (file, directory)
        return self._lock_fds

    def _take(self, fd: int, until: float, timeout: float) -> None:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise self._busy(timeout) from None
                time.sleep(_POLL_SECONDS)
            else:
                return

    def _lock_path(self) -> Path:
        """Return the lock file; its name is that of the directory, so that two ids for one directory share it."""
        directory = self.open()
        self._locks.mkdir(parents=True, exist_ok=True)
        identity = f"{directory.device}:{directory.inode}".encode()
        return self._locks / f"{hashlib.sha256(identity).hexdigest()[:32]}.lock"

    def _unknown(self, what: str) -> WorkspaceUnknownError:
        remedy = "restore the directory, or restart the executor with the right --workspace"
        return WorkspaceUnknownError(f"workspace {self.workspace_id!r} {what}", remedy)

    def _busy(self, timeout: float) -> WorkspaceBusyError:
        message = f"workspace {self.workspace_id!r} was in use for {timeout:g} seconds"
        return WorkspaceBusyError("OVERLOADED", message, "try again when the running execution has ended")


def check_placement(workspaces: Iterable[Workspace], state_directory: Path) -> None:
    """Check that no workspace holds, or is held by, the state directory or another workspace.

    A plan could else change the executor's own keys and ledger, or one execution change what another has checked.

    Raises:
        WorkspaceUnknownError: one of them does.
    """
    kept: Sequence[tuple[str, Path]] = [(f"workspace {one.workspace_id!r}", one.root.resolve()) for one in workspaces]
    places = [*kept, ("the state directory", state_directory.resolve())]
    for position, (name, path) in enumerate(places):
        for other_name, other in places[position + 1 :]:
            if path.is_relative_to(other) or other.is_relative_to(path):
                message = f"{name} ({path}) and {other_name} ({other}) lie one inside the other"
                raise WorkspaceUnknownError(message, "choose directories beside each other")
