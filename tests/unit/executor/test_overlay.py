"""Reading changes from a real overlay's upper directory."""

import errno
import os
import random
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from executor.sandbox.bubblewrap import Bubblewrap
from executor.sandbox.sandbox import SandboxSession, SessionRequest
from executor.workspace.overlay import ROOT, Mark, UpperEntry, UpperIndex, UpperScan, UpperUnreadableError, read_upper
from executor.workspace.overlay_attributes import UpperAttributes, lower_attributes
from tests.conformance.sandbox_suite import LIMITS, a_command, said, shell

pytestmark = pytest.mark.sandbox


@pytest.fixture
def lower(tmp_path: Path) -> Path:
    root = tmp_path / "ws"
    (root / "folder" / "sub").mkdir(parents=True)
    (root / "file").write_text("base\n")
    for name in ("one", "two", "sub/three", "sub/four"):
        (root / "folder" / name).write_text(f"{name}\n")
    (root / "link").symlink_to("/etc")
    return root


@pytest.fixture
def session(lower: Path) -> Iterator[SandboxSession]:
    with Bubblewrap.on_this_machine().open(SessionRequest(workspace=lower, workspace_id="w", limits=LIMITS)) as session:
        yield session


def scan(session: SandboxSession, lower: Path, previous: UpperIndex | None = None) -> UpperScan:
    return read_upper(session.upper, lower, previous)


def run(session: SandboxSession, script: str) -> None:
    result = shell(session, script)
    assert (result.exit_code, said(result)) == (0, ""), said(result)


def python(session: SandboxSession, script: str) -> str:
    return said(session.run(a_command("python3", "-c", script)))


def brief(found: UpperScan) -> dict[str, str]:
    return {os.fsdecode(entry.path): "gone" if entry.deleted else stat.filemode(entry.mode) for entry in found.entries}


def entry_of(found: UpperScan, path: bytes) -> UpperEntry:
    (entry,) = [entry for entry in found.entries if entry.path == path]
    return entry


def test_nothing_changed_is_nothing(session: SandboxSession, lower: Path) -> None:
    """Reading and listing leave no trace, nor does an untouched session."""
    run(session, "cat file folder/one >/dev/null; ls -lR >/dev/null")
    assert scan(session, lower).entries == ()


def test_new_changed_and_deleted_files(session: SandboxSession, lower: Path) -> None:
    """A copy-up, a new file, a link and a deletion show as what they are, with the folder that holds them."""
    run(session, "echo x >> folder/one; rm folder/two; echo new > folder/new; ln -s ../x folder/ln; chmod 600 file")
    found = scan(session, lower)
    assert brief(found) == {
        "file": "-rw-------",
        "folder": "drwxr-xr-x",
        "folder/ln": "lrwxrwxrwx",
        "folder/new": "-rw-r--r--",
        "folder/one": "-rw-r--r--",
        "folder/two": "gone",
    }
    assert entry_of(found, b"folder/ln").link_target == b"../x"
    assert entry_of(found, b"folder/one").size == len("one\nx\n")
    assert [entry.path for entry in found.entries] == sorted(entry.path for entry in found.entries)


def test_removing_a_directory_is_one_deletion(session: SandboxSession, lower: Path) -> None:
    """`rm -rf` of a directory of the workspace is reported at its top."""
    run(session, "rm -rf folder")
    assert brief(scan(session, lower)) == {"folder": "gone"}


def test_a_replaced_directory_deletes_what_is_not_there_again(session: SandboxSession, lower: Path) -> None:
    """In an opaque directory, and in unmarked ones below it, what was there and was not made again is deleted."""
    run(session, "rm -rf folder; mkdir -p folder/sub; echo again > folder/one; echo again > folder/sub/three")
    found = scan(session, lower)
    assert brief(found) == {
        "folder": "drwxr-xr-x",
        "folder/one": "-rw-r--r--",
        "folder/sub": "drwxr-xr-x",
        "folder/sub/four": "gone",
        "folder/sub/three": "-rw-r--r--",
        "folder/two": "gone",
    }
    assert entry_of(found, b"folder").opaque


def test_a_directory_in_the_place_of_a_link_looks_at_nothing_outside(session: SandboxSession, lower: Path) -> None:
    """Where the workspace had a link, a directory made there hides nothing of what the link led to."""
    run(session, "rm link; mkdir -p link/ssl; echo x > link/ssl/x")
    assert brief(scan(session, lower)) == {
        "link": "drwxr-xr-x",
        "link/ssl": "drwxr-xr-x",
        "link/ssl/x": "-rw-r--r--",
    }


