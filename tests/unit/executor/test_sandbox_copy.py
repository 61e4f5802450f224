"""The private copy of level L2: what is copied, what is refused, and that its changes show as an overlay's would."""

import os
import random
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from executor.sandbox.bubblewrap import Bubblewrap
from executor.sandbox.copying import Budget, Copier
from executor.sandbox.private_copy import copy_tree
from executor.sandbox.sandbox import Limits, Sandbox, SandboxRefusedError, SandboxSession, SessionRequest
from executor.sandbox.storage import Storage
from executor.workspace.overlay import UpperIndex, read_upper
from tests.conformance.sandbox_suite import LIMITS, said, shell
from tests.unit.executor.sandbox_scripts import a_place_for_all, an_ordinary_users, as_nobody, root_only, scratch_of

pytestmark = pytest.mark.sandbox
SCRIPTS = (
    "echo x >> file; printf same > same; touch -d '2001-01-01' folder/inner",
    "rm -r folder; mkdir folder; echo new > folder/other; ln -s ../file folder/link",
    "rm file; mkdir file; echo deep > file/below; mv same moved; chmod 600 moved",
    "rm -r dir; echo now-a-file > dir; mkfifo pipe; mkdir -p a/b/c; rmdir empty",
    "ln -s none gone-link; rm link; ln file hard; truncate -s 1M sparse; chmod 700 dir; touch dir/sub/new",
    "mv dir dir2; cp -a dir2 dir; rm dir/sub/leaf; chmod 4755 same",
)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    root = tmp_path / "ws"
    for name in ("folder/inner", "dir/sub/leaf", "dir/top", "file", "same", "names/a\nb"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("base")
    (root / "empty").mkdir(mode=0o751)
    (root / "link").symlink_to("file")
    os.setxattr(root / "same", "user.note", b"kept")
    os.utime(root / "same", ns=(1_000_000_001, 1_234_567_891))
    os.utime(root / "folder", ns=(1_000_000_001, 987_654_321))
    return root


def a_request(workspace: Path, **fields: object) -> SessionRequest:
    return SessionRequest(workspace=workspace, workspace_id="w", **{"limits": LIMITS, **fields})  # type: ignore[arg-type]  # tests name real fields


def at_level_2(workspace: Path) -> Sandbox:
    return Bubblewrap.on_this_machine(scratch=workspace.with_name("scratch"), storage=Storage.COPY)


def copied(source: Path, **fields: object) -> Path:
    target = source.with_name("copy")
    copier = Copier(budget=Budget(most_bytes=1 << 30, most_inodes=1000))
    copy_tree(source, target, copier=copier, **fields)  # type: ignore[arg-type]  # tests name real fields
    return target


def everything(root: Path) -> dict[str, object]:
    """All that a copy must keep."""
    found: dict[str, object] = {}
    for place in (root, *sorted(root.rglob("*"))):
        status = place.lstat()
        what = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_nlink)
        xattrs = {name: os.getxattr(place, name, follow_symlinks=False) for name in os.listxattr(place)}
        content: object = place.readlink() if place.is_symlink() else None
        if stat.S_ISREG(status.st_mode):
            content = place.read_bytes(), status.st_blocks < 64
        found[str(place.relative_to(root))] = (what, xattrs, content)
    return found


def test_a_copy_is_exact(workspace: Path) -> None:
    """Bytes, holes, modes, times, attributes, links, hard links, FIFOs and odd names are as they were."""
    with (workspace / "sparse").open("wb") as file:
        file.seek(50 << 20)
        file.write(b"end")
        file.truncate(60 << 20)
    os.link(workspace / "file", workspace / "dir" / "other-name")
    os.mkfifo(workspace / "pipe")
    (workspace / "dir" / "sub").chmod(0o500)
    os.setxattr(workspace / "dir", "user.note", b"kept")
    assert everything(copied(workspace)) == everything(workspace)


def test_hidden_content_stays_behind(workspace: Path) -> None:
    """What no command may see is there by name only; a link keeps its target, since it is refused later."""
    target = copied(workspace, left_empty=frozenset({b"file", b"dir", b"link"}))
    assert (target / "file").read_bytes() == b""
    assert list((target / "dir").iterdir()) == []
    assert (target / "link").readlink() == Path("file")


