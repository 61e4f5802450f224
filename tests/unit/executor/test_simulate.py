"""The dry run: what it finds is exact, and what it may not find it refuses by name."""

import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.domain.changes import ChangeKind
from executor.domain.events import StepCompleted, StepOutput, StepStarted
from executor.domain.plan import (
    Action,
    AppendText,
    CreateDirectory,
    CreateFile,
    DeletePath,
    ListDirectory,
    MovePath,
    ReadFile,
    ReplaceText,
    RunCommand,
    SearchFiles,
)
from executor.domain.plan import TestExpectation as Expectation
from executor.domain.report import CommandEvidence, ReportStatus, TestEvidence
from gonogo.digests import digest as digest_of
from tests.unit.executor.plan_house import PlanHouse, command, plan_house, shell, suite

JUNIT = "mkdir -p build; printf '<testsuite><testcase/><testcase>%s</testcase></testsuite>' '{}' > build/j.xml"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[PlanHouse]:
    with plan_house(tmp_path) as opened:
        yield opened


def changed(house: PlanHouse, *actions: object) -> list[list[tuple[str, str]]]:
    """Dry-run some actions, which must succeed, and return path and kind of every change, step by step."""
    before = house.tree()
    found = house.simulate(house.plan(*actions))  # type: ignore[arg-type]  # the tests give actions only
    assert (found.status, found.problems) == (ReportStatus.SUCCESS, ())
    assert house.tree() == before
    return [[(os.fsdecode(one.path), one.kind.value) for one in step.changes] for step in found.steps]


def test_typed_steps_and_commands_see_one_tree(house: PlanHouse) -> None:
    """A command sees the edits before it, a typed step sees what a command did, and the workspace stays as it is."""
    (house.root / "guide.md").write_text("colour\n")
    (house.root / "old.txt").write_text("old")
    assert changed(
        house,
        ReplaceText(path="guide.md", old="colour", new="color", expected_count=1),
        DeletePath(path="old.txt", recursive=False),
        shell("test ! -e old.txt && cp guide.md copy.md && mkdir -p a/b && echo x > a/b/c"),
        AppendText(path="copy.md", content="more\n"),
        MovePath(path="a", to="z"),
        shell("grep -q more copy.md && echo y >> z/b/c && test ! -e a"),
    ) == [
        [("guide.md", "modify")],
        [("old.txt", "delete")],
        [("a", "create"), ("a/b", "create"), ("a/b/c", "create"), ("copy.md", "create")],
        [("copy.md", "modify")],
        [("z", "move"), ("z/b", "move"), ("z/b/c", "move")],
        [("z/b/c", "modify")],
    ]


def test_a_base_file_that_was_moved_can_be_changed_by_a_command(house: PlanHouse) -> None:
    """The bytes travel with the move, also when the old name comes into use again."""
    (house.root / "a.txt").write_text("first\n")
    assert changed(
        house,
        MovePath(path="a.txt", to="b.txt"),
        CreateFile(path="a.txt", content=b"new\n", mode=0o644),
        shell("grep -q first b.txt && echo second >> b.txt && grep -q new a.txt"),
    ) == [[("b.txt", "move")], [("a.txt", "create")], [("b.txt", "modify")]]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("rm -r d", [("d", "delete"), ("d/e", "delete"), ("d/e/f", "delete"), ("d/g", "delete")]),
        ("mv d/g h", [("h", "move")]),
        ("rm -r d && mkdir d && echo 1 > d/g", [("d/e", "delete"), ("d/e/f", "delete"), ("d/g", "modify")]),
        (
            "rm -r d && ln -s nowhere d",
            [("d", "type_change"), ("d/e", "delete"), ("d/e/f", "delete"), ("d/g", "delete")],
        ),
        ("chmod 600 d/g", [("d/g", "metadata")]),
        ("chmod 700 d", [("d", "metadata")]),
        ("cat d/g > d/g.tmp && mv d/g.tmp d/g", [("d/g", "metadata")]),
        ("echo x > d/new && rm d/new", []),
        ("touch d/g", [("d/g", "metadata")]),
        ("mkdir -p __pycache__ && echo x > __pycache__/m.pyc", []),
    ],
)
def test_a_commands_change_is_exact(house: PlanHouse, script: str, expected: list[tuple[str, str]]) -> None:
    """Deletes, moves, replaced directories, modes: what differs is reported, and nothing else."""
    (house.root / "d/e").mkdir(parents=True)
    (house.root / "d/e/f").write_text("f")
    (house.root / "d/g").write_text("g")
    (house.root / "d/g").chmod(0o644)
    (house.root / "d").chmod(0o755)
    assert changed(house, shell(script)) == [expected]


