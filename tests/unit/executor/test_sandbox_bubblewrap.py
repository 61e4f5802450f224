"""What is bubblewrap's and the machine's own: death of the server, ordinary users, owners, filters."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from executor.domain.errors import StepBlockedError
from executor.domain.ladder import LadderLevel
from executor.sandbox import bubblewrap
from executor.sandbox.bubblewrap import Bubblewrap
from executor.sandbox.sandbox import (
    CommandSpec,
    Limits,
    SandboxRefusedError,
    SandboxUnavailableError,
    SessionRequest,
)
from executor.sandbox.seccomp import SeccompFilter, shipped_filter
from executor.sandbox.storage import Storage
from tests.conformance.sandbox_suite import LIMITS, a_command, alive, eventually, said, shell
from tests.unit.executor.sandbox_scripts import (
    NOBODY,
    a_place_for_all,
    an_ordinary_users,
    as_nobody,
    root_only,
    scratch_of,
    script,
)

pytestmark = pytest.mark.sandbox


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    root = tmp_path / "ws"
    root.mkdir()
    (root / "file").write_text("base\n")
    return root


@pytest.fixture
def open_place() -> Iterator[Path]:
    with a_place_for_all() as place:
        yield place


def a_request(workspace: Path, **fields: object) -> SessionRequest:
    return SessionRequest(workspace=workspace, workspace_id="w", limits=LIMITS, **fields)  # type: ignore[arg-type]  # tests name real fields


@pytest.mark.parametrize("storage", Storage)
@pytest.mark.parametrize("delay", [0.0, 0.002, 0.005, 0.01, 0.02, 0.3])
def test_nothing_outlives_a_killed_server(workspace: Path, delay: float, storage: Storage) -> None:
    """Kill -9 of the server, at any moment of a command's start, leaves no holder, launcher or command after a second.

    The mounts are in the session's namespace, which ends with its last process. What lies on disk goes at the start of
    the next executor.
    """
    mark = f"62.{os.getpid()}{int(delay * 1000)}"
    body = f"""
        with sandbox.open(request) as session:
            print("open", flush=True)
            session.run(sh("setsid nohup sleep {mark} & sleep {mark}"))
    """
    server = subprocess.Popen([sys.executable, "-c", script(body, workspace, storage)], stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdout.readline() == b"open\n"
    time.sleep(delay)
    seen = alive(mark)
    server.send_signal(signal.SIGKILL)
    server.wait()
    server.stdout.close()
    assert not delay >= 0.3 or len(seen) >= 5, "the harness must have killed a running command"
    assert eventually(lambda: not alive(mark) and not alive(str(workspace)))
    scratch = scratch_of(workspace)
    assert scratch.exists() is (storage is not Storage.TMPFS)
    Bubblewrap.on_this_machine(scratch=scratch).clean_scratch()
    assert not scratch.exists() or list(scratch.iterdir()) == []


def test_no_mount_reaches_the_machine(workspace: Path) -> None:
    """While a session is open, and after, the machine's own mount table is as before."""
    before = Path("/proc/self/mountinfo").read_text()
    with Bubblewrap.on_this_machine().open(a_request(workspace)) as session:
        shell(session, "true", discard_changes=True)
        assert Path("/proc/self/mountinfo").read_text() == before
    assert Path("/proc/self/mountinfo").read_text() == before


def descriptors() -> list[str]:
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())


@pytest.mark.parametrize("storage", Storage)
def test_a_session_leaves_no_descriptor_open(workspace: Path, storage: Storage) -> None:
    """Opening, running, discarding, failing and closing leave the server's descriptors as they were."""
    sandbox = Bubblewrap.on_this_machine(scratch=scratch_of(workspace), storage=storage)

    def once() -> None:
        with sandbox.open(a_request(workspace)) as session:
            shell(session, "true")
            shell(session, "true", discard_changes=True)
            shell(session, "sleep 5", 0.3)
            with pytest.raises(SandboxRefusedError):
                session.run(a_command("no-such"))

    once()
    before = descriptors()
    once()
    assert descriptors() == before


def test_a_holder_that_dies_can_not_lead_a_write_into_the_workspace(workspace: Path) -> None:
    """Server-side paths of a dead session are of no use; they never lead to the real workspace."""
    session = Bubblewrap.on_this_machine().open(a_request(workspace))
    os.kill(session._holder.pid, signal.SIGKILL)
    assert eventually(lambda: not session._holder.alive)
    with pytest.raises(SandboxUnavailableError):
        shell(session, "true")
    (session.merged / "stray").write_text("x")
    session.close()
    assert not (workspace / "stray").exists()


def test_a_nested_mount_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, workspace: Path, tmp_path: Path) -> None:
    """A filesystem mounted inside a workspace would show as an empty directory, so its place is named instead."""
    table = tmp_path / "mountinfo"
    escaped = str(workspace / "a b").replace(" ", "\\040")
    table.write_text(
        f"1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / {workspace}2 rw - ext4 x rw\n3 1 0:3 / {escaped} rw - t x rw\n"
    )
    monkeypatch.setattr("executor.sandbox.requests._MOUNT_TABLE", table)
    with pytest.raises(SandboxRefusedError, match="a b"):
        Bubblewrap.on_this_machine().open(a_request(workspace))


