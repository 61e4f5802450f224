"""What a command leaves behind, as the dry run tells it: times, moves, what is unsafe, what it did not see."""

import os
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.domain.changes import Change, ChangeKind
from executor.domain.ladder import LadderLevel
from executor.domain.plan import Action, AppendText, CreateDirectory, CreateFile, DeletePath, MovePath, SetMode
from executor.domain.report import ReportStatus
from executor.runner.notices import KnownIds, sandbox_notices
from executor.runner.ports import Simulation
from executor.sandbox.bubblewrap import Bubblewrap
from executor.sandbox.storage import Storage
from executor.workspace.globs import Globs
from executor.workspace.manifest import ManifestWalk
from tests.unit.executor.plan_house import PlanHouse, command, plan_house, shell
from tests.unit.executor.sandbox_scripts import root_only

pytestmark = pytest.mark.sandbox

OLD = 946_684_800 * 10**9 + 123_456_789  # 2000-01-01
ACL = "system.posix_acl_access"
VOLATILE = ("**/__pycache__/**", ".git/index", "cache")


@pytest.fixture(params=[Storage.TMPFS, Storage.COPY], ids=["overlay", "copy"])
def house(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[PlanHouse]:
    """A workspace whose commands see it through an overlay (level L3), or as a private copy (level L2)."""
    with plan_house(tmp_path) as opened:
        opened.sandbox = Bubblewrap.on_this_machine(scratch=tmp_path / "scratch", storage=request.param)
        (opened.root / "d").mkdir()
        for name in ("f", "g", "d/x", "d/y"):
            (opened.root / name).write_text(f"{name}\n")
        (opened.root / "d/empty").write_text("")
        (opened.root / "l").symlink_to("f")
        for number, path in enumerate([*sorted(opened.root.rglob("*")), opened.root]):
            os.utime(path, ns=(OLD, OLD + number), follow_symlinks=False)
        yield opened


def succeeded(house: PlanHouse, *actions: Action) -> Simulation:
    found = house.simulate(house.plan(*actions))
    assert (found.status, found.problems) == (ReportStatus.SUCCESS, ())
    return found


def changes(house: PlanHouse, *actions: Action) -> dict[str, Change]:
    """The last step's changes by path."""
    return {os.fsdecode(change.path): change for change in succeeded(house, *actions).steps[-1].changes}


def times(found: dict[str, Change]) -> dict[str, tuple[str, int | None]]:
    return {path: (change.kind.value, change.mtime_ns) for path, change in found.items()}


def mtime(house: PlanHouse, path: str) -> int:
    return (house.root / path).lstat().st_mtime_ns


TIMES: dict[str, tuple[str, dict[str, tuple[str, int | None]]]] = {
    "a time that is set": ("touch -d @5.25 f", {"f": ("metadata", 5_250_000_000)}),
    "before 1970": ("touch -d @-1.5 f", {"f": ("metadata", -1_500_000_000)}),
    "of a link": ("touch -h -d @5 l", {"l": ("metadata", 5_000_000_000)}),
    "of a directory": ("touch -d @5 d", {"d": ("metadata", 5_000_000_000)}),
    "of the workspace": ("touch -d @5 .", {".": ("metadata", 5_000_000_000)}),
    "of a new file": ("echo > n; touch -d @5 n", {"n": ("create", 5_000_000_000)}),
    "of a new directory": ("mkdir n; touch -d @5 n", {"n": ("create", 5_000_000_000)}),
    "of a changed file": ("echo >> f; touch -d @5 f", {"f": ("modify", 5_000_000_000)}),
    "with other bits": ("chmod 600 f; touch -d @5 f", {"f": ("metadata", 5_000_000_000)}),
    "other bits alone": ("chmod 600 f", {"f": ("metadata", None)}),
    "content alone": ("echo >> f", {"f": ("modify", None)}),
    "names alone": ("echo > d/n; rm d/x", {"d/n": ("create", None), "d/x": ("delete", None)}),
    "a directory set back": (
        "cp -p --attributes-only d/x t 2>/dev/null; touch -r d keep; echo > d/n; touch -r keep d; rm -f keep t",
        {"d": ("metadata", OLD), "d/n": ("create", None)},
    ),
    "nothing": ("cat f > /dev/null; : >> f", {}),
    "names that came and went": ("echo > d/n; rm d/n; touch d", {}),
}


@pytest.mark.parametrize("name", TIMES)
def test_a_time_is_told_where_the_command_set_it(house: PlanHouse, name: str) -> None:
    """Exactly, to the nanosecond; what was only written, and directories by their names, get the commit's time."""
    script, expected = TIMES[name]
    found = times(changes(house, shell(script)))
    if name == "a directory set back":
        expected = {**expected, "d": ("metadata", mtime(house, "d"))}
    assert found == expected


def test_a_touch_and_the_same_bytes_again_are_told_with_their_time(house: PlanHouse) -> None:
    """They are of the command's own run; the commit sets that very time."""
    before = time.time_ns()
    found = times(changes(house, shell("touch f; cp g t; mv t g; ln -s f t; mv t l")))
    assert {path: kind for path, (kind, _) in found.items()} == dict.fromkeys(("f", "g", "l"), "metadata")
    assert all(mtime_ns and before - 10**9 < mtime_ns <= time.time_ns() for _, mtime_ns in found.values())


def test_a_copied_time_is_told_and_a_second_command_starts_from_the_first(house: PlanHouse) -> None:
    """What an earlier command set is not told again, what a later one sets is."""
    found = changes(house, shell("cp -p f n; touch -d @5 d/x"), shell("echo >> n; touch -d @6 d/x; chmod 600 d/y"))
    assert times(found) == {"d/x": ("metadata", 6_000_000_000), "d/y": ("metadata", None), "n": ("modify", None)}
    first = succeeded(house, shell("cp -p f n"), shell("true"))
    assert [(change.path, change.mtime_ns) for change in first.steps[0].changes] == [(b"n", mtime(house, "f"))]
    assert first.steps[1].changes == ()


def test_what_typed_steps_wrote_is_not_taken_for_the_commands(house: PlanHouse) -> None:
    """Neither their content nor their times; a base file that they moved keeps its time in the command's view."""
    actions = (
        CreateDirectory(path="new", mode=0o755),
        CreateFile(path="new/a", content=b"a", mode=0o600),
        MovePath(path="d", to="new/d"),
        SetMode(path="f", mode=0o600),
        AppendText(path="g", content="more\n"),
        DeletePath(path="l", recursive=False),
    )
    check = "test -f new/a -a ! -e d -a ! -e l -a $(stat -c %a f) = 600 && grep -q more g && stat -c %Y new/d/x f"
    found = succeeded(house, *actions, shell(check))
    assert found.steps[-1].changes == ()
    evidence = found.steps[-1].evidence
    assert evidence is not None
    assert getattr(evidence, "stdout").head.split() == ["946684800"] * 2  # noqa: B009 - one of several kinds


MOVES: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    "a file": ("mv f n", {"n": ("move", "f")}),
    "a link": ("mv l n", {"n": ("move", "l")}),
    "into a new directory": ("mkdir n; mv f n/f", {"n": ("create", ""), "n/f": ("move", "f")}),
    "a directory": (
        "mv d n",
        {"n": ("move", "d"), "n/empty": ("move", "d/empty"), "n/x": ("move", "d/x"), "n/y": ("move", "d/y")},
    ),
    "out of a directory that goes": (
        "mv d/x x; rm -r d",
        {"d": ("delete", ""), "d/empty": ("delete", ""), "d/y": ("delete", ""), "x": ("move", "d/x")},
    ),
    "a directory, and a change in it": (
        "mv d n; echo >> n/x",
        {
            **dict.fromkeys(("d", "d/empty", "d/x"), ("delete", "")),
            **dict.fromkeys(("n", "n/empty", "n/x"), ("create", "")),
            "n/y": ("move", "d/y"),
        },
    ),
    "a copy and no more": ("cp f n; rm f", {"f": ("delete", ""), "n": ("create", "")}),
    "over another": ("mv f g", {"f": ("delete", ""), "g": ("modify", "")}),
}


