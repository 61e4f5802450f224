"""The workspace as it would be after the steps so far: the real one below, what the steps made of it in memory.

Nothing is written. Every path of the base that was looked at is remembered with what it was (`consulted`): these are
the paths that must still be the same when the change is committed. `stamps` and `listed` tell cheaply whether the base
is still what was seen of it. The cost of an edit follows the paths it touches, never the size of the workspace.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from executor.domain.changes import Change, ChangeKind, Node, NodeType, change_between
from executor.domain.errors import StepFailedError, StepUnsafeError
from executor.workspace.objects import Batch
from executor.workspace.paths import (
    ROOT,
    ChangedError,
    Directory,
    ancestors,
    is_beneath,
    join,
    name_of,
    parent_of,
    read_up_to,
    shown,
    too_large,
)
from gonogo.digests import digest as digest_of

MAX_TOUCHED = 100_000
MAX_CHANGE_BYTES = 4 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """What a touched path is, and where a file's bytes are: at a path of the base, or else in the batch."""

    node: Node | None
    base_path: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Touch:
    """One entry of the tree's history: what a path was before it was touched, and where it was moved from.

    `mtime_ns`: the modification time that whoever touched it set besides.
    """

    path: bytes
    before: _State
    moved_from: bytes = b""
    mtime_ns: int | None = None


_ABSENT = _State(node=None)


