"""What a command changed is read exactly, whatever forms it leaves behind; none of them is taken for another."""

import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gonogo.safe_text import path_bytes
from gonogo.v1 import evidence_pb2
from tests.cases.case import case
from tests.cases.case_house import (
    FAILED,
    SUCCESS,
    UNSAFE,
    CaseHouse,
    Step,
    appended,
    case_house,
    created,
    deleted,
    moded,
    moved,
    names_of,
    python,
    shell,
    tree_of,
    written,
)

pytestmark = pytest.mark.sandbox
LONG_AGO = 1_234_567_890_123_456_789
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this to a file")


@pytest.fixture
def filled(house: CaseHouse) -> CaseHouse:
    """A workspace with files, directories, links, attributes, modes and old times."""
    site = house.site
    (site / "d" / "e").mkdir(parents=True)
    (site / "empty").mkdir()
    for name in ("a", "b", "d/f", "d/g", "d/e/h"):
        (site / name).write_text(f"{name}\n")
        (site / name).chmod(0o644)
    (site / "l").symlink_to("a")
    os.setxattr(site / "a", "user.kept", b"1\0\xff")
    os.setxattr(site / "d", "user.kept", b"2")
    for path in sorted(site.rglob("*"), reverse=True):
        os.utime(path, ns=(LONG_AGO, LONG_AGO), follow_symlinks=False)
    return house


def exact(house: CaseHouse, *steps: Step) -> list[tuple[str, str]]:
    """Dry-run and execute; what was promised for each path is what is there, and no other path has changed."""
    before = tree_of(house.site)
    found = house.worked(*steps)
    assert tree_of(house.site) == before
    receipt = house.execute(found)
    assert receipt.execution_status == evidence_pb2.OUTCOME_SUCCESS, receipt.errors
    assert receipt.after_fingerprint == found.report.after_fingerprint
    touched = {path_bytes(one.path, one.raw_path) for one in receipt.after}
    after = tree_of(house.site)
    assert {
        path for path in before.keys() | after.keys() if before.get(path) != after.get(path)
    } - touched <= parents_of(touched)
    return found.changes


def parents_of(paths: set[bytes]) -> set[bytes]:
    """The directories whose times move because names in them come and go."""
    return {path.rpartition(b"/")[0] or b"." for path in paths}


FORGE = """
import os
for path, name in (('d', 'opaque'), ('d', 'redirect'), ('d', 'whiteout'), ('d', 'whiteouts'), ('a', 'redirect'),
                   ('a', 'metacopy'), ('a', 'whiteout'), ('b', 'origin'), ('d', 'overlay.opaque'), ('new', 'opaque')):
    if path == 'new' and not os.path.exists(path): os.mkdir(path)
    os.setxattr(path, 'user.overlay.' + name, b'y' if 'whiteout' in name or 'opaque' in name else b'/d/e')
"""


@case("S18")
def test_marks_of_the_overlay_that_a_command_sets_hide_nothing(filled: CaseHouse) -> None:
    """They are plain attributes, reported and committed as the command named them, or refused; never a deletion."""
    found = filled.tried(python(FORGE))
    assert "delete" not in {kind for _, kind in found.changes}
    before = names_of(filled.site)
    if found.report.status == SUCCESS:
        told = {change.path: {one.name for one in change.new.xattrs} for change in found.report.steps[0].changes}
        assert told["d"] == {
            "user.kept",
            *(f"user.overlay.{name}" for name in ("opaque", "redirect", "whiteout", "whiteouts", "overlay.opaque")),
        }
        filled.execute(found)
        assert os.getxattr(filled.site / "d", "user.overlay.opaque") == b"y"
        assert names_of(filled.site) == before | {b"new"}
    else:
        assert found.report.status == UNSAFE
        assert names_of(filled.site) == before


