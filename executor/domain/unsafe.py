"""What a change set may not hold, whoever made it: a result that is more than files, directories and links.

Each finding names the path and says why. The rules look at the change set and at what is around it, never at argv.
"""

import stat
from collections.abc import Callable, Iterable, Iterator

from executor.domain.changes import Change, Node, NodeType
from executor.domain.errors import Fault, StepUnsafeError
from gonogo.safe_text import shown_path

SETUID_OR_SETGID = stat.S_ISUID | stat.S_ISGID

NodeOf = Callable[[bytes], Node | None]


class ResultUnsafeError(StepUnsafeError):
    """A step's result may not be committed; each finding has its path and its reason."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        self.faults = tuple(sorted(faults, key=lambda fault: fault.paths))
        first = self.faults[0]
        super().__init__(first.reason, first.message, first.remedy, paths=first.paths)


def unsafe(path: bytes, what: str, remedy: str) -> Fault:
    """Return the finding that a path's result may not be committed."""
    message = f"the result {shown_path(path)!r} {what}"
    return Fault(reason="SIMULATION_UNSAFE", message=message, remedy=remedy, paths=(path,))


def unsafe_changes(changes: Iterable[Change], node_of: NodeOf) -> Iterator[Fault]:
    """Yield what keeps changes from being committed, by type and permission bits.

    Args:
        changes: one step's.
        node_of: what a path is after the step.
    """
    for change in changes:
        if change.new is None:
            continue
        if change.new.type is NodeType.OTHER:
            yield unsafe(change.path, "is a device, socket or FIFO", "let the command remove it before it ends")
        elif change.new.mode & SETUID_OR_SETGID:
            yield from _privileged(change, change.new, node_of)


def commits_without_index(changes: Iterable[Change], hidden: Iterable[bytes]) -> Iterator[Fault]:
    """Yield the branches to which git committed in a repository whose index the command was not shown.

    Without its index git takes every file for deleted, and so would the commit.

    Args:
        changes: one command's.
        hidden: the volatile paths that commands do not see.
    """
    repositories = [
        path.removesuffix(b"index") for path in hidden if path == b".git/index" or path.endswith(b"/.git/index")
    ]
    kept = tuple(changes) if repositories else ()
    for repository in repositories:
        if not any(change.new and change.path.startswith(repository + b"objects/") for change in kept):
            continue
        moved = (
            repository + b"HEAD",
            repository + b"packed-refs",
            repository + b"refs/heads/",
            repository + b"refs/stash",
        )
        for change in kept:
            if change.new is not None and change.new.type is NodeType.FILE and change.path.startswith(moved):
                remedy = (
                    "commit outside gonogo, or let the operator take .git/index out of `volatile` in the trust file"
                )
                yield unsafe(change.path, "was committed to without git's index, which commands are not shown", remedy)


def _privileged(change: Change, new: Node, node_of: NodeOf) -> Iterator[Fault]:
    """A file may have no such bit at all; a directory one that it had before, or a setgid bit that it inherited."""
    if new.type is NodeType.FILE:
        yield unsafe(change.path, "has a setuid or setgid bit", "leave such bits to the operator of the machine")
        return
    gained = new.mode & ~(0 if change.old is None else change.old.mode) & SETUID_OR_SETGID
    parent = node_of(change.path.rpartition(b"/")[0] or b".")
    inherited = stat.S_ISGID & (0 if parent is None else parent.mode)
    if gained & ~inherited:
        yield unsafe(change.path, "is a directory that gains a setuid or setgid bit", "leave its group's bit as it was")
