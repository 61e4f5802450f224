"""Bad input that only shows when it runs: what the dry run finds, keys and times, names that are no text.

Each is a clear reason and a remedy, nothing changed, and the services work on.
"""

import os
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from client.errors import ClientError
from client.exit_codes import ExitCode, for_report
from client.json_form import short_name
from client.signing import Signer
from gonogo import sealing
from gonogo.signatures import new_signing_key
from gonogo.v1 import evidence_pb2
from tests.e2e.installation import Installation, tree_of
from tests.e2e.wire_house import (
    Desk,
    desk,
    plan_of,
    step,
    untouched,
    works,
)

OUTSIDE = "PATH_OUTSIDE_WORKSPACE"


@pytest.fixture
async def one(house: Installation) -> AsyncIterator[Desk]:
    """A person at work."""
    async with desk(house.state) as opened:
        yield opened


BAD_PATCH = "--- a/plain.txt\n+++ b/plain.txt\n@@ -1 +1 @@\n-not there\n+new\n"
Found = tuple[dict[str, Any], str, str]
"""A step, the status of its dry run, and the reason of its first problem."""

DRY_RUNS: dict[str, Found] = {
    "a file beyond a link": (step("write_file", path="linked-dir/new", content=""), "blocked", OUTSIDE),
    "a read beyond a link": (step("read_file", path="linked-dir/hostname"), "blocked", OUTSIDE),
    "a link out of the workspace": (step("write_file", path="linked-file", content=""), "failed", "CONFLICT"),
    "reading a link": (step("read_file", path="linked-file"), "failed", "CONFLICT"),
    "listing a link": (step("list_directory", path="linked-dir"), "failed", "CONFLICT"),
    "a patch that does not apply": (step("patch_file", path="plain.txt", patch=BAD_PATCH), "failed", "CONFLICT"),
    "a patch that is none": (step("patch_file", path="plain.txt", patch="hello"), "failed", "PLAN_INVALID"),
    "replacing in a binary file": (step("replace_text", path="binary", old="a", new="b"), "failed", "UNSUPPORTED"),
    "patching a binary file": (step("patch_file", path="binary", patch=BAD_PATCH), "failed", "UNSUPPORTED"),
    "a text that is not there": (step("replace_text", path="plain.txt", old="?", new="b"), "failed", "CONFLICT"),
    "creating what exists": (step("create_file", path="plain.txt", content=""), "failed", "CONFLICT"),
    "deleting what is not there": (step("delete_path", path="nowhere"), "failed", "NOT_FOUND"),
    "a directory that is not there": (step("create_file", path="no/file", content=""), "failed", "NOT_FOUND"),
    "a file with two names": (step("write_file", path="two-names", content=""), "unsafe", "UNSUPPORTED"),
    "a hidden file": (step("read_file", path=".env"), "blocked", "PATH_OUTSIDE_SCOPE"),
    "a search that is no pattern": (step("search_files", path=".", pattern="("), "failed", "PLAN_INVALID"),
}
COMMANDS: dict[str, Found] = {
    "a program that the sandbox can not see": (
        step("run_command", argv=["/opt/nowhere/tool"]),
        "blocked",
        "PROGRAM_HIDDEN",
    ),
    "a program that fails": (step("run_command", argv=["false"]), "failed", "COMMAND_FAILED"),
    "a JUnit file that is missing": (step("run_tests", argv=["true"], junit="no/junit.xml"), "failed", "JUNIT_MISSING"),
    "tests that fail": (step("run_tests", argv=["false"]), "failed", ""),
    "a FIFO": (step("run_command", argv=["mkfifo", "pipe"]), "unsafe", "SIMULATION_UNSAFE"),
    "a socket": (
        step("run_command", argv=["python3", "-c", "import socket; socket.socket(socket.AF_UNIX).bind('s')"]),
        "unsafe",
        "SIMULATION_UNSAFE",
    ),
    "a setuid file": (step("run_command", argv=["sh", "-c", "touch s; chmod 4755 s"]), "unsafe", "SIMULATION_UNSAFE"),
    "a setgid file": (step("run_command", argv=["sh", "-c", "touch s; chmod 2755 s"]), "unsafe", "SIMULATION_UNSAFE"),
    "a device": (step("run_command", argv=["mknod", "null", "c", "1", "3"]), "failed", "COMMAND_FAILED"),
    "a command that never ends": (step("run_command", argv=["sleep", "60"]), "failed", ""),
    "a file over every limit": (step("run_command", argv=["truncate", "-s", "100G", "sparse"]), "failed", ""),
    "JUnit that is none": (step("run_tests", argv=["sh", "-c", "echo '<a' > j"], junit="j"), "failed", ""),
    "JUnit that is a link": (step("run_tests", argv=["ln", "-s", "/etc/passwd", "j"], junit="j"), "failed", ""),
    "JUnit that is a FIFO": (step("run_tests", argv=["mkfifo", "j"], junit="j"), "failed", ""),
    "a command that leaves a process": (
        step("run_command", argv=["sh", "-c", "sleep 60 & sleep 60"]),
        "failed",
        "",
    ),
}