def test_a_name_that_is_not_utf8_is_reported_byte_for_byte(house: PlanHouse) -> None:
    """Names are bytes all the way."""
    found = house.simulate(house.plan(shell("printf x > \"$(printf 'a\\377\\nb')\"")))
    assert [change.path for change in found.steps[0].changes] == [b"a\xff\nb"]


def test_a_commands_output_and_exit_code_are_evidence(house: PlanHouse) -> None:
    """What it said is kept and streamed; a named exit code counts as success."""
    plan = house.plan(command("sh", "-c", "echo out; echo err >&2; exit 3", success_codes=(0, 3)))
    found = house.simulate(plan)
    evidence = found.steps[0].evidence
    assert isinstance(evidence, CommandEvidence)
    assert (found.status, evidence.exit_code, evidence.stdout.head, evidence.stderr.head) == (
        ReportStatus.SUCCESS,
        3,
        "out\n",
        "err\n",
    )
    kinds = [type(event) for event in house.events]
    assert kinds[0] is StepStarted
    assert StepOutput in kinds
    assert kinds[-1] is StepCompleted


PROBLEMS: dict[str, tuple[Action, ReportStatus, str]] = {
    "a failing command": (shell("echo no >&2; exit 1"), ReportStatus.FAILED, "COMMAND_FAILED"),
    "a command out of time": (shell("sleep 60"), ReportStatus.FAILED, "COMMAND_FAILED"),
    "a hidden program": (command("/root/no-such-program"), ReportStatus.BLOCKED, "PROGRAM_HIDDEN"),
    "a FIFO": (shell("mkfifo pipe"), ReportStatus.UNSAFE, "SIMULATION_UNSAFE"),
    "a setuid file": (shell("cp /bin/true t && chmod 4755 t"), ReportStatus.UNSAFE, "SIMULATION_UNSAFE"),
    "an existing file": (
        CreateFile(path="there.txt", content=b"", mode=0o644),
        ReportStatus.FAILED,
        "CONFLICT",
    ),
    "a missing parent": (CreateFile(path="no/such", content=b"", mode=0o644), ReportStatus.FAILED, "NOT_FOUND"),
    "a hidden file": (ReadFile(path=".env"), ReportStatus.BLOCKED, "PATH_OUTSIDE_SCOPE"),
    "a link out of the workspace": (
        CreateFile(path="out/evil", content=b"", mode=0o644),
        ReportStatus.BLOCKED,
        "PATH_OUTSIDE_WORKSPACE",
    ),
    "tests that fail": (suite("exit 1"), ReportStatus.FAILED, "TESTS_UNEXPECTED"),
    "tests that pass unexpectedly": (
        suite("exit 0", expect=Expectation.FAIL),
        ReportStatus.FAILED,
        "TESTS_UNEXPECTED",
    ),
    "no JUnit file": (suite("exit 0", "build/j.xml"), ReportStatus.FAILED, "JUNIT_MISSING"),
    "a JUnit file that is none": (
        suite("mkdir -p build; echo hi > build/j.xml", "build/j.xml"),
        ReportStatus.FAILED,
        "JUNIT_UNREADABLE",
    ),
    "too much": (shell("head -c 2000000 /dev/zero > big"), ReportStatus.BLOCKED, "TOO_LARGE"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_does_not_work_is_named(house: PlanHouse, name: str) -> None:
    """Each kind of trouble has its status, its reason, a message and a remedy, and changes nothing."""
    action, status, reason = PROBLEMS[name]
    (house.root / "there.txt").write_text("")
    (house.root / ".env").write_text("secret")
    (house.root / "out").symlink_to(house.folder)
    before = house.tree()
    max_bytes = 1_000_000 if name == "too much" else None
    found = house.simulate(house.plan(action, seconds=2, max_bytes=max_bytes))
    assert (found.status, [problem.reason for problem in found.problems]) == (status, [reason])
    assert all(problem.message and problem.remedy for problem in found.problems)
    assert house.tree() == before
    assert not (house.folder / "evil").exists()


def test_a_stale_junit_file_is_not_taken_for_this_runs(house: PlanHouse) -> None:
    """A result file that lay in the workspace before says nothing about the tests now."""
    (house.root / "build").mkdir()
    (house.root / "build/j.xml").write_text("<testsuite><testcase/></testsuite>")
    found = house.simulate(house.plan(suite("exit 0", "build/j.xml")))
    assert [problem.reason for problem in found.problems] == ["JUNIT_MISSING"]


def test_what_tests_write_is_thrown_away(house: PlanHouse) -> None:
    """The verdict and its counts stay; the files they wrote are neither reported nor seen by the next step."""
    found = house.simulate(
        house.plan(
            CreateDirectory(path="src", mode=0o755),
            suite("test -d src && " + JUNIT.format("<skipped/>"), "build/j.xml"),
            shell("test ! -e build"),
        )
    )
    assert found.status is ReportStatus.SUCCESS
    evidence = found.steps[1].evidence
    assert isinstance(evidence, TestEvidence)
    assert (evidence.tests, evidence.skipped, evidence.failures) == (2, 1, 0)
    assert found.steps[1].changes == ()


def test_a_failure_that_the_plan_expects_is_a_success(house: PlanHouse) -> None:
    """A reproduction test that must fail first."""
    plan = house.plan(suite(JUNIT.format("<failure/>") + "; exit 1", "build/j.xml", Expectation.FAIL))
    assert house.simulate(plan).status is ReportStatus.SUCCESS


@pytest.mark.parametrize(
    "action",
    [
        CreateFile(path="src/a", content=b"", mode=0o644),
        MovePath(path="docs/a.md", to="a.md"),
        shell("echo x > src.txt"),
        ReadFile(path="other.md"),
        SearchFiles(pattern="x", path=".", literal=True),
    ],
)
def test_a_plan_does_not_leave_its_scope(house: PlanHouse, action: object) -> None:
    """Edits, moves, reads and what commands did are all held to it."""
    (house.root / "docs").mkdir()
    (house.root / "docs/a.md").write_text("a")
    (house.root / "other.md").write_text("o")
    found = house.simulate(house.plan(action, paths=("docs/**",)))  # type: ignore[arg-type]  # actions only
    assert (found.status, found.problems[0].reason) == (ReportStatus.BLOCKED, "PATH_OUTSIDE_SCOPE")


def test_reading_steps_see_the_tree_as_it_is_then(house: PlanHouse) -> None:
    """A listing and a search after an edit include it."""
    (house.root / "a.md").write_text("needle\n")
    found = house.simulate(
        house.plan(
            CreateFile(path="b.md", content=b"needle\n", mode=0o644),
            ListDirectory(path="."),
            SearchFiles(pattern="needle", path=".", literal=True),
            ReadFile(path="b.md"),
        )
    )
    assert found.status is ReportStatus.SUCCESS
    assert [getattr(step.evidence, "count", None) for step in found.steps] == [None, 2, 2, None]


def test_a_workspace_that_is_edited_meanwhile_fails_the_dry_run(house: PlanHouse) -> None:
    """What a command saw is not known then, so nothing is claimed about it."""
    (house.root / "a.md").write_text("one")

    def edit() -> None:
        time.sleep(0.5)
        (house.root / "a.md").write_text("somebody else")

    editor = threading.Thread(target=edit)
    editor.start()
    found = house.simulate(house.plan(shell("sleep 1")))
    editor.join()
    assert (found.status, found.problems[0].reason, found.problems[0].path) == (
        ReportStatus.FAILED,
        "BASE_DRIFTED",
        "a.md",
    )


def test_without_a_sandbox_commands_are_blocked_and_edits_are_not(tmp_path: Path) -> None:
    """Ladder level L1: typed steps work, a command is refused with the remedy."""
    with plan_house(tmp_path, sandboxed=False) as house:
        edit = CreateFile(path="a", content=b"a", mode=0o640)
        assert house.simulate(house.plan(edit)).status is ReportStatus.SUCCESS
        found = house.simulate(house.plan(edit, shell("true")))
        assert (found.status, found.problems[0].reason) == (ReportStatus.BLOCKED, "UNSUPPORTED")
        assert "doctor" in found.problems[0].remedy


@pytest.mark.parametrize(
    "actions",
    [
        (DeletePath(path="config", recursive=True),),
        (MovePath(path="config", to="plain"), ReadFile(path="plain/.env")),
        (MovePath(path="config", to="plain"), shell("cat plain/.env || cat plain/*")),
        (shell("cat config/.env; cp config/.env shown"),),
        (shell("mv config plain && cat plain/.env"),),
        (shell("echo new > .env"),),
    ],
)
def test_a_hidden_file_stays_hidden_whatever_happens_to_its_directory(
    tmp_path: Path, actions: tuple[Action, ...]
) -> None:
    """Deleting, moving or copying around it shows nothing of it: not in the report, not among the objects."""
    with plan_house(tmp_path, hidden=("**/.env",)) as house:
        (house.root / "config").mkdir()
        (house.root / "config/.env").write_text("TOP-SECRET")
        (house.root / "config/plain").write_text("plain")
        found = house.simulate(house.plan(*actions))
        assert b"TOP-SECRET" not in b"".join(found.small_objects.values())
        assert "TOP-SECRET" not in repr(found.steps)
        assert digest_of(b"TOP-SECRET") not in repr(found.steps)
        if not isinstance(actions[0], RunCommand) or "echo" in actions[0].argv[-1]:
            assert (found.status, found.problems[0].reason) == (ReportStatus.BLOCKED, "PATH_OUTSIDE_SCOPE")


def test_a_program_is_looked_up_where_the_command_starts(house: PlanHouse) -> None:
    """`./run` with a working directory means the one in that directory."""
    (house.root / "sub").mkdir()
    (house.root / "sub/run").write_text("#!/bin/sh\necho here\n")
    (house.root / "sub/run").chmod(0o755)
    found = house.simulate(house.plan(RunCommand(argv=("./run",), cwd="sub", env={}, success_codes=())))
    assert (found.status, found.problems) == (ReportStatus.SUCCESS, ())


def test_a_large_object_is_not_held_in_memory_and_stays_readable(house: PlanHouse) -> None:
    """What does not fit the ledger is a file of the store, by its digest."""
    found = house.simulate(house.plan(shell("head -c 3000000 /dev/urandom > big")))
    (change,) = found.steps[0].changes
    assert change.kind is ChangeKind.CREATE
    assert change.new is not None
    assert change.new.digest not in found.small_objects
    assert house.objects.size(change.new.digest) == 3_000_000


def test_drift_names_what_changed_since(house: PlanHouse) -> None:
    """Touched paths, read paths, listings and, for commands, the whole tree."""
    (house.root / "read.md").write_text("r")
    (house.root / "edit.md").write_text("e")
    (house.root / "d").mkdir()
    plan = house.plan(
        ReadFile(path="read.md"),
        ListDirectory(path="d"),
        AppendText(path="edit.md", content="more"),
    )
    found = house.simulate(plan)
    assert house.drift(plan, found) == ()
    (house.root / "unrelated.md").write_text("u")
    assert house.drift(plan, found) == ()
    (house.root / "read.md").write_text("R")
    (house.root / "d/new").write_text("")
    (house.root / "edit.md").chmod(0o600)
    assert house.drift(plan, found) == (b"d", b"edit.md", b"read.md")
    with_command = house.plan(command("true"))
    found = house.simulate(with_command)
    assert house.drift(with_command, found) == ()
    (house.root / "unrelated.md").write_text("changed")
    assert house.drift(with_command, found) == (b"unrelated.md",)
    assert stat.S_ISREG((house.root / "unrelated.md").stat().st_mode)
