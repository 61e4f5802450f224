"""The fault suite's own parts: a harness that never looks or never cuts would find every executor good."""

import os
import random
import stat
from collections.abc import Callable
from pathlib import Path

from tests.faults.arguments import Descriptor, Returned, descriptor, split, string
from tests.faults.calls import KILL, cuts, read_trace, was_fired
from tests.faults.disk_model import Make, Names, Place, Reader, Rename, Sync, Write
from tests.faults.reorder import crashes, unsettled
from tests.faults.rich_tree import build_new, build_old
from tests.faults.scenarios import MIXED, NEW, OLD, whole_state
from tests.faults.snapshot import look

TRACE = [
    '7 openat(9</w/staging>, "x.0", O_WRONLY|O_CREAT|O_EXCL, 0600) = 12</w/staging/x.0>',
    '7 write(12</w/staging/x.0>, "a\\303\\n\\"\\\\", 5) = 5',
    '8 write(5<pipe:[77]>, "x", 1) = 1',
    "7 fsync(12</w/staging/x.0>) = 0",
    '7 renameat2(9</w/staging>, "x.0", 8</w/site>, "f", RENAME_NOREPLACE) = 0',
    '8 write(12</w/site/f>, "b", 1) = 1 (INJECTED)',
    '7 openat(8</w/site>, "f", O_RDONLY) = 13</w/site/f>',
    "7 fsync(8</w/site>) = 0",
    "+++ killed by SIGKILL +++",
]


def start(place: Path) -> Names:
    """A workspace and a staging directory, both empty."""
    for name in ("site", "staging"):
        (place / name).mkdir()
    names = Names()
    names.fill(os.fsencode(place))
    return names


def test_calls_are_counted_by_name_and_thread() -> None:
    """What strace is told is the N-th call of a name in its own thread, and only calls that change the place count."""
    calls = read_trace(TRACE)
    assert [(call.thread, call.name, call.number) for call in calls if call.name == "write"] == [
        (7, "write", 1),
        (8, "write", 1),
        (8, "write", 2),
    ]
    assert [call.fault(KILL) for call in cuts(calls, "/w/")] == [
        "openat:signal=KILL:when=1",
        "write:signal=KILL:when=1",
        "fsync:signal=KILL:when=1",
        "renameat2:signal=KILL:when=1",
        "write:signal=KILL:when=2",
        "fsync:signal=KILL:when=2",
    ]
    assert was_fired(TRACE)
    assert not was_fired(TRACE[:4])


def test_arguments_are_read_to_the_byte() -> None:
    """Strings, descriptors and results come out as they were, whatever strace had to escape."""
    arguments, returned = split(read_trace(TRACE)[1].text)
    assert [descriptor(arguments[0]), string(arguments[1])] == [
        Descriptor(number=12, path=b"/w/staging/x.0"),
        b'a\xc3\n"\\',
    ]
    assert returned == Returned(value=5, path=b"")
    assert split('9</w/a\\74b>, {flags=O_PATH, resolve=X}, "a,b)") = 12</w/c\\76>')[0] == (
        "9</w/a\\74b>",
        "{flags=O_PATH, resolve=X}",
        '"a,b)"',
    )


def test_only_a_sync_settles_a_deed(tmp_path: Path) -> None:
    """Bytes wait for the file's sync and a name for its directory's; a name on the disk brings its thing along."""
    names = start(tmp_path)
    lines = [line.replace("/w", str(tmp_path)) for line in TRACE]
    deeds = list(Reader(names, os.fsencode(tmp_path)).deeds(read_trace(lines)))
    assert [type(deed) for deed in deeds] == [Make, Write, Sync, Rename, Write, Sync]
    assert [unsettled(deeds, moment) for moment in range(7)] == [[], [0], [0, 1], [0], [0, 3], [0, 3, 4], [4]]
    done = {0, 1, 3, 4}
    kept = [(done & set(range(crash.moment))) - crash.lost for crash in crashes(deeds, random.Random(1))]
    assert len(kept) == len({frozenset(one) for one in kept})
    assert [one for one in (set(), {0}, {1}, {0, 1}, {1, 3}, {0, 1, 3}, {0, 1, 3, 4}) if one not in kept] == []
    assert deeds[0] == Make(thing=4, place=Place(directory=2, name=b"x.0"), kind=stat.S_IFREG)


def test_whatever_differs_is_seen(tmp_path: Path) -> None:
    """A tree is old only with every bit, time, attribute, hole and inode; the least difference is a mixture."""
    build_old(tmp_path / "old")
    build_new(tmp_path / "new")
    root = tmp_path / "old"
    begun, states = look(os.fsencode(root)), {NEW: look(os.fsencode(tmp_path / "new")).entries}
    assert whole_state(root, begun, states).name == OLD
    assert whole_state(tmp_path / "new", begun, states).name == NEW
    time = root.stat().st_mtime_ns
    differences: dict[str, Callable[[], None]] = {
        "a time": lambda: os.utime(root / "keep", ns=(1, 1)),
        "a directory's time": lambda: os.utime(root / "dir", ns=(time, time + 1)),
        "a mode": lambda: (root / "bits").chmod(0o600),
        "an attribute": lambda: os.setxattr(root / "noted", "user.one", b"2"),
        "a name": lambda: os.close(os.open(os.fsencode(root) + b"/\xff", os.O_CREAT)),
    }
    for name, differ in differences.items():
        differ()
        assert whole_state(root, begun, states).name == MIXED, name
        begun = look(os.fsencode(root))


def test_another_inode_is_not_the_old_one(tmp_path: Path) -> None:
    """A file that was copied back is not the file that was there, equal as it is."""
    root = tmp_path / "old"
    build_old(root)
    begun = look(os.fsencode(root))
    times = {path: path.stat().st_mtime_ns for path in (root / "keep", root)}
    (root / "copy").write_bytes((root / "keep").read_bytes())
    (root / "copy").rename(root / "keep")
    for path, time in times.items():
        os.utime(path, ns=(time, time))
    (root / "keep").chmod(0o644)
    found = whole_state(root, begun, {})
    assert (found.name, found.details) == (MIXED, ("b'keep' is another inode",))