def test_missing_launchers_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without bubblewrap the error names the package, and is one that a dry run reports as blocked."""
    monkeypatch.setattr(bubblewrap, "SYSTEM_PATH", "/nowhere")
    with pytest.raises(SandboxUnavailableError, match="bwrap") as caught:
        Bubblewrap.on_this_machine()
    assert isinstance(caught.value, StepBlockedError)
    assert "bubblewrap" in caught.value.fault.remedy


def a_filter(program: bytes) -> SeccompFilter:
    return SeccompFilter(name="test", program=program, digest="sha256:00")


def test_the_filter_leaves_no_descriptor(workspace: Path) -> None:
    """The filter is in force inside, and the descriptor that it came by is closed."""
    with Bubblewrap.on_this_machine().open(a_request(workspace)) as session:
        result = shell(session, "grep '^Seccomp:' /proc/self/status; ls /proc/self/fd")
    assert said(result).split() == ["Seccomp:", "2", "0", "1", "2", "3"]


def test_a_broken_filter_stops_the_command(workspace: Path) -> None:
    """A sandbox that can not be built as asked runs nothing, and says what the launcher said."""
    with Bubblewrap.on_this_machine(seccomp=a_filter(b"\0" * 8)).open(a_request(workspace)) as session:
        with pytest.raises(SandboxUnavailableError, match="SECCOMP"):
            shell(session, "echo ran > ran")
        assert not (session.merged / "ran").exists()


def test_memory_is_limited(workspace: Path) -> None:
    """With a memory limit a program that asks for more fails by itself."""
    limits = Limits(memory_bytes=200 << 20)
    request = SessionRequest(workspace=workspace, workspace_id="w", limits=limits)
    with Bubblewrap.on_this_machine().open(request) as session:
        result = session.run(a_command("python3", "-c", "bytearray(500 << 20)"))
    assert "MemoryError" in said(result)


@root_only
def test_under_root_owner_and_group_survive_a_copy_up(workspace: Path) -> None:
    """Appending to a file of another group, or of another owner where its mode allows, keeps both."""
    os.chown(workspace / "file", 0, 50)
    (workspace / "theirs").write_text("base\n")
    (workspace / "theirs").chmod(0o666)
    os.chown(workspace / "theirs", 1234, 4321)
    with Bubblewrap.on_this_machine().open(a_request(workspace)) as session:
        result = shell(session, "echo x >> file && echo x >> theirs")
        assert (result.exit_code, said(result)) == (0, "")
        own, theirs = (session.upper / "file").stat(), (session.upper / "theirs").stat()
    assert (own.st_uid, own.st_gid, theirs.st_uid, theirs.st_gid) == (0, 50, 1234, 4321)


@root_only
def test_under_root_commands_run_as_the_owner(workspace: Path) -> None:
    """A workspace that is not root's gets commands that are not root either; their number is then limited too."""
    for path in (workspace, workspace / "file"):
        os.chown(path, 1234, 4321)
    with Bubblewrap.on_this_machine().open(a_request(workspace)) as session:
        result = shell(session, "id -u; id -g; id -un; echo x >> file; echo x > new; echo x > ~/x; echo x > /dev/shm/x")
        assert said(result) == "1234\n4321\nsandbox\n"
        assert (session.upper / "new").stat().st_uid == 1234
        forks = "import os, signal\nfor _ in range(300):\n  if os.fork() == 0: signal.pause()"
        assert "Resource temporarily unavailable" in said(session.run(a_command("python3", "-c", forks)))


@root_only
@pytest.mark.parametrize("storage", Storage)
def test_an_ordinary_user_can_do_it_all(open_place: Path, storage: Storage) -> None:
    """Without any privilege: writes, discards, kills; another group's file fails with a hint instead of a riddle."""
    workspace = open_place / "ws"
    workspace.mkdir()
    for name in ("file", "group"):
        (workspace / name).write_text("base\n")
        (workspace / name).chmod(0o664)
        os.chown(workspace / name, NOBODY, NOBODY)
    os.chown(workspace, NOBODY, NOBODY)
    os.chown(workspace / "group", NOBODY, 0)
    an_ordinary_users(scratch_of(workspace))
    body = """
        with sandbox.open(request) as session:
            one = session.run(sh("id -u; echo x >> file; echo new > new; grep CapEff /proc/self/status"))
            two = session.run(sh("cat new; echo junk > new", discard_changes=True, collect=(b"new",)))
            three = session.run(sh("echo x >> group"))
            (session.merged / "typed").write_text("typed")
            four = session.run(sh("cat new typed"))
            print([r.stdout.head.decode().split() for r in (one, two, four)], two.collected)
            print(three.exit_code != 0, three.hint, (session.upper / "new").stat().st_uid)
    """
    first, second = as_nobody(body, workspace, storage).splitlines()
    assert first == "[['65534', 'CapEff:', '0000000000000000'], ['new'], ['new', 'typed']] {b'new': b'junk\\n'}"
    # In a copy every file is the user's own; that its owner would change is for the reader of the changes to see.
    own = storage is Storage.COPY
    assert second.startswith("False None" if own else "True a file that belongs to another user or group")
    assert second.endswith(" 65534")
    assert (workspace / "file").read_text() == "base\n"
    assert list(scratch_of(workspace).iterdir()) == []


