"""Loses power at every moment of a run, with some of what was not synced on the disk and some not, and recovers.

The run is traced once. Then for each moment, and for each choice of what of the unsynced deeds got to the disk, the
start is built anew and the kept deeds are really done, in their order, in a directory of its own. Deeds that the
others' absence makes impossible fall away with them, such as the rename of a name that was never made.

Recovery goes by inode numbers, and a tree built anew has others. So the model numbers the things itself, alike in
every copy, and a record on its way into the journal is read, gets the copy's inode numbers for the run's, and is
framed anew. A thing that was never made gets a number that no file has.
"""

import dataclasses
import json
import os
import random
import stat
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from executor.workspace.beneath import exchange
from executor.workspace.directories import times_after
from executor.workspace.journal import _FRAME
from executor.workspace.paths import Directory
from executor.workspace.record import Applied
from gonogo.digests import framed_digest
from tests.faults.calls import read_trace
from tests.faults.catalogue import make_scenario
from tests.faults.disk_model import (
    Deed,
    Dress,
    Make,
    Names,
    Reader,
    Remove,
    Rename,
    Resize,
    Sync,
    Write,
    is_settled,
    things_named,
)
from tests.faults.scenarios import Scenario
from tests.faults.traced import BrokenActError, get_ready_only, run
from tests.faults.worker import become, remove

_NO_INODE = 1 << 48
SAMPLES = 2
"""Random choices for each moment, beside all, none and all but one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A run: its deeds, and the inode numbers of its things."""

    deeds: tuple[Deed, ...]
    inodes: Mapping[int, int]
    generation: bytes
    """Of the journal as the run found it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crash:
    """Power goes after a number of deeds, and some of them are lost."""

    moment: int
    lost: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the workspace was before recovery and after it."""

    moment: int
    lost: tuple[int, ...]
    told: tuple[str, ...]
    before: str
    after: str
    details: tuple[str, ...]
    said: str


def record(scenario: Scenario, place: Path) -> Recorded:
    """Trace one run."""
    scenario.build(place)
    root = os.fsencode(place)
    names = Names()
    inodes: dict[int, int] = {}
    generation = b""

    def note_start() -> None:
        nonlocal generation
        names.fill(root)
        inodes.update(_inodes(root, names))
        generation, _ = _journal(root)

    ended = run(scenario.act(place), place.with_name("log"), traced=True, once_ready=note_start)
    deeds = tuple(Reader(names, root).deeds(read_trace(ended.trace)))
    inodes.update(_inodes(root, names))  # what the run has made, too
    return Recorded(deeds=deeds, inodes=inodes, generation=generation)


def crashes(deeds: Sequence[Deed], dice: random.Random) -> Iterator[Crash]:
    """Yield for every moment: nothing unsynced lost, all of it, and some by chance; no choice twice.

    After each rename and each sync, and at the end, each of the unsynced deeds is lost alone, too.
    """
    seen: set[frozenset[int]] = set()
    for moment in range(len(deeds) + 1):
        loose = unsettled(deeds, moment)
        chosen = [frozenset(), frozenset(loose)]
        if moment in {0, len(deeds)} or isinstance(deeds[moment - 1], Rename | Sync):
            chosen += [frozenset({one}) for one in loose]
        chosen += [frozenset(one for one in loose if dice.random() < share) for share in [0.5, 0.2][:SAMPLES]]
        for lost in chosen:
            kept = frozenset(number for number in range(moment) if not isinstance(deeds[number], Sync)) - lost
            if kept not in seen:
                seen.add(kept)
                yield Crash(moment=moment, lost=lost)


def unsettled(deeds: Sequence[Deed], moment: int) -> list[int]:
    """Return which of the deeds before a moment no sync has brought to the disk by then."""
    loose: list[int] = []
    for number in range(moment):
        deed = deeds[number]
        if not isinstance(deed, Sync):
            loose.append(number)
            continue
        settled = {one for one in loose if is_settled(deeds[one], deed)}
        # A name that is on the disk is one of a thing that is there too, however it came to that name.
        named = {thing for one in settled for thing in things_named(deeds[one])}
        last = max(settled, default=-1)
        loose = [
            one for one in loose if one not in settled and not (one < last and named & {*things_named(deeds[one])})
        ]
    return loose


