"""Symbolic links that lead out of the workspace.

A link is followed as text through the tree as it will be, directory by directory and through other links on the way.
What is not there is no matter: a link may dangle. What lies outside is never looked at.
"""

from collections.abc import Iterable, Iterator

from executor.domain.changes import Change, NodeType
from executor.domain.errors import ExecutorError, Fault
from executor.domain.unsafe import unsafe
from executor.workspace.paths import ROOT, join, parent_of
from executor.workspace.tree import Tree

_MOST_LINKS = 40  # as the kernel
_OUT = frozenset({b"", b".."})


def leaving_links(changes: Iterable[Change], tree: Tree, workspace: bytes) -> Iterator[Fault]:
    """Yield the links that lead out by what a step did; one that did so before may stay, and move.

    Args:
        changes: the step's.
        tree: the workspace as it is after the step.
        workspace: the workspace's own absolute path; what lies beneath it is inside.
    """
    for change in changes:
        new, old = change.new, change.old
        if new is None or new.type is not NodeType.SYMLINK:
            continue
        if not leaves(tree, change.path, new.link_target, workspace):
            continue
        if old == new and leaves(tree, change.moved_from or change.path, new.link_target, workspace):
            continue
        yield unsafe(
            change.path,
            "is a symbolic link that leads out of the workspace",
            "let links point to what is in the workspace, by a relative path",
        )


def leaves(tree: Tree, path: bytes, target: bytes, workspace: bytes) -> bool:
    """Tell whether a link at a path leads out of the workspace."""
    here, waiting = _start(parent_of(path), target, workspace)
    links = 0
    while waiting:
        name = waiting.pop()
        further = None if name in _OUT else _target_of(tree, join(here, name))
        if further is not None:
            links += 1
            if links > _MOST_LINKS:
                return False  # a circle: it leads nowhere
            here, first = _start(here, further, workspace)
            waiting += first
        elif name == b"":
            return True
        elif name != b"..":
            here = join(here, name)
        elif here == ROOT:
            return True
        else:
            here = parent_of(here)
    return False


def _start(here: bytes, target: bytes, workspace: bytes) -> tuple[bytes, list[bytes]]:
    """Return where following a target begins, and the names to follow, the first one last.

    An absolute target goes on beneath the workspace, or it is outside, for which the empty name stands. One that goes
    up and comes back (`/work/../work/x`) counts as outside: what it leads over may be a link.
    """
    names = _names(target)
    if not target.startswith(b"/"):
        return here, names
    root = _names(workspace)
    rest = len(names) - len(root)
    return ROOT, names[:rest] if rest >= 0 and names[rest:] == root else [b""]


def _target_of(tree: Tree, path: bytes) -> bytes | None:
    try:
        return tree.link_target(path)
    except ExecutorError:
        return None  # a name too long, or not to be looked at: nothing that could be followed


def _names(target: bytes) -> list[bytes]:
    """Return a path's names, the first one last."""
    return [name for name in reversed(target.split(b"/")) if name not in {b"", b"."}]