def test_a_type_change_is_present_only(session: SandboxSession, lower: Path) -> None:
    """A directory that became a file, and a file that became a directory, are present as what they are now."""
    run(session, "rm -r folder; echo x > folder; rm file; mkdir file; echo x > file/in")
    assert brief(scan(session, lower)) == {
        "file": "drwxr-xr-x",
        "file/in": "-rw-r--r--",
        "folder": "-rw-r--r--",
    }


def test_a_renamed_directory_is_a_deletion_and_a_copy(session: SandboxSession, lower: Path) -> None:
    """Renaming a directory of the workspace ends up as the old name gone and the new tree whole."""
    run(session, "mv folder moved")
    found = brief(scan(session, lower))
    assert found["folder"] == "gone"
    assert {name for name in found if name.startswith("moved")} == {
        "moved", "moved/one", "moved/two", "moved/sub", "moved/sub/three", "moved/sub/four",
    }  # fmt: skip


def test_a_change_of_a_directory_alone_is_seen(session: SandboxSession, lower: Path) -> None:
    """Mode, time and attributes of a directory are changes of their own, those of the workspace's root included."""
    run(session, "chmod 700 folder; touch -d 2001-02-03 folder/sub")
    python(session, "import os; os.setxattr('folder/sub', 'user.note', b'x')")
    found = scan(session, lower)
    assert brief(found) == {"folder": "drwx------", "folder/sub": "drwxr-xr-x"}
    assert entry_of(found, b"folder/sub").xattrs == (("user.note", b"x"),)
    assert entry_of(found, b"folder/sub").mtime_ns // 10**9 < 10**9
    run(session, "chmod 711 .")
    assert stat.S_IMODE(entry_of(scan(session, lower), b".").mode) == 0o711


def test_forged_marks_are_attributes_not_deletions(session: SandboxSession, lower: Path) -> None:
    """What a command sets under the overlay's own names comes back as the attribute it set, and hides nothing."""
    script = """
import os
for name in ("opaque", "redirect", "whiteout", "metacopy", "origin", "overlay.opaque"):
    for path in ("folder", "folder/one"):
        os.setxattr(path, "user.overlay." + name, b"y")
open("folder/empty", "w").close()
os.setxattr("folder/empty", "user.overlay.whiteout", b"y")
try: os.mknod("white", 0o20000, 0)
except OSError as error: print(error.strerror)
print(sorted(os.listdir("folder")))
"""
    assert python(session, script) == "Operation not permitted\n['empty', 'one', 'sub', 'two']\n"
    found = scan(session, lower)
    assert brief(found).keys() == {"folder", "folder/one", "folder/empty"}
    names = [name for name, _ in entry_of(found, b"folder").xattrs]
    assert names == sorted(
        f"user.overlay.{name}" for name in ("opaque", "redirect", "whiteout", "metacopy", "origin", "overlay.opaque")
    )
    assert not entry_of(found, b"folder").opaque


def test_an_unknown_mark_is_an_error(session: SandboxSession, lower: Path) -> None:
    """A mark in the upper directory that this reader does not know is refused, never guessed at."""
    run(session, "mkdir made")
    for name, value in (("user.overlay.redirect", b"/x"), ("user.overlay.opaque", b"x")):
        os.setxattr(session.upper / "made", name, value)
        with pytest.raises(UpperUnreadableError, match="made") as caught:
            scan(session, lower)
        assert caught.value.fault.paths == (b"made",)
        os.removexattr(session.upper / "made", name)


