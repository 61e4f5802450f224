"""What plans, far sides and programs try that want out of what they are given."""

import errno
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from executor.domain.errors import ExecutorError, StepBlockedError
from executor.domain.plan import CallTool, FetchUrl, LiveAccess, SearchBodies
from executor.domain.receipt import EffectState
from executor.domain.redaction import Redactor, Secret
from executor.outside.addresses import parse_url, pin
from executor.outside.bodies import MOST_SHOWN, Bodies, Page
from executor.outside.charsets import decoded
from executor.outside.program_launch import DATA_BYTES
from executor.outside.proxy import Proxy
from executor.outside.supervise import Log
from executor.outside.tools import ToolCalls
from executor.outside.worker import Confinement, View
from executor.sandbox.bubblewrap import find_launchers
from tests.conformance.sandbox_commands import alive, eventually
from tests.unit.executor.fetch_house import fetch_house, post
from tests.unit.executor.outside_house import TOKEN, outside_house
from tests.unit.executor.program_house import TABLES, program_house, ready_when, shell

PARTIAL = Path(__file__).parents[2] / "far_sides" / "partial_mcp_server.py"
FETCH = FetchUrl(url="http://ok.test/", head=False, extract_text=False, max_bytes=None)


@pytest.mark.sandbox
@pytest.mark.parametrize("access", list(LiveAccess))
@pytest.mark.parametrize("keeps", [False, True])
def test_a_plans_variables_are_not_the_launchers(tmp_path: Path, access: LiveAccess, *, keeps: bool) -> None:
    """What a plan tells the loader is heard inside alone: whoever builds the walls is not made to load it."""
    with program_house(tmp_path) as house:
        env = {"LD_DEBUG": "libs", "LD_DEBUG_OUTPUT": f"{tmp_path}/state/loaded"}
        keep = ready_when(output="here") if keeps else None
        done = house.perform(shell("echo $LD_DEBUG here; sleep 1", access=access, env=env, keep=keep))
        assert (done.state, done.fault) == (EffectState.DONE, None)
        assert "libs here\n" in house.output()
        assert list(tmp_path.glob("state/loaded*")) == []


@pytest.mark.sandbox
@pytest.mark.parametrize("access", list(LiveAccess))
def test_a_secret_is_no_variable_of_the_launcher(tmp_path: Path, access: LiveAccess) -> None:
    """Only the program itself has a secret among its variables."""
    with program_house(tmp_path) as house:
        script = f"echo here; sleep 20; : {tmp_path.name}"
        done = house.perform(shell(script, access=access, env={"T": "secret://token"}, keep=ready_when(output="here")))
        assert done.fault is None
        pids = [Path("/proc", line.partition(":")[0]) for line in alive(tmp_path.name)]
        launchers = [pid for pid in pids if _read(pid / "comm") == b"bwrap\n" and b"--args" in _read(pid / "cmdline")]
        assert launchers != []
        assert [pid for pid in launchers if TOKEN.encode() in _read(pid / "environ")] == []


def _read(path: Path) -> bytes:
    with suppress(OSError):
        return path.read_bytes()
    return b""


@pytest.mark.sandbox
@pytest.mark.skipif(os.geteuid() != 0, reason="the files of /proc/sys are root's")
@pytest.mark.parametrize("view", [View(offline=True), View(whole=True)])
def test_a_child_changes_nothing_of_the_kernel(tmp_path: Path, view: View) -> None:
    """Under root a child owns the files of /proc/sys; one of them names a program that the kernel starts as root."""
    confinement = Confinement(launcher=find_launchers().bwrap, covered=(str(tmp_path),))
    script = "import os; os.open('/proc/sys/kernel/core_pattern', os.O_WRONLY)"
    command = [*confinement.arguments(view), sys.executable, "-c", script]
    tried = subprocess.run(command, check=False, capture_output=True)
    assert b"Read-only file system" in tried.stderr


