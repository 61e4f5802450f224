"""A session without an overlay: its commands work on a private copy of the workspace (ladder level L2)."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from executor.sandbox.copying import Budget, Copier
from executor.sandbox.files import UnreadableFileError, kind_of
from executor.sandbox.private_copy import Mirror, copy_tree, let_clock_pass
from executor.sandbox.sandbox import CommandResult, CommandSpec, OutputListener, SandboxUnavailableError, SessionRequest
from executor.sandbox.session import BubblewrapSession, Ground, SessionParts
from executor.sandbox.storage import DiskPlace

_UNBOUNDED = 1 << 62


def copy_of(request: SessionRequest, place: DiskPlace) -> Mirror:
    """Copies the workspace to `merged` in the place on disk.

    Raises:
        SandboxRefusedError: it is too large, or holds what can not be copied.
        SandboxUnavailableError: the disk does not take it.
    """
    merged, upper = place.cellar / "merged", place.cellar / "upper"
    try:
        _copy(request.workspace, merged, request, place, left_empty=frozenset(request.hidden))
        upper.mkdir(mode=0o700)
        budget = Budget(most_bytes=_UNBOUNDED, most_inodes=_UNBOUNDED)  # commands' own limits bound what changed
        return Mirror(merged=merged, upper=upper, copier=Copier(budget=budget, escape=True))
    except OSError as error:
        raise _not_copied(error) from error


class CopySession(BubblewrapSession):
    """One open session on a copy; see `SandboxSession` for what it promises."""

    def __init__(self, parts: SessionParts, copy: Mirror) -> None:
        super().__init__(parts)
        self._copy = copy
        self._dirty = False

    @property
    def merged(self) -> Path:
        self._dirty = True  # whoever asks may write there
        return super().merged

    @property
    def upper(self) -> Path:
        if self._dirty:
            self._bring_up_to_date()
        return super().upper

    def hide(self, paths: tuple[bytes, ...]) -> None:
        """Also takes the content back that was copied already."""
        super().hide(paths)
        merged = self._disk.cellar / "merged"
        try:
            with contextlib.suppress(UnreadableFileError):  # behind a link: no command will run
                for path in sorted(paths):
                    self._empty(merged, path)
            self._copy.begin()
        except OSError as error:
            raise _not_copied(error) from error

    def _empty(self, merged: Path, path: bytes) -> None:
        kind = kind_of(merged, path)
        place = merged / os.fsdecode(path)
        if kind not in (stat.S_IFREG, stat.S_IFDIR):
            return
        parent, status = place.parent.stat(), place.lstat()
        if kind == stat.S_IFREG:
            place.unlink()
            place.touch(0o400)
        else:
            self._disk.remove(str(place.relative_to(self._disk.cellar)))
            place.mkdir(stat.S_IMODE(status.st_mode))
        os.utime(place, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.utime(place.parent, ns=(parent.st_atime_ns, parent.st_mtime_ns))

    def run(self, spec: CommandSpec, on_output: OutputListener | None = None) -> CommandResult:
        self._dirty = True
        let_clock_pass()
        return super().run(spec, on_output)

    def _ground(self) -> Ground:
        return Ground(mounts=self._holder, bound="merged", written=self._holder.path("merged"))

    @contextlib.contextmanager
    def _throw_away_ground(self) -> Iterator[Ground]:
        """A copy of the copy."""
        place = self._disk
        self._layers += 1
        name = f"layer-{self._layers}"
        layer = place.cellar / name
        try:
            taken = self._copied_to(layer)
            try:
                yield Ground(mounts=self._holder, bound=name, written=layer)
            finally:
                place.allow(-taken.bytes, -taken.inodes)
        finally:
            place.remove(name)

    def _copied_to(self, layer: Path) -> Budget:
        try:
            return _copy(self._disk.cellar / "merged", layer, self._request, self._disk)
        except OSError as error:
            raise _not_copied(error) from error

    def _bring_up_to_date(self) -> None:
        budget = self._copy.copier.budget
        former = budget.bytes, budget.inodes
        try:
            self._copy.update()
        except OSError as error:
            raise _not_copied(error) from error
        self._disk.allow(budget.bytes - former[0], budget.inodes - former[1])
        self._dirty = False

    @property
    def _disk(self) -> DiskPlace:
        if self._place is None:
            raise SandboxUnavailableError("UNSUPPORTED", "the session has no place on disk", "report this")
        return self._place


def _copy(
    source: Path,
    target: Path,
    request: SessionRequest,
    place: DiskPlace,
    left_empty: frozenset[bytes] = frozenset(),
) -> Budget:
    limits = request.limits
    budget = Budget(most_bytes=min(limits.copy_bytes, place.room), most_inodes=limits.copy_inodes)
    copy_tree(source, target, copier=Copier(budget=budget), left_empty=left_empty)
    place.allow(budget.bytes, budget.inodes)
    return budget


def _not_copied(error: OSError) -> SandboxUnavailableError:
    return SandboxUnavailableError(
        "UNSUPPORTED",
        f"the private copy for commands could not be made: {error.strerror}",
        "look at the executor's state directory and its disk; with an overlay (level L3) nothing is copied",
    )