def test_a_workspace_that_is_too_large_is_refused(workspace: Path) -> None:
    """Too many bytes or files: the refusal names limit and remedy, and nothing of the copy is left."""
    (workspace / "big").write_bytes(b"x" * 300_000)
    for limits in (Limits(copy_bytes=200_000), Limits(copy_inodes=5)):
        with pytest.raises(SandboxRefusedError, match="too large for the private copy") as caught:
            at_level_2(workspace).open(a_request(workspace, limits=limits))
        assert (caught.value.fault.reason, bool(caught.value.fault.remedy)) == ("TOO_LARGE", True)
    assert list(workspace.with_name("scratch").iterdir()) == []


@root_only
def test_a_device_is_refused_by_name(workspace: Path) -> None:
    """What a copy can not stand for is named."""
    os.mknod(workspace / "device", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    with pytest.raises(SandboxRefusedError, match="device") as caught:
        at_level_2(workspace).open(a_request(workspace))
    assert caught.value.fault.paths == (b"device",)


class Shown(NamedTuple):
    """What a reader of changes gets to see of one path."""

    deleted: bool
    mode: int
    size: int
    owner: tuple[int, int]
    nlink: int
    target: bytes
    xattrs: tuple[tuple[str, bytes], ...]
    content: bytes


def changes(
    session: SandboxSession, workspace: Path, index: UpperIndex | None
) -> tuple[dict[bytes, Shown], UpperIndex]:
    """Everything that differs, and what has vanished since the index's scan, which only that knows of."""
    scan = read_upper(session.upper, workspace, index)
    vanished = [entry for entry in scan.entries if entry.deleted]
    found = {}
    for entry in (*vanished, *read_upper(session.upper, workspace, None).entries):
        place = os.fsdecode(os.fsencode(session.upper) + b"/" + entry.path)
        regular = stat.S_ISREG(entry.mode)
        found[entry.path] = Shown(
            deleted=entry.deleted,
            mode=entry.mode,
            size=entry.size if regular else 0,
            owner=(entry.uid, entry.gid),
            nlink=entry.nlink if regular else 0,
            target=entry.link_target,
            xattrs=entry.xattrs,
            content=Path(place).read_bytes() if regular else b"",
        )
    return found, scan.index


def effective(found: dict[bytes, Shown], workspace: Path) -> dict[bytes, Shown]:
    """Without what an overlay may also leave out: a directory that is as it was, deletions of what never was."""
    kept = {}
    for path, shown in found.items():
        below = Path(os.fsdecode(os.fsencode(workspace) + b"/" + path))
        same = stat.S_ISDIR(shown.mode) and not below.is_symlink() and below.is_dir() and not shown.xattrs
        if (shown.deleted and not os.path.lexists(below)) or (same and below.stat().st_mode == shown.mode):
            continue
        kept[path] = shown
    return kept


@pytest.mark.parametrize("seed", range(6))
def test_its_changes_show_as_an_overlays_would(workspace: Path, seed: int) -> None:
    """The same commands, one after the other, give at L2 what they give at L3, after each of them."""
    scripts = [*SCRIPTS]
    random.Random(seed).shuffle(scripts)
    with (
        Bubblewrap.on_this_machine().open(a_request(workspace)) as three,
        at_level_2(workspace).open(a_request(workspace)) as two,
    ):
        first = second = None
        for script in scripts:
            assert (
                shell(three, f"umask 022; {script} 2>&1").exit_code == shell(two, f"umask 022; {script} 2>&1").exit_code
            )
            over, first = changes(three, workspace, first)
            copy, second = changes(two, workspace, second)
            assert effective(copy, workspace) == effective(over, workspace)


@pytest.fixture
def session(workspace: Path) -> Iterator[SandboxSession]:
    with at_level_2(workspace).open(a_request(workspace)) as session:
        yield session


def test_nothing_changed_shows_nothing(session: SandboxSession) -> None:
    """Reading, and throwing changes away, leave no trace."""
    shell(session, "cat file folder/inner; ls -lR > /dev/null")
    shell(session, "rm -r *; echo x > new", discard_changes=True)
    assert list(session.upper.iterdir()) == []


def test_a_forged_date_does_not_hide_a_change(session: SandboxSession) -> None:
    """Other bytes of the same length, with the old date put back, are seen; so are they a second time."""
    for text in ("wxyz", "efgh"):
        shell(session, f"cp -p same /tmp/old; printf {text} > same; touch -r /tmp/old same")
        assert (session.upper / "same").read_text() == text
        assert (session.upper / "same").stat().st_mtime_ns == 1_234_567_891


def test_an_unchanged_change_keeps_its_mark(session: SandboxSession, workspace: Path) -> None:
    """What an earlier command changed and the last one did not is not reported as new."""
    shell(session, "echo 1 > file; mkdir -p made/deep; echo 1 > made/deep/file; rm same")
    index = read_upper(session.upper, workspace, None).index
    (session.merged / "typed").write_text("typed")
    shell(session, "echo 2 > dir/top; rm link")
    scan = read_upper(session.upper, workspace, index)
    new = {entry.path for entry in scan.entries if entry.changed_since_previous}
    assert new - {b"."} == {b"typed", b"dir", b"dir/top", b"link"}


def test_what_came_and_went_is_gone(session: SandboxSession, workspace: Path) -> None:
    """A file that one command makes and another removes, and a directory that becomes a file, leave nothing behind."""
    shell(session, "mkdir -p x/y; echo 1 > x/y/z; rm -r dir; mkdir dir; mkdir dir/sub; echo 1 > dir/sub/new")
    index = read_upper(session.upper, workspace, None).index
    shell(session, "rm -r x dir; echo file > dir")
    assert sorted(place.name for place in session.upper.iterdir()) == ["dir"]
    gone = {entry.path for entry in read_upper(session.upper, workspace, index).entries if entry.deleted}
    assert {b"x", b"dir/sub"} & gone >= {b"x"}


def test_an_attribute_can_not_be_forged(session: SandboxSession, workspace: Path) -> None:
    """An attribute named as the overlay's own is reported as what the command set, not obeyed."""
    script = "import os; os.setxattr('dir', 'user.overlay.opaque', b'y'); os.setxattr('same', 'user.overlay.x', b'1')"
    assert shell(session, f'python3 -c "{script}"').exit_code == 0
    found = {entry.path: entry for entry in read_upper(session.upper, workspace, None).entries}
    assert (found[b"dir"].opaque, found[b"dir"].xattrs) == (False, (("user.overlay.opaque", b"y"),))
    assert b"dir/top" not in found
    assert found[b"same"].xattrs == (("user.note", b"kept"), ("user.overlay.x", b"1"))


def test_names_of_one_file_stay_one(session: SandboxSession, workspace: Path) -> None:
    """Hard links that a command makes are seen as such."""
    shell(session, "ln file second")
    assert {entry.path: entry.nlink for entry in read_upper(session.upper, workspace, None).entries} == {
        b"file": 2,
        b"second": 2,
    }


def test_a_deep_tree_is_shown(session: SandboxSession) -> None:
    """A tree that is deeper than any path can name is no trouble."""
    script = "import os\nfor _ in range(300): os.mkdir('d' * 20); os.chdir('d' * 20)"
    assert shell(session, f'python3 -c "{script}"').exit_code == 0
    assert (session.upper / ("d" * 20) / ("d" * 20)).is_dir()


@root_only
def test_what_an_ordinary_user_can_not_look_at_is_said() -> None:
    """A directory that the executor's own user may not read is an unsafe result with its path, as at L3."""
    body = """
        with sandbox.open(request) as session:
            session.run(sh("mkdir locked; echo x > locked/x; chmod 0 locked"))
            try:
                session.upper
            except Exception as error:
                print(type(error).__name__, error.fault.reason, error.fault.paths)
    """
    with a_place_for_all() as place:
        workspace = place / "ws"
        for folder in (workspace, scratch_of(workspace)):
            an_ordinary_users(folder)
        assert as_nobody(body, workspace, Storage.COPY) == "StepUnsafeError SIMULATION_UNSAFE (b'locked',)\n"
        assert list(scratch_of(workspace).iterdir()) == []


def test_the_session_says_what_it_writes_where(session: SandboxSession) -> None:
    """What the server writes below `merged` shows in `upper` at once, and to the next command."""
    (session.merged / "typed").write_text("typed")
    assert (session.upper / "typed").read_text() == "typed"
    assert said(shell(session, "cat typed")) == "typed"