def test_what_was_there_before_is_known_or_nothing_is(
    session: SandboxSession, lower: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether a change is safe is told by owner, links and attributes of before; unread they are not none."""
    run(session, "echo x >> file; echo new > new")

    def failing(place: bytes) -> UpperAttributes:
        if os.fsencode(place).endswith(b"/file"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return lower_attributes(place)

    monkeypatch.setattr("executor.workspace.overlay.lower_attributes", failing)
    with pytest.raises(UpperUnreadableError) as caught:
        scan(session, lower)
    assert caught.value.fault.paths == (b"file",)


def test_special_files_are_reported_by_type(session: SandboxSession, lower: Path) -> None:
    """FIFOs, sockets and setuid files are there for the caller to refuse."""
    python(session, "import os, socket; os.mkfifo('fifo'); socket.socket(socket.AF_UNIX).bind('sock')")
    run(session, "cp /bin/true suid; chmod 6755 suid; ln suid second")
    found = scan(session, lower)
    assert brief(found) == {
        "fifo": "prw-r--r--", "sock": "srwxr-xr-x", "suid": "-rwsr-sr-x", "second": "-rwsr-sr-x",
    }  # fmt: skip
    assert entry_of(found, b"suid").nlink == 2


def test_names_are_bytes(session: SandboxSession, lower: Path) -> None:
    """Newlines, leading dashes, backslashes and invalid UTF-8 come through exactly."""
    names = [b"a\nb", b"-rf", b"back\\040", b"\xff\xfe", b"\xe2\x80\xae", b"x" * 255]
    python(session, f"import os\nfor n in {names!r}: os.mkdir(n); open(n + b'/' + n, 'w').close()")
    assert [entry.path for entry in scan(session, lower).entries] == sorted(
        path for name in names for path in (name, name + b"/" + name)
    )


def test_depth_is_the_commands_choice(session: SandboxSession, lower: Path) -> None:
    """A tree that is deep is read; one too deep to be named is refused by a clear error, not by a crash."""
    deep = "import os\nfor _ in range({}): os.mkdir('d'); os.chdir('d')"
    python(session, "import os; os.mkdir('a'); os.chdir('a')\n" + deep.format(500))
    assert len(scan(session, lower).entries) == 501
    python(session, "import os; os.mkdir('b'); os.chdir('b')\n" + deep.format(400).replace("'d'", "'d' * 100"))
    with pytest.raises(UpperUnreadableError, match="name too long"):
        scan(session, lower)


def test_a_second_scan_says_what_changed_since(session: SandboxSession, lower: Path) -> None:
    """Unchanged nodes are marked so; rewritten, touched, re-attributed, deleted and vanished ones are not.

    The workspace's own directory is among them, for its time moved with the names in it.
    """
    run(
        session,
        "for f in same grown touched marked gone; do echo $f > $f; done; rm file; mkdir kept away; echo > away/x",
    )
    first = scan(session, lower)
    assert all(entry.changed_since_previous for entry in first.entries)
    again = scan(session, lower, first.index)
    assert not any(entry.changed_since_previous for entry in again.entries)
    run(session, "echo x >> grown; touch -d 2001-01-01 touched; chmod 600 marked; rm -r gone away; rm folder/two")
    second = scan(session, lower, first.index)
    changed = {os.fsdecode(entry.path) for entry in second.entries if entry.changed_since_previous}
    assert changed == {".", "grown", "touched", "marked", "gone", "away", "folder", "folder/two"}
    assert entry_of(second, b"gone").deleted
    assert entry_of(second, b"away").deleted
    third = scan(session, lower, second.index)
    assert not any(entry.changed_since_previous for entry in third.entries)
    assert b"gone" not in [entry.path for entry in third.entries]


def test_what_an_earlier_scan_knows_is_not_read_again(session: SandboxSession, lower: Path) -> None:
    """Of what is as it was only directories are told again; an attribute or link that came since is seen."""
    run(session, "mkdir d; echo > d/file; ln -s target d/link; echo > d/marked; echo > d/linked; rm file")
    time.sleep(0.03)  # until then a change might have the very times of the one before
    first = scan(session, lower)
    time.sleep(0.03)
    assert [entry.path for entry in scan(session, lower, first.index).entries] == [b"d"]
    python(session, "import os; os.setxattr('d/marked', 'user.new', b'1'); os.link('d/linked', 'd/other')")
    second = scan(session, lower, first.index)
    changed = {entry.path for entry in second.entries if entry.changed_since_previous}
    assert changed == {b"d", b"d/marked", b"d/linked", b"d/other"}
    assert entry_of(second, b"d/marked").xattrs == (("user.new", b"1"),)


def test_what_changed_just_before_a_scan_is_read_again(session: SandboxSession, lower: Path) -> None:
    """Within one tick of the file system's clock a second change leaves all times as they are, and still is seen."""
    run(session, "mkdir d; echo > d/marked")
    first = scan(session, lower)
    place = session.upper / "d" / "marked"
    os.setxattr(place, "user.new", b"1")
    index = UpperIndex(marks=as_if_now(first.index.marks, b"d/marked", place), taken_ns=time.time_ns())
    changed = {entry.path for entry in scan(session, lower, index).entries if entry.changed_since_previous}
    assert changed == {b"d/marked"}


def as_if_now(marks: Mapping[bytes, Mark | None], path: bytes, place: Path) -> dict[bytes, Mark | None]:
    """Return marks with a node's present time of change in place of the former one."""
    former = marks[path]
    assert former is not None
    return {**marks, path: former._replace(ctime_ns=place.stat().st_ctime_ns)}


def test_the_cost_follows_the_changes(tmp_path: Path) -> None:
    """One change in a workspace of many files is one entry and its folder; the rest is never looked at."""
    root = tmp_path / "many"
    for number in range(50):
        (root / f"d{number}").mkdir(parents=True)
        for name in range(20):
            (root / f"d{number}" / f"f{name}").write_text("x")
    request = SessionRequest(workspace=root, workspace_id="w", limits=LIMITS)
    with Bubblewrap.on_this_machine().open(request) as session:
        run(session, "echo y > d7/f7")
        assert brief(read_upper(session.upper, root, None)).keys() == {"d7", "d7/f7"}


def state_of(root: Path) -> dict[bytes, tuple[int, bytes]]:
    """A tree as a flat table: path to mode and content or target."""
    found: dict[bytes, tuple[int, bytes]] = {}
    for place in root.rglob("*"):
        mode = place.lstat().st_mode
        content = b""
        if stat.S_ISLNK(mode):
            content = os.fsencode(place.readlink())
        elif stat.S_ISREG(mode):
            content = place.read_bytes()
        found[os.fsencode(place.relative_to(root))] = (mode, content)
    return found


def applied(state: dict[bytes, tuple[int, bytes]], found: UpperScan, upper: Path) -> dict[bytes, tuple[int, bytes]]:
    """The state with a scan's changed entries applied, as a caller would."""
    after = dict(state)
    for entry in found.entries:
        if not entry.changed_since_previous or entry.path == ROOT:
            continue
        old = after.get(entry.path)
        if entry.deleted or (old and stat.S_ISDIR(old[0]) and not stat.S_ISDIR(entry.mode)):
            after = {path: node for path, node in after.items() if not (path + b"/").startswith(entry.path + b"/")}
        if not entry.deleted:
            content = entry.link_target
            if stat.S_ISREG(entry.mode):
                content = Path(upper, os.fsdecode(entry.path)).read_bytes()
            after[entry.path] = (entry.mode, content)
    return after


OPERATIONS = """
import os, random, shutil, sys
rng = random.Random(int(sys.argv[1]))
names = ["a", "b", "c", "d"]
def some(depth=3): return "/".join(rng.choice(names) for _ in range(rng.randint(1, depth)))
def write(): open(some(), "a").write(str(rng.random()))
def remove(): p = some(); shutil.rmtree(p) if os.path.isdir(p) and not os.path.islink(p) else os.unlink(p)
def make(): os.makedirs(some())
def link(): os.symlink(some(), some())
def move(): shutil.move(some(), some())
def raw_move(): os.rename(some(), some())
def mode(): os.chmod(some(), rng.choice([0o700, 0o755, 0o750]), follow_symlinks=True)
def replace(): p = some(2); shutil.rmtree(p); os.makedirs(p)
for _ in range(40):
    try: rng.choice([write, write, remove, make, make, link, move, raw_move, mode, replace])()
    except (OSError, shutil.Error): pass
"""


@pytest.mark.parametrize("seed", range(12))
def test_the_scans_of_any_history_add_up_to_what_is_seen(tmp_path: Path, seed: int) -> None:
    """After each of several random commands, the base with all scans applied is exactly the merged view."""
    root = tmp_path / "ws"
    rng = random.Random(seed)
    for _ in range(15):
        folder = root.joinpath(*(rng.choice("abcd") for _ in range(rng.randint(0, 2))))
        folder.mkdir(parents=True, exist_ok=True)
        with_name = folder / rng.choice("efgh")
        with_name.write_text(str(rng.random()))
    state = state_of(root)
    base = dict(state)
    index: UpperIndex | None = None
    with Bubblewrap.on_this_machine().open(SessionRequest(workspace=root, workspace_id="w", limits=LIMITS)) as session:
        for round_ in range(4):
            assert python_with(session, OPERATIONS, str(seed * 100 + round_)) == ""
            found = read_upper(session.upper, root, index)
            index = found.index
            state = applied(state, found, session.upper)
            assert state == state_of(session.merged)
        whole = applied(base, read_upper(session.upper, root, None), session.upper)
        assert whole == state
    assert state != base
    assert state_of(root) == base


def python_with(session: SandboxSession, script: str, *arguments: str) -> str:
    return said(session.run(a_command("python3", "-c", script, *arguments)))