@case("S18", "X50")
def test_marks_of_the_overlay_that_lie_in_the_workspace_hide_nothing(filled: CaseHouse) -> None:
    """A workspace whose own files carry such attributes is shown to commands in full, or refused with the path."""
    for name in ("opaque", "redirect", "whiteout"):
        os.setxattr(filled.site / "d", f"user.overlay.{name}", b"y")
    found = filled.tried(shell("find d | sort; echo x >> d/f"))
    if found.report.status == SUCCESS:
        assert found.said().split() == ["d", "d/e", "d/e/h", "d/f", "d/g"]
        assert found.changes == [("d/f", "modify")]
    else:
        assert "d" in found.complaint


OF_A_DIRECTORY: dict[str, tuple[str, Callable[[Path], bool]]] = {
    "mode": ("chmod 700 d", lambda d: stat.S_IMODE(d.stat().st_mode) == 0o700),
    "sticky": ("chmod 1777 d", lambda d: stat.S_IMODE(d.stat().st_mode) == 0o1777),
    "time": ("touch -d @1000000000.123456789 d", lambda d: d.stat().st_mtime_ns == 1000000000123456789),
    "attribute": (
        "python3 -c \"import os; os.setxattr('d', 'user.new', b'v')\"",
        lambda d: os.getxattr(d, "user.new") == b"v",
    ),
    "attribute removed": (
        "python3 -c \"import os; os.removexattr('d', 'user.kept')\"",
        lambda d: "user.kept" not in os.listxattr(d),
    ),
}


@case("S20")
@pytest.mark.parametrize("name", OF_A_DIRECTORY)
def test_a_change_of_a_directorys_own_metadata_is_committed(filled: CaseHouse, name: str) -> None:
    """Mode, modification time or attributes alone are a change of their own, and nothing below it is touched."""
    script, seen = OF_A_DIRECTORY[name]
    before = tree_of(filled.site)
    assert exact(filled, shell(script)) == [("d", "metadata")]
    assert seen(filled.site / "d")
    after = tree_of(filled.site)
    assert {path for path in before if before[path] != after[path]} == {b"d"}


BACK = {
    "moved away": ("mv d o", "mv o d"),
    "a file meanwhile": ("mv d o; echo x > d", "rm d; mv o d"),
    "not all of it": ("mv d o", "rm o/g; mv o/e .; mv o d", "mv e d/e"),
    "typed": (moved("d", "o"), "mv o d"),
}


@case("S57", "S22")
@pytest.mark.parametrize("level", ["L3", "L2"])
@pytest.mark.parametrize("name", BACK)
def test_a_directory_that_comes_back_in_a_later_step_brings_what_it_held(tmp_path: Path, level: str, name: str) -> None:
    """Though nothing in it was touched: by an overlay as by a private copy, where its files are the very same ones."""
    with case_house(tmp_path, more=[f"--max-ladder-level={level}"]) as house:
        (house.site / "d" / "e").mkdir(parents=True)
        for path in ("d/f", "d/g", "d/e/h"):
            (house.site / path).write_text(path)
        house.mission(*(shell(step) if isinstance(step, str) else step for step in BACK[name]))
        gone = {b"d/g"} if name == "not all of it" else set()
        assert names_of(house.site) == {b"d", b"d/e", b"d/e/h", b"d/f", b"d/g"} - gone
        assert (house.site / "d" / "e" / "h").read_text() == "d/e/h"


@case("X51")
@pytest.mark.parametrize("path", ["a", "l", "d/f"])
def test_a_modification_time_that_a_command_sets_is_committed(filled: CaseHouse, path: str) -> None:
    """To the nanosecond, for a file that is otherwise as it was, a link itself, and a file that was written too."""
    for script in (
        f"touch -h -d @1000000000.123456789 {path}",
        f"rm {path}; echo n > {path}; touch -d @5.000000007 {path}",
    ):
        found = filled.worked(shell(script))
        assert path in {name for name, _ in found.changes}
        filled.execute(found)
        wanted = 5000000007 if "rm" in script else 1000000000123456789
        assert (filled.site / path).lstat().st_mtime_ns == wanted


@case("X51")
def test_what_is_only_read_or_rewritten_alike_is_no_change_of_content(filled: CaseHouse) -> None:
    """Reading, listing and rewriting the same bytes report no modified content, and commit none."""
    found = filled.worked(shell("cat a d/f > /dev/null; ls -R . > /dev/null; cp -p d/f t; cat t > d/f; rm t"))
    assert {kind for _, kind in found.changes} <= {"metadata"}