@pytest.fixture
def odd(house: Installation) -> Path:
    """The workspace with links, a binary file and a file with two names."""
    site = house.workspaces["site"]
    if not (site / "plain.txt").exists():
        (site / "plain.txt").write_text("plain\n")
        (site / "binary").write_bytes(b"a\0b\xff")
        (site / "linked-file").symlink_to("/etc/hostname")
        (site / "linked-dir").symlink_to("/etc")
        (site / "two-names").write_text("two\n")
        os.link(site / "two-names", house.state / "other-name")
    return site


@pytest.mark.parametrize(("wrong", "status", "reason"), DRY_RUNS.values(), ids=DRY_RUNS)
async def test_the_dry_run_finds_what_can_not_be_done(
    house: Installation, one: Desk, odd: Path, wrong: dict[str, Any], status: str, reason: str
) -> None:
    """Status and reason tell what it was, the remedy what to do; such a mission can not be approved."""
    await refused_by_dry_run(house, one, plan_of(wrong), status, reason)


@pytest.mark.sandbox
@pytest.mark.parametrize(("wrong", "status", "reason"), COMMANDS.values(), ids=COMMANDS)
async def test_the_dry_run_finds_what_a_command_may_not_leave(
    house: Installation, one: Desk, wrong: dict[str, Any], status: str, reason: str
) -> None:
    """What a program did in its copy and may not be committed ends there."""
    await refused_by_dry_run(house, one, plan_of(wrong, scope={"max_duration_seconds": 1}), status, reason)


async def refused_by_dry_run(house: Installation, one: Desk, plan: str, status: str, reason: str) -> None:
    before = untouched(house)
    proposed = await one.propose(plan)
    tried = await one.client.dry_run(proposed.mission.mission_id)
    report = sealing.open_sealed(tried.report.body, evidence_pb2.Report)
    assert short_name(report, "status") == status, report
    assert for_report(status) is (ExitCode.FAILED if status == "failed" else ExitCode.NOT_PERMITTED)
    problem = report.problems[0]
    assert problem.reason == reason or (not reason and problem.reason)
    assert problem.message
    assert problem.remedy
    with pytest.raises(ClientError) as caught:
        one.client.verified(proposed, tried)
    assert caught.value.reason == f"SIMULATION_{status.upper()}"
    before.check()
    await works(one, house)


async def test_changes_beyond_the_scope_are_found_although_no_step_names_them(house: Installation, one: Desk) -> None:
    """A command may write what it likes in its copy; what the scope does not hold blocks the mission."""
    text = plan_of(step("run_command", argv=["touch", "elsewhere"]), scope={"paths": ["docs/**"]})
    await refused_by_dry_run(house, one, text, "blocked", "PATH_OUTSIDE_SCOPE")
    large = plan_of(step("create_file", path="large", content="x" * 100), scope={"max_bytes": 10})
    await refused_by_dry_run(house, one, large, "blocked", "TOO_LARGE")


@pytest.mark.sandbox
async def test_a_link_that_a_command_made_leads_no_step_out_of_the_workspace(house: Installation, one: Desk) -> None:
    """A link that leads outside may not be made, and nothing is written, read or listed through it."""
    making = step("run_command", argv=["ln", "-s", "/etc", "made-link"])
    for through in (
        step("create_file", path="made-link/new", content=""),
        step("read_file", path="made-link/hostname"),
        step("set_mode", path="made-link/hostname", mode="0777"),
        step("move_path", path="made-link/hostname", to="taken"),
        step("delete_path", path="made-link/hostname"),
    ):
        before = untouched(house)
        _, report = await one.reported(plan_of(making, through))
        assert report.status != evidence_pb2.REPORT_STATUS_SUCCESS
        assert {problem.reason for problem in report.problems} == {"SIMULATION_UNSAFE"}
        assert all(problem.remedy for problem in report.problems)
        before.check()