@pytest.mark.parametrize("name", MOVES)
def test_a_move_is_told_and_committed_as_one(house: PlanHouse, name: str) -> None:
    """The object itself gets the new name: its identity and its time stay; undone, everything is back."""
    script, expected = MOVES[name]
    found = succeeded(house, shell(script))
    told = found.steps[0].changes
    assert {os.fsdecode(one.path): (one.kind.value, os.fsdecode(one.moved_from)) for one in told} == expected
    moved = [change for change in told if change.kind is ChangeKind.MOVE]
    before = {change.path: (house.root / os.fsdecode(change.moved_from)).lstat() for change in moved}
    tree = house.tree()
    committer = house.workspace.committer(house.objects)
    applied = committer.apply("x-1", told)
    assert committer.verify(told) == ()
    for path, status in before.items():
        now = (house.root / os.fsdecode(path)).lstat()
        assert (now.st_ino, now.st_mtime_ns) == (status.st_ino, status.st_mtime_ns)
    assert committer.undo(applied).success
    assert house.tree() == tree


def access_list(user: int) -> bytes:
    """An access control list that lets one more user read, in the kernel's own form."""
    nobody = 0xFFFFFFFF
    entries = ((1, 6, nobody), (2, 4, user), (4, 4, nobody), (0x10, 4, nobody), (0x20, 4, nobody))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