@case("S22")
def test_a_dry_run_survives_a_restart(filled: CaseHouse) -> None:
    """Deletions, a replaced directory and large contents: same report by digest, same result, after a restart."""
    script = "rm -r d/e a; rm -r empty; mkdir empty; echo n > empty/n; rm -r d; mkdir d; echo g2 > d/g;"
    script += "head -c 3000000 /dev/urandom > big; sha256sum big"
    found = filled.worked(shell(script), deleted("b"))
    request = filled.approved(found)
    again = found.sealed.digest
    filled.restart()
    assert filled.core.dry_run("q-again", found.plan, lambda _: None).digest != again, "a new request is a new dry run"
    receipt = filled.execute(request)
    assert receipt.execution_status == evidence_pb2.OUTCOME_SUCCESS, receipt.errors
    assert (receipt.report_digest, receipt.after_fingerprint) == (again, found.report.after_fingerprint)
    assert names_of(filled.site) == {b"d", b"d/g", b"empty", b"empty/n", b"l", b"big"}
    assert subprocess.run(
        ["sha256sum", "big"], cwd=filled.site, capture_output=True, text=True, check=True
    ).stdout == found.said(0)


@case("S26")
@pytest.mark.parametrize("body", ["nested_mount", "nested_bind_mount"])
def test_a_mount_inside_the_workspace_is_refused_by_name(tmp_path: Path, body: str) -> None:
    """A command is blocked with the mount's path, typed steps do not cross onto it, and others work on."""
    in_own_mounts(tmp_path, body)


@case("X52")
def test_a_disk_that_fills_up_before_the_execution_is_said(tmp_path: Path) -> None:
    """Nothing changes, nothing is left in the staging directory, the end says why, and room made is room to work."""
    in_own_mounts(tmp_path, "full_disk")


@case("X64")
def test_a_workspace_may_lie_on_an_overlay(tmp_path: Path) -> None:
    """As in a container: everything works there, or the workspace is read-only with the remedy."""
    in_own_mounts(tmp_path, "on_overlay")