def taken_by_a_link(docs: Path, outside: Path) -> None:
    """Put a link to somewhere else in a directory's place."""
    docs.rename(docs.with_name("docs-away"))
    docs.symlink_to(outside)


def taken_by_a_file(docs: Path, outside: Path) -> None:
    """Put a file in a directory's place."""
    docs.rename(docs.with_name("docs-away"))
    docs.write_bytes(outside.name.encode())


def taken_away(docs: Path, _outside: Path) -> None:
    """Remove a directory."""
    docs.rename(docs.with_name("docs-away"))


@pytest.mark.parametrize("take", [taken_by_a_link, taken_by_a_file, taken_away])
@pytest.mark.parametrize(
    "wanted",
    [
        step("write_file", path="docs/page.txt", content="new\n"),
        step("create_file", path="docs/more.txt", content="more\n"),
        step("move_path", path="loose.txt", to="docs/loose.txt"),
    ],
    ids=["write", "create", "move"],
)
async def test_a_directory_that_is_another_one_after_the_approval_is_drift(
    house: Installation, one: Desk, tmp_path: Path, wanted: dict[str, Any], take: Callable[[Path, Path], None]
) -> None:
    """What was approved is refused at gate 6, nothing is claimed, and what a link points to is not touched."""
    site, outside = house.workspaces["site"], tmp_path / "outside"
    for folder in (site / "docs", outside):
        folder.mkdir()
        (folder / "page.txt").write_text("old\n")
    (site / "loose.txt").write_text("loose\n")
    mission = await one.approved(plan_of(wanted))
    take(site / "docs", outside)
    before, there = untouched(house), tree_of(outside)
    try:
        with pytest.raises(ClientError) as caught:
            await one.execute(mission)
        assert (caught.value.reason, bool(caught.value.remedy)) == ("BASE_DRIFTED", True)
        before.check()
        assert tree_of(outside) == there
    finally:
        if (site / "docs").is_symlink() or (site / "docs").exists():
            (site / "docs").unlink()
        for path in ((site / "docs-away" / "page.txt"), (site / "loose.txt")):
            path.unlink()
        (site / "docs-away").rmdir()
    await works(one, house)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (step("delete_path", path="nowhere"), ExitCode.FAILED),
        (step("read_file", path=".env"), ExitCode.NOT_PERMITTED),
    ],
    ids=["failed", "blocked"],
)
def test_the_command_ends_with_the_dry_runs_exit_code(
    house: Installation, wrong: dict[str, Any], code: ExitCode
) -> None:
    """Scripts see at the exit code what became of it; the report is on standard output all the same."""
    mission = house.json("propose", "-f", "-", text=plan_of(wrong))["mission_id"]
    ran = house.run("dry-run", mission, "-o", "json")
    assert ran.code == code
    assert ran.json["problems"][0]["remedy"]
    assert ran.error["remedy"]
    approving = house.json("approve", mission, "--key", str(house.state / "keys" / "approver"), "--yes", code=code)
    assert approving["reason"] == f"SIMULATION_{ran.json['status'].upper()}"
    executing = house.run("execute", mission, "-o", "json")
    assert executing.code in {ExitCode.WAITING, code}
    assert executing.error["remedy"]


# People and their keys.


async def test_a_key_that_nobody_knows_is_refused_by_the_command_and_by_the_orchestrator(
    house: Installation, one: Desk, tmp_path: Path
) -> None:
    """The command says it before it signs; an approval that was signed all the same changes nothing."""
    stranger = new_signing_key()
    key = tmp_path / "stranger"
    key.write_bytes(stranger.private_bytes())
    proposed = await one.propose(plan_of(step("create_file", path="stranger.txt", content="")))
    mission = proposed.mission.mission_id
    tried = await one.client.dry_run(mission)
    before = untouched(house)
    error = house.json("approve", mission, "--key", str(key), "--yes", code=ExitCode.NOT_PERMITTED)
    assert (error["reason"], bool(error["remedy"])) == ("APPROVER_UNKNOWN", True)
    verified = one.client.verified(proposed, tried)
    with pytest.raises(ClientError) as caught:
        await one.client.approve(verified, Signer(key=stranger, person="owner"))
    assert caught.value.reason in {"APPROVER_UNKNOWN", "SIGNATURE_INVALID"}
    assert not (await one.client.get(mission)).approvals
    before.check()
    await one.client.approve(verified, one.signer)
    assert (await one.receipt(mission)).execution_status == evidence_pb2.OUTCOME_SUCCESS