@dataclass
class Copy:
    """One replay on a tree built anew."""

    root: bytes
    names: Names
    recorded: Recorded
    inodes: dict[int, int] = field(default_factory=dict)
    shifts: dict[int, int] = field(default_factory=dict)
    """Where a record in the journal begins, by where it began in the run."""

    records: dict[str, Applied] = field(default_factory=dict)
    """What this copy's journal was told of its commits."""

    def __post_init__(self) -> None:
        self.inodes.update(_inodes(self.root, self.names))
        self._things = {inode: thing for thing, inode in self.recorded.inodes.items()}
        self._generation, self._journal_end = _journal(self.root)

    def do(self, deed: Deed) -> None:
        """Really do a deed, where it can be done."""
        match deed:
            case Make() | Rename() | Remove():
                if self.names.can(deed):
                    self._despite_bits(deed, lambda: self._change_names(deed))
                    self.names.do(deed)
                    if isinstance(deed, Make):
                        self.inodes[deed.thing] = os.lstat(self._path(deed.thing) or b"").st_ino
            case Sync():
                pass
            case _:
                path = self._path(deed.thing)
                if path is not None:
                    self._change_thing(deed, path)

    def _change_names(self, deed: Make | Rename | Remove) -> None:
        match deed:
            case Make(place=place, kind=kind, mode=mode, target=target):
                path = self._at_place(place.directory, place.name)
                if kind == stat.S_IFDIR:
                    os.mkdir(path, mode)  # noqa: PTH102 - bytes
                elif kind == stat.S_IFLNK:
                    os.symlink(target, path)  # noqa: PTH211 - bytes
                else:
                    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
            case Rename(source=source, target=target_place, other=other):
                one = self._at_place(source.directory, source.name)
                two = self._at_place(target_place.directory, target_place.name)
                if other is None:
                    os.rename(one, two)  # noqa: PTH104 - bytes
                else:
                    _exchange(one, two)
            case Remove(place=place):
                path = self._at_place(place.directory, place.name)
                if stat.S_ISDIR(os.lstat(path).st_mode):
                    os.rmdir(path)  # noqa: PTH106 - bytes
                else:
                    os.unlink(path)  # noqa: PTH108 - bytes

    def _change_thing(self, deed: Write | Resize | Dress, path: bytes) -> None:
        match deed:
            case Write():
                self._write(deed, path)
            case Resize(size=size):
                os.truncate(path, size)
            case Dress(call=call):
                call(path)

    def _write(self, deed: Write, path: bytes) -> None:
        data, offset = deed.data, deed.offset
        if path.rpartition(b"/")[2].startswith(b"journal."):
            data, offset = self._journal_part(deed)
        fd = os.open(path, os.O_WRONLY)
        try:
            os.pwrite(fd, data, offset)
        finally:
            os.close(fd)

    def _journal_part(self, deed: Write) -> tuple[bytes, int]:
        """Return a block of a journal's record, with this copy's inode numbers, and where it goes."""
        start, length = deed.whole
        parts = [
            one.data
            for one in self.recorded.deeds
            if isinstance(one, Write) and one.thing == deed.thing and one.whole == deed.whole and one.call == deed.call
        ]
        written = self._rewritten(b"".join(parts))
        begin = self.shifts.get(start, self._journal_end if start else 0)
        self.shifts[start + length] = begin + len(written)
        first = deed.offset - start
        is_last = first + len(deed.data) == length
        return written[first : None if is_last else first + len(deed.data)], begin + first

    def _new_inode(self, inode: int) -> int:
        thing = self._things.get(inode)
        return inode if thing is None else self.inodes.get(thing, _NO_INODE + thing)

    def _rewritten(self, data: bytes) -> bytes:
        """Return what goes into a journal, each frame with this copy's numbers, and anything else as it is."""
        written, position = b"", 0
        while frame := _FRAME.match(data, position):
            generation, length = frame[1], int(frame[2])
            if generation == self.recorded.generation:
                generation = self._generation
            body = self._body(data[frame.end() : frame.end() + length])
            digest = framed_digest((generation, body)).encode()
            written += b"gonogo-journal %b %010d %b\n" % (generation, len(body), digest) + body + b"\n"
            position = frame.end() + length + 1
        return written + data[position:]

    def _body(self, body: bytes) -> bytes:
        value = json.loads(body)
        if "note" not in value:
            applied = self._translated(Applied.decode(body))
            self.records[applied.slot] = applied
            return applied.encode()
        if "times" in value:  # when the directories were changed last: in this copy that was another time
            [slot] = value["slots"]
            directory = Directory.open(Path(os.fsdecode(self.root)) / "site")
            after = times_after(directory, self.records[slot].times)
            directory.close()
            value["times"] = [one.mtime_after_ns for one in after.values()]
        return json.dumps(value, separators=(",", ":")).encode()

    def _translated(self, applied: Applied) -> Applied:
        new = self._new_inode
        return replace(
            applied,
            seen={path: replace(one, status=_with_inode(one.status, new)) for path, one in applied.seen.items()},
            made={entry: new(inode) for entry, inode in applied.made.items()},
            times={path: replace(one, inode=new(one.inode)) for path, one in applied.times.items()},
        )

    def _path(self, thing: int) -> bytes | None:
        path = self.names.path(thing)
        return None if path is None else self._at(path)

    def _at(self, path: bytes) -> bytes:
        return self.root + b"/" + path

    def _at_place(self, directory: int, name: bytes) -> bytes:
        path = self._path(directory)
        assert path is not None
        return path + b"/" + name

    def _despite_bits(self, deed: Make | Rename | Remove, act: Callable[[], None]) -> None:
        """Do it also where a directory's bits are against it; the run had lifted them for the moment."""
        try:
            act()
        except PermissionError:
            things = (
                {deed.source.directory, deed.target.directory} if isinstance(deed, Rename) else {deed.place.directory}
            )
            with _opened(path for thing in (*things, deed.thing) if (path := self._path(thing))):
                act()


