"""What a run asked of the file system, and what of it must have reached the disk when the power goes.

A run is a list of deeds, taken from its trace: a name made, moved or removed, a block of a file's bytes, a length, a
mode, an attribute, a time. Without a sync each may be on the disk or not, whatever became of the others; the model
knows no order but the one that syncs force:

- `fsync` of a file brings its bytes, length, mode, attributes and times; `fdatasync` its bytes and length only;
- `fsync` of a directory brings every name made, moved or removed in it, and its own mode, attributes and times;
- a rename is one deed, both of its directories or neither, an exchange too; it is on the disk once either is synced,
  and with it the thing that it names, however that came to its former name;
- `sync_file_range` promises nothing.

That is less than journalling file systems keep: ext4 brings a new file's name along with the file's own fsync, and
its renames in the order in which they were made. What holds here holds there.

Not in it: a sector that was torn or that went bad, a sync that lied, and anything of the ledger's own files.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from tests.faults.arguments import Descriptor, Returned, descriptor, split, string
from tests.faults.calls import Call

BLOCK = 4096
_OWN_NAME = b"/proc/self/fd/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A name in a directory."""

    directory: int
    name: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Make:
    """A new file, directory or link gets a name."""

    thing: int
    place: Place
    kind: int
    mode: int = 0o600
    target: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rename:
    """A thing gets another name; in an exchange two change theirs."""

    thing: int
    source: Place
    target: Place
    other: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Remove:
    """A name goes."""

    thing: int
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Bytes of one block."""

    thing: int
    offset: int
    data: bytes
    whole: tuple[int, int]
    """Offset and length of the call that this is a block of."""
    call: int
    """Which call that was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """A new length."""

    thing: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dress:
    """A mode, an attribute or times; `call` says it to the kernel, given the path."""

    thing: int
    call: Callable[[bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sync:
    """A wait for the disk."""

    thing: int
    data_only: bool


Deed = Make | Rename | Remove | Write | Resize | Dress | Sync


@dataclass
class Names:
    """Which thing has which name; things are numbers of the model's own."""

    children: dict[int, dict[bytes, int]] = field(default_factory=dict)
    paths: dict[int, Place] = field(default_factory=dict)
    root: int = 0

    def fill(self, root: bytes) -> None:
        """Number everything beneath a directory, in the order of its paths, so that equal trees get equal numbers."""
        self.children[self.root] = {}
        self._fill(root, self.root, [self.root + 1])

    def _fill(self, path: bytes, here: int, following: list[int]) -> None:
        for name in sorted(os.listdir(path)):  # noqa: PTH208 - bytes
            thing = following[0]
            following[0] += 1
            beneath = path + b"/" + name
            is_directory = stat.S_ISDIR(os.lstat(beneath).st_mode)
            self.add(thing, Place(directory=here, name=name), is_directory=is_directory)
            if is_directory:
                self._fill(beneath, thing, following)

    def add(self, thing: int, place: Place, *, is_directory: bool) -> None:
        self.children[place.directory][place.name] = thing
        self.paths[thing] = place
        if is_directory:
            self.children.setdefault(thing, {})

    def at(self, place: Place) -> int | None:
        return self.children.get(place.directory, {}).get(place.name)

    def find(self, start: int, path: bytes) -> int | None:
        """Return what a path leads to, no link followed."""
        here: int | None = start
        for name in path.split(b"/"):
            if name not in {b"", b"."}:
                here = None if here is None else self.children.get(here, {}).get(name)
        return here

    def path(self, thing: int) -> bytes | None:
        """Return where a thing is now, from the root; None where it has no name."""
        parts: list[bytes] = []
        while thing != self.root:
            place = self.paths.get(thing)
            if place is None or self.at(place) != thing:
                return None
            parts.append(place.name)
            thing = place.directory
        return b"/".join(reversed(parts)) or b"."

    def can(self, deed: Make | Rename | Remove) -> bool:
        """Tell whether a change of names can be made on these."""
        match deed:
            case Make(place=place):
                return self._is_there(place.directory) and self.at(place) is None
            case Rename(thing=thing, source=source, target=target, other=other):
                both = self._is_there(source.directory) and self._is_there(target.directory)
                return both and self.at(source) == thing and self.at(target) == other
            case Remove(thing=thing, place=place):
                return self._is_there(place.directory) and self.at(place) == thing and not self.children.get(thing)

    def do(self, deed: Make | Rename | Remove) -> None:
        """Make a change of names."""
        match deed:
            case Make(thing=thing, place=place, kind=kind):
                self.add(thing, place, is_directory=kind == stat.S_IFDIR)
            case Rename(thing=thing, source=source, target=target, other=other):
                del self.children[source.directory][source.name]
                self.children[target.directory][target.name] = thing
                self.paths[thing] = target
                if other is not None:
                    self.children[source.directory][source.name] = other
                    self.paths[other] = source
            case Remove(thing=thing, place=place):
                del self.children[place.directory][place.name]
                self.paths.pop(thing, None)

    def _is_there(self, thing: int) -> bool:
        return thing in self.children and self.path(thing) is not None


def is_settled(deed: Deed, sync: Sync) -> bool:
    """Tell whether a sync after a deed brings it to the disk."""
    match deed:
        case Make(place=place) | Remove(place=place):
            return sync.thing == place.directory and not sync.data_only
        case Rename(source=source, target=target):
            return sync.thing in {source.directory, target.directory} and not sync.data_only
        case Write(thing=thing) | Resize(thing=thing):
            return sync.thing == thing
        case Dress(thing=thing):
            return sync.thing == thing and not sync.data_only
        case Sync():
            return True


def things_named(deed: Deed) -> tuple[int, ...]:
    """Return the things that a deed gives a name."""
    match deed:
        case Make(thing=thing):
            return (thing,)
        case Rename(thing=thing, other=other):
            return (thing,) if other is None else (thing, other)
        case _:
            return ()


class Reader:
    """Turns the calls of a trace into deeds.

    Args:
        names: what was where when the trace began.
        place: the directory that these names begin at; what is elsewhere is left out.
    """

    def __init__(self, names: Names, place: bytes) -> None:
        self._names = names
        self._place = place
        self._things: dict[int, int | None] = {}
        self._ends: dict[int, int] = {}
        self._calls = 0
        self._next = 1 + max(names.paths, default=0)

    def deeds(self, calls: Sequence[Call]) -> Iterator[Deed]:
        """Yield the deeds in their order.

        Raises:
            NotImplementedError: the model does not know a call that changes something here.
        """
        for call in calls:
            arguments, returned = split(call.text)
            if returned.value < 0:
                continue
            for deed in self._read(call, arguments, returned):
                if isinstance(deed, Make | Rename | Remove):
                    assert self._names.can(deed), (call, deed)
                    self._names.do(deed)
                yield deed
            self._note(call, returned)

    def _note(self, call: Call, returned: Returned) -> None:
        if call.name in {"openat", "openat2"}:
            self._things[returned.value] = self._absolute(returned.path)

    def _read(self, call: Call, arguments: tuple[str, ...], returned: Returned) -> Iterator[Deed]:  # noqa: C901, PLR0912 - one arm for each call
        match call.name, arguments:
            case "openat", (where, name, flags, *mode):
                if "O_TRUNC" in flags:
                    raise NotImplementedError(call.text[:200])
                place = self._named(where, name)
                if "O_CREAT" in flags and place is not None and self._names.at(place) is None:
                    yield self._made(place, stat.S_IFREG, int(mode[0], 8))
            case "mkdirat", (where, name, mode):
                if (place := self._named(where, name)) is not None:
                    yield self._made(place, stat.S_IFDIR, int(mode, 8))
            case "mkdir", (name, mode):
                if (place := self._named("AT_FDCWD", name)) is not None:
                    yield self._made(place, stat.S_IFDIR, int(mode, 8))
            case "symlinkat", (target, where, name):
                if (place := self._named(where, name)) is not None:
                    yield self._made(place, stat.S_IFLNK, target=string(target))
            case "renameat2", (where, name, to, other, flags):
                yield from self._renamed(where, name, to, other, flags)
            case ("renameat", (where, name, to, other)):
                yield from self._renamed(where, name, to, other, "")
            case "unlinkat", (where, name, _):
                place = self._named(where, name)
                if place is not None and (thing := self._names.at(place)) is not None:
                    yield Remove(thing=thing, place=place)
            case "pwrite64", (fd, data, _, offset):
                yield from self._written(fd, string(data)[: returned.value], int(offset))
            case "write", (fd, data, _):
                yield from self._appended(fd, string(data)[: returned.value])
            case "copy_file_range", (source, _, fd, offset, *_):
                start = int(offset.strip("[]").split(" ")[0])
                yield from self._written(fd, _bytes(descriptor(source), start, returned.value), start)
            case "ftruncate", (fd, size):
                if (thing := self._open(fd)) is not None:
                    yield Resize(thing=thing, size=int(size))
            case (("fsync" | "fdatasync"), (fd,)):
                if (thing := self._open(fd)) is not None:
                    yield Sync(thing=thing, data_only=call.name == "fdatasync")
            case _:
                yield from self._dressed(call, arguments)

    def _dressed(self, call: Call, arguments: tuple[str, ...]) -> Iterator[Deed]:
        thing: int | None
        match call.name, arguments:
            case "fchmod", (fd, mode):
                thing, bits = self._open(fd), int(mode, 8)
                act: Callable[[bytes], None] = lambda path: os.chmod(path, bits)  # noqa: E731, PTH101 - bytes
            case ("chmod", (name, mode)) | ("fchmodat", (_, name, mode, *_)):
                thing, bits = self._by_own_name(name), int(mode, 8)
                act = lambda path: os.chmod(path, bits)  # noqa: E731, PTH101 - bytes
            case (("setxattr" | "fsetxattr"), (where, attribute, value, _, _)):
                thing, key, data = self._of(where), string(attribute), string(value)
                act = lambda path: os.setxattr(path, key, data)  # noqa: E731 - one act of several
            case (("removexattr" | "fremovexattr"), (where, attribute)):
                thing, key = self._of(where), string(attribute)
                act = lambda path: os.removexattr(path, key)  # noqa: E731 - one act of several
            case "utimensat", (where, _, times, _):
                thing, stamps = self._open(where), _times(times)
                act = lambda path: os.utime(path, ns=stamps)  # noqa: E731 - one act of several
            case (("fchown" | "fchownat" | "sync_file_range" | "openat2" | "flock"), _):
                return  # an owner that it has already, and what promises or changes nothing
            case _:
                raise NotImplementedError(f"{call.name}({call.text[:200]}")
        if thing is not None:
            yield Dress(thing=thing, call=act)

    def _made(self, place: Place, kind: int, mode: int = 0, target: bytes = b"") -> Make:
        self._next += 1
        return Make(thing=self._next, place=place, kind=kind, mode=mode, target=target)

    def _renamed(self, where: str, name: str, to: str, other: str, flags: str) -> Iterator[Deed]:
        source, target = self._named(where, name), self._named(to, other)
        if source is None or target is None:
            return
        thing, there = self._names.at(source), self._names.at(target)
        assert thing is not None
        if there is not None and "RENAME_EXCHANGE" not in flags:
            raise NotImplementedError("a rename over something")
        yield Rename(thing=thing, source=source, target=target, other=there)

    def _appended(self, fd: str, data: bytes) -> Iterator[Deed]:
        thing = self._open(fd)
        if thing is None:
            return
        start = self._ends.get(thing, 0)
        self._ends[thing] = start + len(data)
        yield from self._written(fd, data, start)

    def _written(self, fd: str, data: bytes, offset: int) -> Iterator[Deed]:
        thing = self._open(fd)
        if thing is None:
            return
        position = offset
        self._calls += 1
        while position < offset + len(data):
            end = min(position - position % BLOCK + BLOCK, offset + len(data))
            part = data[position - offset : end - offset]
            yield Write(thing=thing, offset=position, data=part, whole=(offset, len(data)), call=self._calls)
            position = end

    def _named(self, where: str, name: str) -> Place | None:
        """Return the directory and name that a call means, or None where that is elsewhere."""
        path = string(name)
        if path.startswith(b"/"):
            above, _, last = path.rpartition(b"/")
            directory = self._absolute(above)
        else:
            start = self._open(where)
            above, _, last = path.rpartition(b"/")
            directory = None if start is None else self._names.find(start, above)
        return None if directory is None else Place(directory=directory, name=last)

    def _open(self, argument: str) -> int | None:
        """Return what a descriptor stands for, or None where that is elsewhere."""
        found = descriptor(argument)
        if found.number is None:
            return self._absolute(found.path)
        thing = self._absolute(found.path)
        return thing if thing is not None else self._things.get(found.number) if self._is_ours(found.path) else None

    def _is_ours(self, path: bytes) -> bool:
        return path.startswith(self._place + b"/")

    def _of(self, argument: str) -> int | None:
        return self._by_own_name(argument) if argument.startswith('"') else self._open(argument)

    def _by_own_name(self, argument: str) -> int | None:
        path = string(argument)
        if path.startswith(_OWN_NAME):
            return self._things.get(int(path[len(_OWN_NAME) :]))
        return self._absolute(path)

    def _absolute(self, path: bytes) -> int | None:
        if path == self._place:
            return self._names.root
        return self._names.find(self._names.root, path[len(self._place) + 1 :]) if self._is_ours(path) else None


def _bytes(source: Descriptor, offset: int, size: int) -> bytes:
    """Return what was copied; contents that are kept by digest do not change."""
    fd = os.open(source.path, os.O_RDONLY)
    try:
        return os.pread(fd, size, offset)
    finally:
        os.close(fd)


def _times(text: str) -> tuple[int, int]:
    """Return the times of access and change in nanoseconds, as strace prints them."""
    found = [int(part.partition("=")[2].split()[0].rstrip("}")) for part in text.split(",")]
    seconds, nanoseconds, more_seconds, more_nanoseconds = found
    return seconds * 10**9 + nanoseconds, more_seconds * 10**9 + more_nanoseconds