def test_a_key_file_that_is_none_is_refused(house: Installation, tmp_path: Path) -> None:
    """A missing file, another kind of key and plain text are told apart from a wrong key."""
    mission = house.json("propose", "-f", "-", text=plan_of(step("create_file", path="k", content="")))["mission_id"]
    house.json("dry-run", mission)
    text = tmp_path / "text"
    text.write_text("no key\n")
    for path in (tmp_path / "missing", text, house.state / "tls" / "client.key"):
        error = house.json("approve", mission, "--key", str(path), "--yes", code=ExitCode.ERROR)
        assert (error["reason"], bool(error["remedy"])) == ("KEY_UNUSABLE", True)


def test_an_approval_that_ran_out_is_refused_and_the_mission_expires(house: Installation) -> None:
    """Executed too late, nothing happens, the exit code says so, and the board calls the mission expired."""
    mission = house.json("propose", "-f", "-", text=plan_of(step("create_file", path="late", content="")))["mission_id"]
    house.json("dry-run", mission)
    key = str(house.state / "keys" / "approver")
    approved = house.json("approve", mission, "--key", key, "--yes", "--expires-in", "1s")
    wait_until(approved["expires_at"])
    before = untouched(house)
    error = house.json("execute", mission, code=ExitCode.REJECTED)
    assert (error["reason"], bool(error["remedy"])) == ("APPROVAL_EXPIRED", True)
    assert house.json("whiteboard", mission)["status"] == "expired"
    before.check()


def wait_until(moment: str) -> None:
    """Wait for a moment that was told in RFC 3339."""
    left = (datetime.fromisoformat(moment) - datetime.now(UTC)).total_seconds()
    time.sleep(max(left, 0.0) + 0.05)


# Names that are no text.


@pytest.mark.sandbox
async def test_names_that_are_not_utf8_go_through_and_come_back_byte_for_byte(house: Installation, one: Desk) -> None:
    """A command makes, renames and links such names; report, commit and receipt carry the very bytes."""
    script = (
        "import os; os.mkdir(b'odd-\\xff'); open(b'odd-\\xff/caf\\xe9', 'wb').write(b'1');"
        "os.symlink(b'caf\\xe9', b'odd-\\xff/l\\xfe')"
    )
    mission, report = await one.reported(plan_of(step("run_command", argv=["python3", "-c", script])))
    paths = [b"odd-\xff", b"odd-\xff/caf\xe9", b"odd-\xff/l\xfe"]
    assert [change.raw_path for change in report.steps[0].changes] == paths
    assert all(change.path.isascii() and change.path.isprintable() for change in report.steps[0].changes)
    proposed = await one.client.get(mission)
    assert proposed.mission.report_status == evidence_pb2.REPORT_STATUS_SUCCESS
    house.json("approve", mission, "--key", str(house.state / "keys" / "approver"), "--yes")
    receipt = await one.receipt(mission)
    assert receipt.execution_status == evidence_pb2.OUTCOME_SUCCESS
    assert [snapshot.raw_path for snapshot in receipt.after] == paths
    made = house.workspaces["site"] / os.fsdecode(b"odd-\xff")
    assert (made / os.fsdecode(b"caf\xe9")).read_bytes() == b"1"
    assert os.fsencode((made / os.fsdecode(b"l\xfe")).readlink()) == b"caf\xe9"
    assert house.json("verify", mission)["valid"]
    for command in ("show", "diff", "whiteboard", "trace"):
        ran = house.run(command, mission)
        assert ran.code == 0, ran.err
        ran.out.encode()


async def test_a_name_that_turns_text_around_is_shown_escaped(house: Installation, one: Desk) -> None:
    """Direction marks in a path are legal, and never reach a terminal."""
    mission = await one.approved(plan_of(step("create_file", path="report-\u202ecod.exe", content="\x1b[2J\u202e")))
    for command in ("show", "diff", "list", "whiteboard"):
        ran = house.run(command, *([mission] if command != "list" else []))
        assert ran.code == 0, ran.err
        assert not {"\u202e", "\x1b"} & set(ran.out), ran.out