def in_own_mounts(folder: Path, body: str) -> None:
    """Run a body of `mounts.py` where mounts are a process's own, so that the machine's table stays as it is."""
    before = Path("/proc/self/mountinfo").read_text()
    enter = ["unshare", "--mount", "--propagation", "private"]
    if os.geteuid() != 0:
        pytest.skip("an ordinary user can mount only in a user namespace, where no further sandbox can be built")
    if subprocess.run([*enter, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this machine gives no mount namespace to try mounts in")
    done = subprocess.run(
        [*enter, sys.executable, "-m", "tests.cases.mounts", body, folder],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
    assert Path("/proc/self/mountinfo").read_text() == before


SHAPES = {
    "emptied and filled alike": ("rm -r d; mkdir d d/e; echo d/f > d/f; echo d/g > d/g; echo d/e/h > d/e/h", None),
    "emptied and filled in part": (
        "rm -r d; mkdir d; echo d/g > d/g; echo n > d/n",
        {"d/e": "delete", "d/e/h": "delete", "d/f": "delete", "d/n": "create"},
    ),
    "renamed over another": ("mv a b", {"a": "delete", "b": "modify"}),
    "swapped": ("mv a t; mv b a; mv t b", {"a": "modify", "b": "modify"}),
    "file to directory": ("rm a; mkdir a; echo x > a/x", {"a": "type_change", "a/x": "create"}),
    "file to directory and back": ("rm b; mkdir b; echo x > b/x; rm -r b; echo b > b", {}),
    "directory to file": (
        "rm -r d; echo x > d",
        {"d": "type_change", "d/e": "delete", "d/e/h": "delete", "d/f": "delete", "d/g": "delete"},
    ),
    "directory to file and back": ("mv d t; echo x > d; rm d; mv t d", None),
    "file to link": ("ln -sf b a", {"a": "type_change"}),
    "link to file": ("rm l; echo x > l", {"l": "type_change"}),
    "link to directory": ("rm l; mkdir l; echo x > l/x", {"l": "type_change", "l/x": "create"}),
    "link to another target": ("ln -sf b l", {"l": "modify"}),
    "made and removed": ("mkdir t; echo x > t/x; rm -r t", {}),
    "an empty directory": ("mkdir -p n/m/o", {"n": "create", "n/m": "create", "n/m/o": "create"}),
    "an empty directory lost": ("rmdir empty", {"empty": "delete"}),
    "written through a link": ("echo more >> l", {"a": "modify"}),
    "names of other unions": (
        "echo > .wh.a; mkdir d/.wh..wh..opq; echo > .wh..wh..plnk",
        {".wh..wh..plnk": "create", ".wh.a": "create", "d/.wh..wh..opq": "create"},
    ),
    "longer, shorter, to nothing": (
        "echo more >> a; : > b; truncate -s 100 d/f",
        {"a": "modify", "b": "modify", "d/f": "modify"},
    ),
    "unreadable": ("chmod 000 a; chmod 000 d/e", {"a": "metadata", "d/e": "metadata"}),
}


@case("X53")
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_of_change_are_reported_and_committed_exactly(filled: CaseHouse, shape: str) -> None:
    """Replaced, swapped, emptied and refilled: the report names what differs at the end, and that is committed."""
    script, expected = SHAPES[shape]
    if shape == "unreadable" and os.geteuid() != 0:
        pytest.skip("an ordinary user can not read back what nobody may read")
    changes = [(path, kind) for path, kind in exact(filled, shell(script)) if not only_time(filled, path, kind)]
    if expected is None:
        assert {kind for _, kind in changes} <= {"metadata"}
    else:
        wanted = {**expected}
        if shape in {"renamed over another", "swapped"}:  # told as moves, or path by path
            assert {path for path, _ in changes} == wanted.keys() - ({"a"} if ("b", "move") in changes else set())
        else:  # what was written again with the same bytes may be told for its new time
            assert {path: kind for path, kind in changes if kind != "metadata" or path in wanted} == wanted


def only_time(house: CaseHouse, path: str, kind: str) -> bool:
    """A directory whose modification time a command moved on by changing names in it may be told as metadata."""
    return (
        kind == "metadata"
        and (house.site / path).is_dir()
        and path in {"d", ".", "d/e"}
        and (house.site / path).stat().st_mode & 0o777 == 0o755
    )


@case("X54")
def test_the_same_names_change_type_from_step_to_step(filled: CaseHouse) -> None:
    """Typed steps and commands take turns at one name: file, directory, link, file; each sees the one before."""
    exact(
        filled,
        shell("rm a; mkdir a; echo x > a/x"),
        moved("a", "z"),
        created("a", "typed\n"),
        shell("test -f a && test -f z/x && rm a && ln -s z a"),
        deleted("a"),
        shell("test ! -L a && mkdir a"),
        created("a/f"),
        shell("test -f a/f && rm -r a && mv z a"),
    )
    assert (filled.site / "a" / "x").read_text() == "x\n"


@case("X55")
def test_a_rename_of_a_directory_is_committed_as_it_was_seen(filled: CaseHouse) -> None:
    """By mv, and by rename(2) directly: either it works, and is told as moves or path by path, or it fails visibly."""
    exact(filled, shell("mv d moved"))
    assert (filled.site / "moved" / "e" / "h").read_text() == "d/e/h\n"
    found = filled.tried(python("import os; os.rename('moved', 'again')"))
    if found.report.status == SUCCESS:
        filled.execute(found)
        assert (filled.site / "again" / "e" / "h").exists()
    else:
        assert (found.report.status, "cross-device" in found.complaint) == (FAILED, True)


@case("X55", "X56")
def test_a_moved_file_keeps_its_identity(filled: CaseHouse) -> None:
    """A file that a command moved is told as a move; the commit renames it, so inode, times and attributes stay."""
    inode = (filled.site / "a").stat().st_ino
    changes = exact(filled, shell("mkdir n; mv a n/a2"))
    assert ("n/a2", "move") in changes
    info = (filled.site / "n" / "a2").stat()
    assert (info.st_ino, info.st_mtime_ns) == (inode, LONG_AGO)
    assert os.getxattr(filled.site / "n" / "a2", "user.kept") == b"1\0\xff"


LEFT_BEHIND = {
    "fifo": "mkfifo d/left",
    "socket": "python3 -c \"import socket; socket.socket(socket.AF_UNIX).bind('d/left')\"",
    "setuid": "cp /bin/true d/left; chmod 4755 d/left",
    "setgid": "cp /bin/true d/left; chmod 2755 d/left",
    "a fifo instead of a file": "rm d/f; mkfifo d/f; ln d/f d/left",
}


@case("X57")
@pytest.mark.parametrize("what", LEFT_BEHIND)
def test_what_may_not_be_committed_is_unsafe_by_name(filled: CaseHouse, what: str) -> None:
    """Sockets, FIFOs and setuid or setgid files that a command leaves: unsafe, with the path and what to do."""
    before = tree_of(filled.site)
    found = filled.tried(shell("echo fine > fine; " + LEFT_BEHIND[what]))
    assert found.report.status == UNSAFE, found.complaint
    assert {one.path for one in found.report.problems} <= {"d/left", "d/f"}
    assert all(one.message and one.remedy for one in found.report.problems)
    assert tree_of(filled.site) == before


@case("X57")
def test_what_is_gone_at_the_end_of_a_command_is_no_matter(filled: CaseHouse) -> None:
    """A FIFO or socket that the command itself removed again is not held against it."""
    assert exact(filled, shell("mkfifo p; rm p; mkfifo d/f2; rm d/f2; echo x >> a"))[-1] == ("a", "modify")


@case("X58")
@pytest.mark.parametrize("kind", ["c 0 0", "c 1 3", "b 7 0"])
def test_device_nodes_can_not_be_made(filled: CaseHouse, kind: str) -> None:
    """Not a whiteout's form, which would read as a deletion, nor any other."""
    before = tree_of(filled.site)
    found = filled.tried(shell(f"mknod n {kind} || exit 1"))
    assert (found.report.status, found.changes) == (FAILED, [])
    assert (
        filled.worked(shell(f"rm a; mknod a {kind}; rm -r d; mkdir d; mknod d/f {kind}; test ! -e a")).report.status
        == SUCCESS
    )
    assert tree_of(filled.site) == before


@case("X59")
@pytest.mark.parametrize(
    "name", ["security.capability", "trusted.x", "system.posix_acl_access", "security.selinux", "user.x"]
)
def test_other_attributes_are_refused_or_exact(filled: CaseHouse, name: str) -> None:
    """File capabilities, trusted and security attributes and access lists: denied, unsafe or committed, never lost."""
    value = {
        "security.capability": struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0),
        "system.posix_acl_access": struct.pack("<I", 2)
        + b"".join(
            struct.pack("<HHI", *entry)
            for entry in (
                (1, 6, 2**32 - 1),
                (2, 7, os.geteuid()),
                (4, 4, 2**32 - 1),
                (16, 7, 2**32 - 1),
                (32, 4, 2**32 - 1),
            )
        ),
    }.get(name, b"x")
    found = filled.tried(python(f"import os; os.setxattr('b', {name!r}, {value!r})"))
    if name == "security.selinux" and found.report.status == SUCCESS:  # a label is the machine's own matter
        filled.execute(found)
        assert b"x" not in {os.getxattr(filled.site / "b", one) for one in os.listxattr(filled.site / "b")}
    elif found.report.status == SUCCESS:
        filled.execute(found)
        assert os.getxattr(filled.site / "b", name) == value
    else:
        assert found.report.status in {FAILED, UNSAFE}
        assert found.complaint


@case("X59")
def test_an_access_list_of_the_workspace_stays(filled: CaseHouse) -> None:
    """A file that has one keeps it when a typed step or a command changes its content."""
    entries = ((1, 6, 2**32 - 1), (2, 7, 12345), (4, 4, 2**32 - 1), (16, 7, 2**32 - 1), (32, 4, 2**32 - 1))
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    try:
        os.setxattr(filled.site / "a", "system.posix_acl_access", value)
    except OSError:
        pytest.skip("the file system under the tests has no access lists")
    for step in (appended("a"), shell("echo x >> a")):
        found = filled.tried(step)
        if found.report.status == SUCCESS:
            filled.execute(found)
        else:
            assert "a" in found.complaint
        assert os.getxattr(filled.site / "a", "system.posix_acl_access") == value


@case("X60")
def test_an_attribute_too_large_for_the_file_system_is_no_half_commit(filled: CaseHouse) -> None:
    """What fits the copy may not fit the disk: then nothing is committed, and the end says why."""
    before = tree_of(filled.site)
    found = filled.tried(
        python(
            "import os; open('n', 'w').close(); os.setxattr('n', 'user.big', b'x' * 60000);"
            "os.setxattr('b', 'user.big', b'y' * 60000)"
        )
    )
    if found.report.status != SUCCESS:
        assert found.complaint
        return
    receipt = filled.execute(found)
    if receipt.execution_status == evidence_pb2.OUTCOME_SUCCESS:
        assert len(os.getxattr(filled.site / "n", "user.big")) == 60000
    else:
        assert receipt.errors
        assert tree_of(filled.site) == before


@root_only
@case("X61")
@pytest.mark.parametrize("locked", ["a", "d"])
def test_what_is_immutable_is_a_failure_that_changes_nothing(filled: CaseHouse, locked: str) -> None:
    """Steps around it are undone too, and the end names what could not be done."""
    before = tree_of(filled.site)
    if subprocess.run(["chattr", "+i", filled.site / locked], check=False, capture_output=True).returncode:
        pytest.skip("the file system under the tests has no immutable files")
    on_file = (written("a"), deleted("a"), moved("a", "z"), moded("a", "0600"), shell("echo x >> a"), shell("mv b a"))
    in_folder = (
        created("d/n"),
        deleted("d/f"),
        appended("d/f"),
        moved("d/f", "z"),
        moved("b", "d/b"),
        shell("rm -r d"),
    )
    try:
        for step in on_file if locked == "a" else in_folder:
            found = filled.tried(created("beside"), step)
            if found.report.status == SUCCESS:
                receipt = filled.execute(found)
                assert receipt.execution_status in {evidence_pb2.OUTCOME_ROLLED_BACK, evidence_pb2.OUTCOME_ABORTED}
                assert receipt.errors
    finally:
        subprocess.run(["chattr", "-i", filled.site / locked], check=True)
    assert tree_of(filled.site) == before


@case("X62")
def test_a_setgid_directory_hands_its_group_down(filled: CaseHouse) -> None:
    """New files and directories in it get what they would get without a copy in between: its group, and its bit."""
    group = 4321 if os.geteuid() == 0 else os.getegid()
    os.chown(filled.site / "d", -1, group)
    (filled.site / "d").chmod(0o2775)
    found = filled.tried(shell("echo x > d/n; mkdir d/m; echo y > d/m/o"), created("d/t"))
    assert found.report.status == SUCCESS, found.complaint
    filled.execute(found)
    assert {(filled.site / "d" / name).stat().st_gid for name in ("n", "m", "m/o", "t")} == {group}
    assert stat.S_IMODE((filled.site / "d" / "m").stat().st_mode) & 0o2000
    assert stat.S_IMODE((filled.site / "d").stat().st_mode) == 0o2775


@case("X63")
def test_another_owner_is_never_given(filled: CaseHouse) -> None:
    """A command can not give a file away; where it could, the report would be unsafe."""
    before = {path.name: path.lstat().st_uid for path in filled.site.rglob("*")}
    found = filled.tried(shell("chown 1234 a || chown :1234 a"))
    assert found.report.status in {FAILED, UNSAFE}
    assert {path.name: path.lstat().st_uid for path in filled.site.rglob("*")} == before