UNSAFE: dict[str, tuple[str, str, str]] = {
    "a FIFO": ("mkfifo n", "n", "FIFO"),
    "a socket": ("python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"n\")'", "n", "socket"),
    "a setuid file": ("cp /bin/true n; chmod 4755 n", "n", "setuid"),
    "a setgid file": ("chmod 2755 f", "f", "setgid"),
    "a setgid directory": ("mkdir n; chmod 2755 n", "n", "setgid"),
    "a new hard link": ("ln f n", "n", "hard links"),
    "a link that leaves": ("ln -s /etc/passwd n", "n", "leads out"),
    "a link that climbs": ("ln -s ../../x d/n", "d/n", "leads out"),
    "a link through a link": ("ln -s .. up; ln -s up/x n", "n", "leads out"),
    "a link that is moved": ("ln -s ../f d/n; mv d/n n", "n", "leads out"),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_an_unsafe_result_is_named_with_its_reason(house: PlanHouse, name: str) -> None:
    """Path and reason are in the report, and so is what the command did; nothing can be approved."""
    script, path, reason = UNSAFE[name]
    found = house.simulate(house.plan(shell(script)))
    named = {problem.path: problem.message for problem in found.problems}
    assert (found.status, found.steps[0].success) == (ReportStatus.UNSAFE, False)
    assert reason in named[path]
    assert all(problem.reason == "SIMULATION_UNSAFE" and problem.remedy for problem in found.problems)


def test_every_unsafe_path_is_named_up_to_a_number(house: PlanHouse) -> None:
    """Each with a reason of its own; how many more there are is said."""
    found = house.simulate(house.plan(shell("mkfifo a; ln -s / b; for i in $(seq 30); do mkfifo p$i; done")))
    assert {"a", "b"} <= {problem.path for problem in found.problems}
    assert len(found.problems) == 21
    assert found.problems[-1].message == "and 12 more paths"


def test_a_file_with_other_names_is_not_changed(house: PlanHouse) -> None:
    """The commit could not change it under its other names; deleting or moving one name is fine."""
    os.link(house.root / "f", house.folder / "elsewhere")
    for action in (shell("echo >> f"), shell("chmod 600 f"), shell("touch f"), AppendText(path="f", content="x")):
        found = house.simulate(house.plan(action))
        assert (found.status, found.problems[0].path) == (ReportStatus.UNSAFE, "f")
    assert {path: change.kind.value for path, change in changes(house, shell("mv f n; : >> n")).items()} == {
        "n": "move"
    }
    assert changes(house, shell("rm f"))["f"].kind is ChangeKind.DELETE


def test_what_was_so_before_may_stay(house: PlanHouse) -> None:
    """A setgid directory hands its bit down; links that led out, and special files, are left alone or removed."""
    (house.root / "d").chmod(0o2755)
    (house.root / "out").symlink_to("/etc")
    os.mkfifo(house.root / "fifo")
    os.mkfifo(house.root / "d/fifo")
    found = changes(house, shell("mkdir d/sub; mv out d/out; touch d; rm fifo"))
    assert {path: change.kind.value for path, change in found.items()} == {
        "d/out": "move",
        "d/sub": "create",
        "fifo": "delete",
    }
    assert found["d/sub"].new is not None
    assert found["d/sub"].new.mode == 0o2755


def test_an_access_control_list_is_no_part_of_a_change_set(house: PlanHouse) -> None:
    """A file that has one may be changed; a command that would set, change or drop one is refused."""
    os.setxattr(house.root / "f", ACL, access_list(os.getuid()))  # of a user that the sandbox knows
    assert set(changes(house, shell("echo >> f"))) == {"f"}
    give = f"import os; os.setxattr('g', '{ACL}', {access_list(os.getuid())!r})"
    for action in (shell("rm f; echo new > f"), command("python3", "-c", give), shell("chmod 600 f")):
        found = house.simulate(house.plan(action))
        assert (found.status, "posix_acl" in found.problems[0].message) == (ReportStatus.UNSAFE, True)


@pytest.mark.parametrize(
    "action",
    [MovePath(path="fifo", to="n"), MovePath(path="suid", to="n"), MovePath(path="d/in", to="in")],
    ids=["a FIFO", "a setuid file", "a link that then leads out"],
)
def test_typed_steps_are_held_to_the_same(house: PlanHouse, action: Action) -> None:
    """The rules look at the change set, whoever made it."""
    os.mkfifo(house.root / "fifo")
    (house.root / "suid").write_text("x")
    (house.root / "suid").chmod(0o4755)
    (house.root / "d/in").symlink_to("../f")
    found = house.simulate(house.plan(action))
    assert (found.status, found.problems[0].reason) == (ReportStatus.UNSAFE, "SIMULATION_UNSAFE")


def test_volatile_paths_are_hidden_from_commands_and_left_out(tmp_path: Path) -> None:
    """A command finds none of them, what it makes of them changes nothing, and the report says what was hidden."""
    with plan_house(tmp_path) as house:
        house.workspace.volatile = Globs(VOLATILE)
        for name in ("src/__pycache__", ".git", "cache/deep"):
            (house.root / name).mkdir(parents=True)
        for name in ("src/m.py", "src/__pycache__/m.pyc", ".git/index", ".git/HEAD", "cache/deep/x"):
            (house.root / name).write_text(name)
        for path in (house.root / "src", house.root / ".git", house.root):
            os.utime(path, ns=(OLD, OLD))
        look = "test ! -e src/__pycache__ -a ! -e .git/index -a ! -e cache -a -e .git/HEAD"
        old = "test $(stat -c %Y src) = 946684800 -a $(stat -c %Y .git) = 946684800 -a $(stat -c %Y .) = 946684800"
        make = "mkdir src/__pycache__ cache; echo x > src/__pycache__/m.pyc; echo y > .git/index; echo z > cache/n"
        found = succeeded(house, shell(f"{look} && {old} && {make}"), shell("test -e cache/n; echo > new"))
        assert [[change.path for change in step.changes] for step in found.steps] == [[], [b"new"]]
        hidden = [notice.path for notice in found.notices if notice.kind == "volatile_hidden"]
        assert hidden == [".git/index", "cache", "src/__pycache__"]
        assert house.drift(house.plan(shell("true")), found) == ()


def test_a_commit_that_git_makes_without_its_index_is_refused(tmp_path: Path) -> None:
    """Git takes every file for deleted then; what it does besides, such as a new branch, is fine."""
    with plan_house(tmp_path) as house:
        house.workspace.volatile = Globs(VOLATILE)
        git = "git -c user.name=n -c user.email=n@example.org -c init.defaultBranch=main"
        subprocess.run(
            ["sh", "-c", f"{git} init -q . && {git} add . && {git} commit -qm one --allow-empty"],
            cwd=house.root,
            check=True,
        )
        assert succeeded(house, shell("git branch other")).steps[0].changes
        found = house.simulate(house.plan(shell(f"{git} commit -qm two --allow-empty")))
        assert (found.status, found.problems[0].path) == (ReportStatus.UNSAFE, ".git/refs/heads/main")
        assert "volatile" in found.problems[0].remedy
        house.workspace.volatile = Globs([])
        assert succeeded(house, shell(f"{git} commit -qm two --allow-empty")).steps[0].changes


def test_a_directory_goes_with_the_volatile_paths_in_it(tmp_path: Path) -> None:
    """They can not stay where nothing holds them; the commit removes them too, and undoes it."""
    with plan_house(tmp_path) as house:
        (house.root / "src/__pycache__").mkdir(parents=True)
        for name in ("src/m.py", "src/__pycache__/m.pyc"):
            (house.root / name).write_text(name)
        before = house.tree()
        for action in (shell("rm -r src"), shell("mv src lib"), MovePath(path="src", to="lib")):
            told = succeeded(house, action, shell("test ! -e src -a ! -e lib/__pycache__")).steps[0].changes
            committer = house.workspace.committer(house.objects)
            applied = committer.apply(f"x-{id(action)}", told)
            assert committer.verify(told) == ()
            assert not (house.root / "src").exists()
            assert committer.undo(applied).success
            committer.discard(applied)
            assert house.tree() == before


@root_only
def test_files_of_others_are_named_up_to_a_number(house: PlanHouse) -> None:
    """For a sandbox that knows only one user and group; root's knows all."""
    os.chown(house.root / "f", 1234, 0)
    os.chown(house.root / "d", 0, 1234)
    with ManifestWalk(house.workspace.open(), volatile=Globs([]), hidden=Globs([])) as walk:
        manifest = walk.finish()
    mine = KnownIds(users=frozenset({0}), groups=frozenset({0}))
    assert [(one.kind, one.path) for one in sandbox_notices(manifest, mine)] == [
        ("foreign_owner", "d"),
        ("foreign_owner", "f"),
    ]
    assert list(sandbox_notices(manifest, KnownIds.of_this_process())) == []
    nobodys = KnownIds(users=frozenset(), groups=frozenset())
    for number in range(30):
        (house.root / f"n{number}").write_text("")
    with ManifestWalk(house.workspace.open(), volatile=Globs([]), hidden=Globs([])) as walk:
        found = list(sandbox_notices(walk.finish(), nobodys))
    assert len(found) == 21
    assert found[-1].message.startswith("and 17 more: ")


def test_output_that_is_cut_is_said(house: PlanHouse) -> None:
    """With how much there was."""
    found = succeeded(house, shell("seq 100000"), shell("echo short"))
    (notice,) = found.notices
    assert (notice.kind, "s1" in notice.message, "588895" in notice.message) == ("output_cut", True, True)


@pytest.mark.parametrize("level", [LadderLevel.L2, LadderLevel.L3])
def test_a_plan_may_demand_isolation(tmp_path: Path, level: LadderLevel) -> None:
    """Below it nothing runs at all, whatever the steps are; at or above it nothing is different."""
    with plan_house(tmp_path, sandboxed=False) as house:
        edit = CreateFile(path="a", content=b"a", mode=0o644)
        found = house.simulate(house.plan(edit, least=level))
        (problem,) = found.problems
        assert (found.status, problem.reason, found.steps) == (ReportStatus.BLOCKED, "LADDER_TOO_LOW", ())
        assert "doctor" in problem.remedy
        assert house.simulate(house.plan(edit, least=LadderLevel.L1)).status is ReportStatus.SUCCESS
    (tmp_path / "sandboxed").mkdir()
    with plan_house(tmp_path / "sandboxed") as house:
        assert house.simulate(house.plan(command("true"), least=level)).status is ReportStatus.SUCCESS


def test_a_workspace_without_staging_has_the_lowest_level(tmp_path: Path) -> None:
    """What could not be committed there does not meet any demand."""
    with plan_house(tmp_path) as house:
        house.workspace.staging = None
        found = house.simulate(house.plan(command("true"), least=LadderLevel.L1))
        assert (found.status, found.problems[0].reason) == (ReportStatus.BLOCKED, "LADDER_TOO_LOW")