def _journal(root: bytes) -> tuple[bytes, int]:
    """Return the generation of a journal, and where the next frame goes in it."""
    [path] = (Path(os.fsdecode(root)) / "staging").glob("journal.*")
    data, position, generation = path.read_bytes(), 0, b""
    while frame := _FRAME.match(data, position):
        generation, position = frame[1], frame.end() + int(frame[2]) + 1
    return generation, position


def _with_inode(status: os.stat_result, new_inode: Callable[[int], int]) -> os.stat_result:
    numbers = list(status)
    numbers[1] = new_inode(status.st_ino)
    times = {name: getattr(status, name) for name in ("st_atime_ns", "st_mtime_ns", "st_ctime_ns")}
    return os.stat_result(numbers, times)


def _inodes(root: bytes, names: Names) -> dict[int, int]:
    paths = ((thing, names.path(thing)) for thing in (names.root, *names.paths))
    return {thing: os.lstat(root + b"/" + path).st_ino for thing, path in paths if path is not None}


def _exchange(one: bytes, other: bytes) -> None:
    here = os.open(b"/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        exchange(here, one, here, other)
    finally:
        os.close(here)


@contextmanager
def _opened(paths: Iterator[bytes]) -> Iterator[None]:
    found = [(path, stat.S_IMODE(os.lstat(path).st_mode)) for path in paths if stat.S_ISDIR(os.lstat(path).st_mode)]
    held = [(os.open(path, os.O_RDONLY | os.O_DIRECTORY), mode) for path, mode in found]
    try:
        for fd, mode in held:
            os.fchmod(fd, mode | stat.S_IRWXU)
        yield
    finally:
        for fd, mode in held:
            os.fchmod(fd, mode)
            os.close(fd)


class Replayer:
    """Plays crashes of one scenario."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self._scenario = scenario
        self._folder = folder
        self.recorded = record(scenario, folder / "run")

    def play(self, crash: Crash) -> Found:
        """Build the start, do what was kept, and recover."""
        place = self._folder / "copy"
        try:
            return self._played(place, crash)
        finally:
            remove(place)

    def _played(self, place: Path, crash: Crash) -> Found:
        start = self._scenario.build(place)
        get_ready_only(self._scenario.act(place))
        names = Names()
        names.fill(os.fsencode(place))
        copy = Copy(root=os.fsencode(place), names=names, recorded=self.recorded)
        for number in range(crash.moment):
            if number not in crash.lost:
                copy.do(self.recorded.deeds[number])
        before = self._scenario.state(place, start)
        said = broken = ""
        try:
            said = run(self._scenario.recover(place), self._folder / "log").said
        except BrokenActError as error:
            broken = str(error)
        after = self._scenario.state(place, start)
        return Found(
            moment=crash.moment,
            lost=tuple(sorted(crash.lost)),
            told=tuple(str(self.recorded.deeds[number])[:200] for number in sorted(crash.lost)[:3]),
            before=before.name,
            after="broken" if broken else after.name,
            details=(broken, *after.details),
            said=said,
        )


def main(name: str, folder: Path, user: int, seed: int, share: int, shares: int) -> None:
    """Play one share of the crashes, and print what was found, a line each; the first line is the number of deeds."""
    if user != os.getuid():
        become(user)
    os.umask(0o022)
    replayer = Replayer(make_scenario(name, folder / "home"), folder)
    print(len(replayer.recorded.deeds), flush=True)  # noqa: T201 - the answer
    for number, crash in enumerate(crashes(replayer.recorded.deeds, random.Random(seed))):
        if number % shares == share:
            print(json.dumps(dataclasses.asdict(replayer.play(crash))), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:]))
