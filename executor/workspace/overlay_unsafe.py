"""What an overlay shows of a command's result that no change set could carry, and no commit could make.

A change set knows types, bits, contents, links and `user.` attributes. So a result is refused, by name, where it has
an owner of its own, an attribute of another name space, or shares its inode with another name: the commit would make
something else of it than the command did.
"""

import stat
from collections.abc import Iterator

from executor.domain.errors import Fault
from executor.domain.unsafe import unsafe
from executor.workspace.overlay import UpperEntry

_HIDDEN_FROM_COMMANDS = "user.overlay."


def unsafe_in_overlay(entry: UpperEntry, *, changed: bool, upper_device: int, owner: int | None) -> Iterator[Fault]:
    """Yield what keeps one changed entry from being committed.

    Args:
        entry: present, and perhaps changed by the command.
        changed: it is another content, mode or time than before; else it was only opened for writing.
        upper_device: the file system that the upper directory is on.
        owner: the user that a new name would belong to after the commit; None where that is not known, or the name is
            not new.
    """
    path = entry.path
    if entry.dev != upper_device:
        yield unsafe(path, "is on another file system", "let the command leave plain files and directories")
    yield from _shared(entry, changed=changed)
    yield from _attributes(entry)
    former = entry.former
    if former is not None and _type(former.mode) == _type(entry.mode):
        if (entry.uid, entry.gid) != (former.uid, former.gid):
            yield unsafe(path, "would belong to another owner or group than before", "write it in place instead")
    elif owner is not None and entry.uid != owner:
        yield unsafe(path, "would belong to another owner than its directory", "let its owner's executor make it")


def attributes_kept(entry: UpperEntry) -> tuple[tuple[str, bytes], ...]:
    """Return an entry's `user.` attributes with those of its former self that no command could see or take away."""
    former = entry.former
    if former is None or not former.foreign or _type(former.mode) != _type(entry.mode):
        return entry.xattrs
    unseen = {name: value for name, value in former.foreign if name.startswith(_HIDDEN_FROM_COMMANDS)}
    return tuple(sorted({**unseen, **dict(entry.xattrs)}.items()))


def _shared(entry: UpperEntry, *, changed: bool) -> Iterator[Fault]:
    remedy = "replace the file by a copy of its own outside gonogo, then plan again"
    if not stat.S_ISREG(entry.mode):
        return
    former = entry.former
    if changed and former is not None and stat.S_ISREG(former.mode) and former.nlink > 1:
        yield unsafe(entry.path, f"was a file with {former.nlink} hard links", remedy)
    elif entry.nlink > 1:
        yield unsafe(entry.path, f"is a file with {entry.nlink} hard links", "let the command make copies, not links")


def _attributes(entry: UpperEntry) -> Iterator[Fault]:
    former = entry.former
    before = () if former is None or _type(former.mode) != _type(entry.mode) else former.foreign
    had = {name: value for name, value in before if not name.startswith(_HIDDEN_FROM_COMMANDS)}
    now = dict(entry.foreign)
    for name in sorted(had.keys() | now.keys()):
        if had.get(name) != now.get(name):
            yield unsafe(
                entry.path,
                f"changes the attribute {name}, which no change set carries",
                "leave access control lists, capabilities and labels to the operator of the machine",
            )


def _type(mode: int) -> int:
    return stat.S_IFMT(mode)