@pytest.mark.parametrize("address", ["::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "::10.0.0.1", "fec0::1"])
def test_no_spelling_of_a_private_address_is_public(address: str) -> None:
    """Whatever form a name server gives an inner address in."""
    with pytest.raises(StepBlockedError, match="not a public one"):
        pin(parse_url("http://any.test/"), (), lookup=lambda *_: (address,))


@pytest.fixture
def silent() -> Iterator[int]:
    """A port, at every address of the loopback, where a connection is neither taken nor refused."""
    with ExitStack() as held:
        listener = held.enter_context(socket.socket())
        listener.bind(("0.0.0.0", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        for _ in range(4):
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield port


def test_hosts_that_do_not_answer_hold_nothing_up(silent: int) -> None:
    """A name with many addresses that swallow every connection: a run ends when it ends, not when all were tried."""
    many = tuple(f"127.0.0.{number}" for number in range(1, 60))
    proxy = Proxy(
        lambda url, cancel: pin(url, ("127.0.0.0/8",), lookup=lambda *_: many, cancel=cancel),
        ports=frozenset((silent,)),
    )
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as clients:
        with proxy.serve(listener.dup()):
            for _ in range(8):
                client = clients.enter_context(socket.create_connection(listener.getsockname(), timeout=5))
                client.sendall(f"CONNECT listed.test:{silent} HTTP/1.1\r\n\r\n".encode())
            time.sleep(0.5)
            began = time.monotonic()
        assert time.monotonic() - began < 3
    assert [one.name for one in threading.enumerate() if one.name.startswith("proxy")] == []


def test_what_a_match_shows_is_bounded(tmp_path: Path) -> None:
    """However a page is written: as one long word, or so that a secret stands where the text is cut."""
    with fetch_house(tmp_path) as house:
        index = Bodies(tmp_path / "other.db", lambda: ())
        long = b"x" * (2 << 20) + b" needle " + b"y" * (2 << 20)
        index.keep(Page(workspace_id="site", url="http://ok.test/", digest="sha256:0"), long)
        cut = b"needle " + b"z" * (MOST_SHOWN - 12) + b" " + TOKEN.encode()
        index.keep(Page(workspace_id="site", url="http://ok.test/cut", digest="sha256:1"), cut)
        found = index.search(SearchBodies(query="needle", limit=5), house.setting(FETCH))
        index.close()
    assert len(found.matches) == 2
    assert max(len(match.text) for match in found.matches) < MOST_SHOWN + 60
    assert TOKEN[:5] not in repr(found.matches)


@pytest.mark.parametrize("charset", ["punycode", "idna", "unicode_escape", "raw_unicode_escape", "zlib", "utf-7", "x"])
def test_a_far_side_chooses_no_decoder_of_another_kind(charset: str) -> None:
    """A charset that is none of a page's, such as one that takes time without end, is not used."""
    assert decoded(b"\\u0041-b1+AGE-", f"text/plain; charset={charset}") == "\\u0041-b1+AGE-"


def test_a_charset_of_pages_is_used() -> None:
    """The usual ones are, by whichever of their names."""
    assert decoded("größe".encode("latin-1"), 'text/html; charset="ISO-8859-1"') == "größe"
    assert decoded("日本".encode("shift_jis"), "text/html;charset=Shift_JIS") == "日本"


@pytest.mark.parametrize("confined", [False, pytest.param(True, marks=pytest.mark.sandbox)])
def test_a_daemon_of_a_server_ends_with_the_step(tmp_path: Path, *, confined: bool) -> None:
    """A server's own child that has left its session is not left behind where the server has ended well."""
    script = f"setsid sh -c 'sleep 300; : {tmp_path.name}' >/dev/null 2>&1 </dev/null & sleep 1"
    with outside_house(tmp_path, _server("/bin/sh", "-c", script)) as house:
        calls = ToolCalls(
            trust=lambda: house.trust.last().trust,
            secrets=house.secrets,
            confinement=house.confinement if confined else None,
        )
        action = CallTool(server="notes", tool="note", arguments="{}")
        with pytest.raises(ExecutorError):
            calls.declare(action, house.setting(action))
        assert alive(tmp_path.name) == []


def test_arguments_that_a_tool_does_not_like_leave_an_unknown_effect(tmp_path: Path) -> None:
    """A tool may complain of what it was given in the middle of its work."""
    with outside_house(tmp_path, _server(sys.executable, str(PARTIAL), str(tmp_path))) as house:
        calls = ToolCalls(trust=lambda: house.trust.last().trust, secrets=house.secrets, confinement=None)
        action = CallTool(server="notes", tool="note", arguments="{}")
        setting = house.setting(action)
        performed = calls.perform(action, calls.declare(action, setting), setting, "x-1-s1")
        assert (performed.state, tmp_path.joinpath("half").exists()) == (EffectState.UNKNOWN, True)


def _server(*command: str) -> str:
    words = ", ".join(f'"{word}"' for word in command)
    return f'[[mcp_servers]]\nname = "notes"\nworkspaces = ["site"]\ntools = ["note"]\ncommand = [{words}]\n'


def test_a_secret_of_other_letters_is_not_sent_in_a_body(tmp_path: Path) -> None:
    """A body is looked through as the bytes that it is."""
    value = "gehe1mer-Schlüssel-äöü".encode()
    with fetch_house(tmp_path) as house:
        action = post("http://ok.test/", content=b"key=" + value)
        setting = replace(house.setting(action), redactor=Redactor((Secret(name="umlaut", value=value),)))
        with pytest.raises(StepBlockedError, match="value of secret umlaut"):
            house.world.declare(action, setting)


def test_a_full_disk_does_not_end_a_programs_supervisor() -> None:
    """What a program says is lost then; that it ended is still told."""
    log = Log(Path("/dev/full"), 1 << 20, {})
    log.take(b"said")
    log.end()


def test_a_log_that_can_not_begin_anew_goes_on_from_its_beginning(tmp_path: Path) -> None:
    """Its length is bounded all the same."""
    place = tmp_path / "output.log"
    place.with_suffix(".old").mkdir()
    log = Log(place, 100, {})
    for number in range(20):
        log.take(b"%d" % (number % 10) * 30)
    log.end()
    assert place.read_bytes() == b"9" * 30


@pytest.mark.sandbox
@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's program has no capability at all")
def test_root_opens_nothing_by_its_number(tmp_path: Path) -> None:
    """A file beneath a cover could be opened by the number of its inode, which needs a capability of its own."""
    with program_house(tmp_path) as house:
        house.perform(shell("grep CapEff /proc/self/status"))
        assert int(house.output().split()[1], 16) & (1 << 2) == 0


@pytest.mark.parametrize("keeps", [False, True])
def test_a_machine_without_room_for_a_process_has_begun_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, keeps: bool
) -> None:
    """That is certain, so that nobody has to say whether it happened; and nothing is on record."""

    def full(*_given: object, **_how: object) -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    with program_house(tmp_path, confined=False) as house:
        monkeypatch.setattr(subprocess, "Popen", full)
        done = house.perform(shell("true", keep=ready_when(output="here") if keeps else None))
        assert (done.state, house.processes.listed()) == (EffectState.NOT_DONE, ())
        assert "no process can be started" in done.summary


@pytest.mark.parametrize("name", ["LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH"])
def test_nothing_is_loaded_before_a_program_begins(tmp_path: Path, name: str) -> None:
    """Code in the shell that says so could have an effect, and have it told that nothing began."""
    with program_house(tmp_path, confined=False) as house, pytest.raises(StepBlockedError, match=name):
        house.perform(shell("true", env={name: str(tmp_path)}))


@pytest.mark.sandbox
def test_no_other_workspace_is_changed(tmp_path: Path) -> None:
    """Who approves for one workspace has no say about the next."""
    with program_house(tmp_path) as house:
        done = house.perform(shell(f"touch {tmp_path}/another/file"))
        assert "Read-only file system" in done.summary


@pytest.mark.sandbox
@pytest.mark.parametrize("behind", ["link", "key"])
@pytest.mark.parametrize("access", list(LiveAccess))
def test_a_secrets_file_in_the_workspace_is_covered(tmp_path: Path, access: LiveAccess, behind: str) -> None:
    """Wherever the operator has put it, behind a link, too, and though the workspace is laid over what is covered."""
    (tmp_path / "site").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "site")
    file = tmp_path / "site" / "key"
    file.write_text("another-v4lue")
    file.chmod(0o600)
    named = tmp_path / "link" / "key" if behind == "link" else file
    table = f'[[secrets]]\nname = "inner"\nworkspaces = ["site"]\nfile = "{named}"\n'
    with program_house(tmp_path, tables=TABLES + table) as house:
        house.perform(shell("rev key 2>&1 || echo covered", access=access))
        assert house.output().endswith("covered\n")
        assert "eul4v" not in house.output()


@pytest.mark.parametrize("confined", [False, pytest.param(True, marks=pytest.mark.sandbox)])
def test_what_forks_and_goes_is_caught(tmp_path: Path, *, confined: bool) -> None:
    """A chain of processes, each of which lives only until it has started the next, ends with its program."""
    chain = 'n=0; f() { n=$((n + 1)); echo $n > "$T"; [ $n -lt 20000 ] || exit; f & exit; }; f & sleep 0.05'
    trace = tmp_path / "trace"
    with program_house(tmp_path, confined=confined) as house:
        done = house.perform(shell(chain, env={"T": str(trace)}))
        reached = trace.read_text()
        time.sleep(0.05)
        assert (done.state, trace.read_text()) == (EffectState.DONE, reached)


@pytest.mark.parametrize(
    ("access", "confined"),
    [
        (LiveAccess.HOST, False),
        *(pytest.param(access, True, marks=pytest.mark.sandbox) for access in LiveAccess),
    ],
)
def test_a_programs_memory_is_bounded(tmp_path: Path, access: LiveAccess, *, confined: bool) -> None:
    """Each of its processes gets no more than it may have."""
    with program_house(tmp_path, confined=confined) as house:
        house.perform(shell("ulimit -d", access=access))
        assert house.output() == f"{DATA_BYTES >> 10}\n"


@pytest.mark.long
def test_a_program_that_stops_its_supervisor_ends_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without bubblewrap a program can reach who watches it; the executor then ends both."""
    monkeypatch.setattr("executor.outside.supervised.END_SECONDS", 1.0)
    monkeypatch.setattr("executor.outside.supervised.START_SECONDS", 2.0)
    with program_house(tmp_path, confined=False) as house:
        script = f"kill -STOP $PPID; (setsid sh -c 'sleep 300; : {tmp_path.name}' || :) & sleep 300; : {tmp_path.name}"
        done = house.perform(shell(script), seconds=1)
        assert done.state is EffectState.UNKNOWN
    assert eventually(lambda: alive(tmp_path.name) == [], 3)