@pytest.mark.parametrize("attack", ["rm .env; ln -s file .env", "mv keys k; ln -s k keys", "mv deep d; ln -s d deep"])
@pytest.mark.parametrize("storage", Storage)
def test_a_hidden_path_replaced_before_the_launch_stops_it(workspace: Path, storage: Storage, attack: str) -> None:
    """Between the look at a hidden path and its covering it, or a directory above it, becomes a link: nothing runs."""
    for name in (".env", "keys/id", "deep/er/secret"):
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).write_text("SECRET\n")
    scratch = scratch_of(workspace)
    launchers = bubblewrap.find_launchers()
    fake = workspace.with_name("bwrap")
    sandbox = Bubblewrap(
        launchers=replace(launchers, bwrap=str(fake)), seccomp=shipped_filter(), scratch=scratch, storage=storage
    )
    with sandbox.open(a_request(workspace, hidden=(b".env", b"keys", b"deep/er/secret"))) as session:
        real = f'exec {launchers.bwrap} "$@"'
        fake.write_text(f"#!/bin/sh\n{real}\n")
        fake.chmod(0o755)
        script = "cat .env keys/id k/id deep/er/secret d/er/secret file"
        assert said(shell(session, script)).count("SECRET") == 0
        fake.write_text(f"#!/bin/sh\n(cd {session._inside.cellar}/merged && {attack}) || exit 9\n{real}\n")
        with pytest.raises(SandboxUnavailableError, match="could not be built"):
            shell(session, script)


def test_the_ladder_is_ordered() -> None:
    """Levels compare by what they can do; commands need L2."""
    assert max(LadderLevel) is LadderLevel.L3
    assert [level.runs_commands for level in LadderLevel] == [False, False, True, True]


def test_the_time_left_is_the_smaller_one(workspace: Path) -> None:
    """A command may not outlast the session's limit, whatever its own."""
    request = SessionRequest(workspace=workspace, workspace_id="w", limits=Limits(max_duration_seconds=1))
    with Bubblewrap.on_this_machine().open(request) as session:
        result = session.run(CommandSpec(argv=("sleep", "20"), timeout_seconds=20))
    assert result.timed_out
    assert 900 < result.duration_ms < 2500


@root_only
@pytest.mark.parametrize("storage", Storage)
def test_a_command_can_not_spoil_the_next_ones_temporary_folders(open_place: Path, storage: Storage) -> None:
    """An ordinary user's command that makes its temporary folders unreadable leaves the next one fresh ones."""
    workspace = open_place / "ws"
    an_ordinary_users(workspace)
    an_ordinary_users(scratch_of(workspace))
    body = """
        with sandbox.open(request) as session:
            session.run(sh("mkdir -p /tmp/a/b; echo x > /tmp/a/b/c; chmod 0 /tmp/a/b /tmp/a /tmp ~"))
            print(session.run(sh("ls -A /tmp/a ~; echo ok > /tmp/x; cat /tmp/x")).stdout.head)
    """
    assert as_nobody(body, workspace, storage) == "b'/tmp/home:\\nok\\n'\n"
    assert list(scratch_of(workspace).iterdir()) == []


def test_without_a_list_of_children_a_kill_ends_the_session(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pid 1 can not be found, the launcher is killed, and with the session whatever might still run."""

    def not_listed(_pid: int) -> int:
        raise FileNotFoundError

    monkeypatch.setattr("executor.sandbox.command._only_child", not_listed)
    with Bubblewrap.on_this_machine().open(a_request(workspace)) as session:
        result = shell(session, "setsid sleep 63.1 >/dev/null 2>&1 & sleep 63.1", 0.3)
        assert (result.timed_out, result.exit_code) == (True, None)
        assert eventually(lambda: not alive("63.1"))
        with pytest.raises(SandboxUnavailableError):
            shell(session, "true")


def test_a_timeout_leaves_nothing_that_still_writes(workspace: Path) -> None:
    """When `run` returns after a kill, the view stands still, background writers included."""
    with Bubblewrap.on_this_machine().open(a_request(workspace)) as session:
        script = (
            'for i in 1 2 3 4; do setsid sh -c "while :; do echo \\$i >> grow$i; done" >/dev/null 2>&1 & done; wait'
        )
        assert shell(session, script, 0.3).timed_out
        sizes = [path.stat().st_size for path in sorted(session.merged.glob("grow*"))]
        time.sleep(0.05)
        assert [path.stat().st_size for path in sorted(session.merged.glob("grow*"))] == sizes
        assert len(sizes) == 4