class Tree:
    """A virtual tree over a workspace.

    Args:
        base: the workspace; it is only read.
        batch: takes the content that the edits make.
        max_change_bytes: the most bytes of base content that may have to be copied into the batch at once.

    All paths are in normal form. `FileNotFoundError` never leaves it: what is missing is None or `StepFailedError`.
    """

    def __init__(self, base: Directory, batch: Batch, *, max_change_bytes: int = MAX_CHANGE_BYTES) -> None:
        self.base = base
        self.batch = batch
        self.consulted: dict[bytes, Node | None] = {}
        self.stamps: dict[bytes, os.stat_result | None] = {}
        self.listed: dict[bytes, tuple[os.stat_result | None, frozenset[bytes]]] = {}
        self._states: dict[bytes, _State] = {}
        self._history: list[_Touch] = []
        # Directories whose names in the base are not theirs any more: made, moved or deleted here.
        self._opaque: set[bytes] = set()
        # Touched names by directory, so that listing one directory does not go through every touched path.
        self._names: dict[bytes, set[bytes]] = {}
        self._max_change_bytes = max_change_bytes

    def node(self, path: bytes) -> Node | None:
        """Return what a path is now, a file's digest included."""
        return self._state(path).node

    def touched(self, path: bytes) -> bool:
        """Tell whether the base can not answer for a path any more."""
        return path in self._states or self._covered(path)

    def made_here(self, path: bytes) -> bool:
        """Tell whether a directory's names in the base are not its own: it was made, moved or deleted here."""
        return path in self._opaque or self._covered(path)

    def states(self) -> Mapping[bytes, Node | None]:
        """Return every touched path and what it is now."""
        return {path: state.node for path, state in self._states.items()}

    def link_target(self, path: bytes) -> bytes | None:
        """Return where a symbolic link points to, None where the path is no link; no file is read for it."""
        if path in self._states or path in self.consulted:
            node = self.node(path)
        else:
            node = None if self._covered(path) else self.base.state(path, digest=False)
        return node.link_target if node is not None and node.type is NodeType.SYMLINK else None

    def children(self, path: bytes) -> list[bytes]:
        """Return the names in a directory, sorted.

        Raises:
            StepFailedError: it is no directory.
        """
        self._directory(path)
        names: set[bytes] = set() if self.made_here(path) else self._base_names(path)
        touched = self._names.get(path, set())
        return sorted((names - touched) | {name for name in touched if self.node(join(path, name)) is not None})

    def content(self, path: bytes, limit: int) -> bytes:
        """Return a file's bytes, all of them.

        Raises:
            StepFailedError: it is no file, is over the limit, or is no longer what it was when it was looked at.
        """
        node = self._file(path)
        if node.size > limit:
            raise too_large(path, limit)
        fd = self.open_content(path)
        try:
            data = read_up_to(fd, 0, node.size + 1)
        finally:
            os.close(fd)
        if digest_of(data) != node.digest:
            raise ChangedError(path)
        return data

    def open_content(self, path: bytes) -> int:
        """Return a descriptor of a file's bytes, the caller's to close."""
        node = self._file(path)
        base_path = self._state(path).base_path
        if base_path is None:
            return self.batch.open(node.digest)
        try:
            return self.base.open_file(base_path)
        except (FileNotFoundError, NotADirectoryError):
            raise ChangedError(base_path) from None

    def put_file(self, path: bytes, data: bytes, mode: int) -> None:
        """Write a whole file; one that is there keeps its extended attributes."""
        old = self.node(path)
        if old is not None and old.type is not NodeType.FILE:
            raise _wrong_type(path, "a file", old)
        self._directory(parent_of(path))
        self._refuse_shared(path)
        xattrs = old.xattrs if old else ()
        digest = self.batch.put_bytes(data)
        node = Node(type=NodeType.FILE, mode=mode, digest=digest, size=len(data), xattrs=xattrs)
        self._touch(path, _State(node=node))

    def put_node(self, path: bytes, node: Node | None, *, mtime_ns: int | None = None) -> None:
        """Take over what a command made of a path; a file's content is in the batch already, unless it is unchanged.

        Args:
            path: of the tree.
            node: what is there now.
            mtime_ns: the modification time, where the command set one; a change by itself.
        """
        before = self._state(path)
        kept = node is not None and before.node is not None and node.digest == before.node.digest
        state = _State(node=node, base_path=before.base_path if kept else None)
        self._record(path, before, state, mtime_ns=mtime_ns)
        if not (_is_directory(node) and _is_directory(before.node)):
            self._opaque.add(path)

    def make_directory(self, path: bytes, mode: int) -> None:
        """Make a directory whose name must be free."""
        self._free(path)
        self._touch(path, _State(node=Node(type=NodeType.DIRECTORY, mode=mode)))
        self._opaque.add(path)

    def remove(self, path: bytes, *, recursive: bool) -> None:
        """Delete a path; a directory that holds something only with `recursive`."""
        node = self._present(path)
        if path == ROOT:
            raise _root_stays()
        if node.type is NodeType.DIRECTORY and not recursive and self.children(path):
            remedy = "set recursive, or delete what it holds first"
            raise StepFailedError(
                "CONFLICT", f"{shown(path)!r} is a directory that is not empty", remedy, paths=(path,)
            )
        for gone, before in self._with_states(path):
            self._record(gone, before, _ABSENT)
            self._opaque.add(gone)

    def move(self, path: bytes, to: bytes) -> None:
        """Move a path, with all beneath it, to a name that must be free."""
        self._present(path)
        if path == ROOT:
            raise _root_stays()
        if to == path or is_beneath(to, path):
            raise StepFailedError("CONFLICT", f"{shown(path)!r} can not move into itself", "name another target")
        self._free(to)
        for old, state in self._with_states(path):
            new = to + old[len(path) :]
            self._touch(new, state, moved_from=old)
            self._record(old, state, _ABSENT)
            self._opaque |= {old, new}

    def set_mode(self, path: bytes, mode: int) -> None:
        """Set permission bits."""
        node = self._present(path)
        if node.type not in {NodeType.FILE, NodeType.DIRECTORY}:
            raise _wrong_type(path, "a file or directory", node)
        self._refuse_shared(path)
        self._touch(path, replace(self._state(path), node=replace(node, mode=mode)))

    def replay(self, changes: Sequence[Change]) -> None:
        """Make a change set that was worked out elsewhere, all of it at once.

        Args:
            changes: each must start from what its path is here. The bytes of a file that comes or changes are in the
                batch; a file that moves, or changes only its bits, keeps its own.
        """
        going = [change.moved_from or change.path for change in changes if change.moved_from or change.new is None]
        before = {path: self._state(path) for path in going}
        for path in sorted(going, reverse=True):
            self._record(path, before[path], _ABSENT)
            self._opaque.add(path)
        for change in sorted(changes, key=lambda change: change.path):
            if change.moved_from:
                self._touch(change.path, before[change.moved_from], moved_from=change.moved_from)
                self._opaque.add(change.path)
            elif change.new is not None:
                self.put_node(change.path, change.new)

    def mark(self) -> int:
        """Return a point in the tree's history, for `changes_since`."""
        return len(self._history)

    def changes_since(self, mark: int) -> tuple[Change, ...]:
        """Return exactly what changed since a mark, sorted by raw path bytes.

        A path that was moved and left as it was is one move; each path beneath a moved directory has its own. The
        bytes of every file that the changes create or modify are in the batch.
        """
        before: dict[bytes, Node | None] = {}
        moves: dict[bytes, bytes] = {}
        times: dict[bytes, int | None] = {}
        arrived: set[bytes] = set()  # what came here since the mark did not move from here: only the first one did
        for touch in self._history[mark:]:
            before.setdefault(touch.path, touch.before.node)
            times[touch.path] = touch.mtime_ns
            moved_from = moves.pop(touch.moved_from, b"" if touch.moved_from in arrived else touch.moved_from)
            moves.pop(touch.path, None)
            if moved_from:
                moves[touch.path] = moved_from
            if touch.before.node is None:
                arrived.add(touch.path)
        pure = {to: old for to, old in moves.items() if self._is_pure(before, old, to)}
        changes = [self._move(old, to) for to, old in pure.items()]
        gone = set(pure.values())
        for path, old in before.items():
            if path in pure or path in gone:
                continue
            change = change_between(path, old, self.node(path), times[path])
            if change is not None:
                self._store_content(change)
                changes.append(change)
        return tuple(sorted(changes, key=lambda change: change.path))

    def _is_pure(self, before: Mapping[bytes, Node | None], old: bytes, to: bytes) -> bool:
        return before[old] == self.node(to) and before[to] is None and self.node(old) is None

    def _move(self, old: bytes, to: bytes) -> Change:
        node = self.node(to)
        return Change(path=to, kind=ChangeKind.MOVE, old=node, new=node, moved_from=old)

    def _base_names(self, path: bytes) -> set[bytes]:
        if path not in self.listed:
            stamp = self.base.lstat(path)  # before the names: what comes while they are read is seen, too
            try:
                self.listed[path] = stamp, frozenset(self.base.names(path))
            except (FileNotFoundError, NotADirectoryError):
                raise ChangedError(path) from None
        return set(self.listed[path][1])

    def _store_content(self, change: Change) -> None:
        """Bring a file's bytes from the base into the batch where the change needs them under a new name."""
        node, base_path = change.new, self._state(change.path).base_path
        if node is None or node.type is not NodeType.FILE or base_path is None or change.kind is ChangeKind.METADATA:
            return
        fd = self.open_content(change.path)
        try:
            digest, _ = self.batch.put_fd(fd, limit=self._max_change_bytes)
        finally:
            os.close(fd)
        if digest != node.digest:
            raise ChangedError(base_path)

    def _state(self, path: bytes) -> _State:
        state = self._states.get(path)
        if state is not None:
            return state
        if self._covered(path):
            return _ABSENT
        if path not in self.consulted:
            found = self.base.examine(path)
            self.consulted[path], self.stamps[path] = found or (None, None)
        return _State(node=self.consulted[path], base_path=path)

    def _covered(self, path: bytes) -> bool:
        """Tell whether a directory above the path was made, moved or deleted here, so that the base says nothing."""
        return bool(self._opaque) and any(above in self._opaque for above in ancestors(path))

    def _walk(self, path: bytes) -> Iterator[bytes]:
        """Yield a path and everything beneath it, parents first."""
        waiting = [path]
        count = len(self._states)
        while waiting:
            here = waiting.pop()
            count += 1
            _bound(count)
            yield here
            node = self.node(here)
            if node is not None and node.type is NodeType.DIRECTORY:
                waiting.extend(join(here, name) for name in reversed(self.children(here)))

    def _with_states(self, path: bytes) -> list[tuple[bytes, _State]]:
        """Return a path and everything beneath it with what it is, before the first of them changes."""
        return [(beneath, self._state(beneath)) for beneath in self._walk(path)]

    def _touch(self, path: bytes, state: _State, *, moved_from: bytes = b"") -> None:
        self._record(path, self._state(path), state, moved_from=moved_from)

    def _record(
        self, path: bytes, before: _State, state: _State, *, moved_from: bytes = b"", mtime_ns: int | None = None
    ) -> None:
        self._history.append(_Touch(path=path, before=before, moved_from=moved_from, mtime_ns=mtime_ns))
        self._states[path] = state
        if path != ROOT:
            self._names.setdefault(parent_of(path), set()).add(name_of(path))
        _bound(len(self._states))

    def _present(self, path: bytes) -> Node:
        node = self.node(path)
        if node is None:
            raise _missing(path, "name a path that exists, or create it in an earlier step")
        return node

    def _file(self, path: bytes) -> Node:
        node = self._present(path)
        if node.type is not NodeType.FILE:
            raise _wrong_type(path, "a file", node)
        return node

    def _directory(self, path: bytes) -> None:
        """Raise unless a path is a directory; the root always is, and is not looked at."""
        if path == ROOT:
            return
        node = self.node(path)
        if node is None:
            raise _missing(path, "create the directory in an earlier step")
        if node.type is not NodeType.DIRECTORY:
            raise _wrong_type(path, "a directory", node)

    def _free(self, path: bytes) -> None:
        if self.node(path) is not None:
            remedy = "use a free name, or change what is there instead"
            raise StepFailedError("CONFLICT", f"{shown(path)!r} exists already", remedy, paths=(path,))
        self._directory(parent_of(path))

    def _refuse_shared(self, path: bytes) -> None:
        """Refuse to change a file that has further names: the change would show under names that nobody approves."""
        state = self._state(path)
        if state.base_path is None or state.node is None or state.node.type is not NodeType.FILE:
            return
        status = self.base.lstat(state.base_path)
        if status is not None and status.st_nlink > 1:
            message = f"{shown(path)!r} is a file with {status.st_nlink} hard links"
            remedy = "replace the file by a copy of its own outside gonogo, then plan again"
            raise StepUnsafeError("UNSUPPORTED", message, remedy, paths=(path,))


def _is_directory(node: Node | None) -> bool:
    return node is not None and node.type is NodeType.DIRECTORY


def _bound(count: int) -> None:
    if count > MAX_TOUCHED:
        message = f"the plan touches more than {MAX_TOUCHED} paths"
        raise StepFailedError("TOO_LARGE", message, "divide it into several plans")


def _missing(path: bytes, remedy: str) -> StepFailedError:
    return StepFailedError("NOT_FOUND", f"{shown(path)!r} does not exist", remedy, paths=(path,))


def _wrong_type(path: bytes, wanted: str, node: Node) -> StepFailedError:
    message = f"{shown(path)!r} is not {wanted} but {node.type.value}"
    return StepFailedError("CONFLICT", message, f"name {wanted}", paths=(path,))


def _root_stays() -> StepFailedError:
    return StepFailedError("CONFLICT", "the workspace itself can be neither moved nor deleted", "name a path in it")
