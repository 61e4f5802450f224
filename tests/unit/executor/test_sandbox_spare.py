"""The holder kept ready for the next session: when it is used, when not, and that it ends."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.sandbox import spare
from executor.sandbox.bubblewrap import Bubblewrap
from executor.sandbox.sandbox import SandboxUnavailableError, SessionRequest
from tests.conformance.sandbox_suite import LIMITS, alive, eventually, said, shell
from tests.unit.executor.sandbox_scripts import script

pytestmark = pytest.mark.sandbox


@pytest.fixture
def request_(tmp_path: Path) -> SessionRequest:
    root = tmp_path / "ws"
    root.mkdir()
    (root / "file").write_text("base\n")
    return SessionRequest(workspace=root, workspace_id="w", limits=LIMITS)


@pytest.fixture
def sandbox() -> Iterator[Bubblewrap]:
    sandbox = Bubblewrap.on_this_machine()
    sandbox.keep_ready()
    yield sandbox
    sandbox.close()


def ready(sandbox: Bubblewrap) -> int:
    """The number of the spare holder, once there is one."""
    assert sandbox._spare is not None
    assert eventually(lambda: sandbox._spare is not None and sandbox._spare._holder is not None, 10)
    assert sandbox._spare._holder is not None
    return sandbox._spare._holder.pid


def test_the_next_session_gets_it(sandbox: Bubblewrap, request_: SessionRequest) -> None:
    """One session after the other runs on the holder that was ready, and never on one that had another session."""
    seen = set()
    for _ in range(3):
        waiting = ready(sandbox)
        with sandbox.open(request_) as session:
            assert session._holder.pid == waiting
            assert said(shell(session, "cat file; echo x > file; cat file")) == "base\nx\n"
        seen.add(waiting)
    assert len(seen) == 3


def test_two_sessions_at_once(sandbox: Bubblewrap, request_: SessionRequest) -> None:
    """Only one gets the spare; the other starts its own."""
    waiting = ready(sandbox)
    with sandbox.open(request_) as first, sandbox.open(request_) as second:
        assert waiting == first._holder.pid != second._holder.pid
        assert said(shell(second, "cat file")) == "base\n"


def test_one_that_is_older_than_the_mounts_is_not_used(
    sandbox: Bubblewrap, request_: SessionRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was mounted since it started it would not see, so a new one is started and the old one ended."""
    waiting = ready(sandbox)
    table = tmp_path / "mountinfo"
    table.write_bytes(Path("/proc/self/mountinfo").read_bytes() + b"another\n")
    monkeypatch.setattr(spare, "_MOUNT_TABLE", table)
    with sandbox.open(request_) as session:
        assert session._holder.pid != waiting
    assert eventually(lambda: not Path(f"/proc/{waiting}").exists())


def test_one_that_died_is_not_used(sandbox: Bubblewrap, request_: SessionRequest) -> None:
    """Somebody killed it: the session starts its own and works."""
    os.kill(ready(sandbox), signal.SIGKILL)
    assert sandbox._spare is not None
    holder = sandbox._spare._holder
    assert holder is not None
    assert eventually(lambda: not holder.alive)
    with sandbox.open(request_) as session:
        assert said(shell(session, "cat file")) == "base\n"


def test_closing_ends_it(request_: SessionRequest) -> None:
    """After the end no holder is left or started, and no descriptor is open; sessions still open by themselves."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    sandbox = Bubblewrap.on_this_machine()
    sandbox.keep_ready()
    waiting = ready(sandbox)
    sandbox.close()
    assert not Path(f"/proc/{waiting}").exists()
    with sandbox.open(request_) as session:
        assert said(shell(session, "cat file")) == "base\n"
    assert sandbox._spare is not None
    assert sandbox._spare._holder is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_it_does_not_outlive_a_killed_server(request_: SessionRequest) -> None:
    """Kill -9 of the server ends a holder that waits."""
    body = """
        import time
        sandbox.keep_ready()
        while sandbox._spare._holder is None: time.sleep(0.01)
        print(sandbox._spare._holder.pid, flush=True)
        time.sleep(60)
    """
    server = subprocess.Popen([sys.executable, "-c", script(body, request_.workspace)], stdout=subprocess.PIPE)
    assert server.stdout is not None
    waiting = int(server.stdout.readline())
    assert Path(f"/proc/{waiting}").exists()
    server.kill()
    server.wait()
    server.stdout.close()
    assert eventually(lambda: not Path(f"/proc/{waiting}").exists())


@pytest.mark.parametrize("name", ["a\nb", "line\n", "\\0101 %s $(id) '\"", " lead and trail "])
def test_any_name_of_a_workspace(sandbox: Bubblewrap, tmp_path: Path, name: str) -> None:
    """Newlines, octal, quotes and spaces reach the waiting holder as they are."""
    root = tmp_path / name
    root.mkdir()
    (root / "file").write_text("here\n")
    ready(sandbox)
    request = SessionRequest(workspace=root, workspace_id="w", limits=LIMITS)
    with sandbox.open(request) as session:
        assert said(shell(session, "cat file; pwd")) == f"here\n{root}\n"


def test_a_failure_to_start_one_is_the_next_sessions(
    sandbox: Bubblewrap, request_: SessionRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spare that can not be started is nobody's error; the session that needs a holder says what is wrong."""
    ready(sandbox)
    with sandbox.open(request_):
        monkeypatch.setattr("executor.sandbox.holder._SESSION_SCRIPT", "echo broken >&2; exit 1")
    assert not eventually(lambda: sandbox._spare is None or sandbox._spare._holder is not None, 0.3)
    with pytest.raises(SandboxUnavailableError, match="broken"):
        sandbox.open(request_)
    assert not alive("broken")
