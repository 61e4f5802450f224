"""Programs that keep running: started, ready or ended again, listed as they are, stopped with all that they started."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.domain.cancel import Cancel
from executor.domain.errors import NotFoundError, RequestMalformedError
from executor.domain.plan import LiveAccess
from executor.domain.receipt import EffectState
from executor.outside.process_tree import ProcessIdentity
from executor.outside.processes import ProcessStore
from tests.conformance.sandbox_commands import alive, eventually
from tests.unit.executor.network_house import server
from tests.unit.executor.outside_house import TOKEN
from tests.unit.executor.program_house import ProgramHouse, a_program, program_house, ready_when, shell

__all__ = ["server"]  # the fixture

pytestmark = pytest.mark.sandbox
NETWORK, HOST = LiveAccess.NETWORK, LiveAccess.HOST
DAEMON = "trap '' TERM HUP; (setsid sh -c 'trap \"\" TERM HUP; (setsid sleep 300 &) ; sleep 300; : {mark}' &) ; "


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ProgramHouse]:
    with program_house(tmp_path) as found:
        yield found


@pytest.fixture
def mark() -> str:
    return f"mark-{os.getpid()}-{time.monotonic_ns()}"


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def test_a_server_keeps_running_until_it_is_stopped(house: ProgramHouse, port: int) -> None:
    """It is done when its port answers; then it is listed, serves, and is ended by one request, or its repetition."""
    action = a_program(
        "/usr/bin/python3", "-m", "http.server", "--bind", "127.0.0.1", str(port), keep=ready_when(port=port)
    )
    done = house.perform(action)
    assert (done.state, done.fault) == (EffectState.DONE, None)
    one = house.one()
    assert (one.running, one.ended, one.mission_id, one.step_id, one.workspace_id) == (True, "", "m-1", "s1", "site")
    assert "http.server" in one.command
    assert b"file" in urllib.request.urlopen(f"http://127.0.0.1:{port}/").read()
    stopped = house.processes.stop("r-1", one.process_id, "alice")
    assert (stopped.running, stopped.ended) == (False, "ended by signal 15, stopped by alice")
    assert house.processes.stop("r-1", one.process_id, "alice") == stopped
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port))
    with pytest.raises(RequestMalformedError) as caught:
        house.processes.stop("r-1", one.process_id, "bob")
    assert caught.value.fault.reason == "REQUEST_REUSED"
    with pytest.raises(NotFoundError):
        house.processes.stop("r-2", "x-other", "alice")


@pytest.mark.parametrize("access", [NETWORK, HOST])
def test_readiness_by_output_and_by_still_running(house: ProgramHouse, access: LiveAccess) -> None:
    """The text counts wherever it comes; without port and text it is ready when it still runs at the end."""
    by_text = house.perform(
        shell("echo al; sleep 0.3; echo now ready; sleep 60", access=access, keep=ready_when(output="now ready"))
    )
    assert (by_text.fault, by_text.answer is not None and by_text.answer.head) == (None, "al\nnow ready\n")
    assert ("stdout", b"al\n") in house.heard
    still = house.perform(shell("sleep 60", access=access, keep=ready_when(seconds=1)))
    assert still.fault is None
    assert [one.running for one in house.processes.listed()] == [True, True]


@pytest.mark.parametrize("access", [NETWORK, HOST])
def test_a_port_in_the_sandbox_is_seen_from_outside(house: ProgramHouse, access: LiveAccess, port: int) -> None:
    """Of a program in the sandbox the port is its own namespace's; nothing has to enter it."""
    argv = ("/usr/bin/python3", "-m", "http.server", "--bind", "127.0.0.1", str(port))
    done = house.perform(a_program(*argv, access=access, keep=ready_when(port=port)))
    assert done.fault is None


@pytest.mark.parametrize("access", [NETWORK, HOST])
def test_what_is_not_ready_is_ended(house: ProgramHouse, access: LiveAccess, mark: str) -> None:
    """It ran, so it is done; it is not well, and nothing of it is left."""
    late = house.perform(
        shell(f"echo so far; sleep 60; : {mark}", access=access, keep=ready_when(output="x", seconds=1))
    )
    assert late.state is EffectState.DONE
    assert late.fault is not None
    assert (late.fault.reason, "not ready in time; it said: so far" in late.summary) == ("NOT_READY", True)
    assert alive(mark) == []
    gone = house.perform(shell("exit 4", access=access, keep=ready_when(output="x")))
    assert gone.fault is not None
    assert "ended with exit code 4 before it was ready" in gone.fault.message
    assert [one.running for one in house.processes.listed()] == [False, False]


def test_who_goes_to_the_background_is_not_ready(house: ProgramHouse, mark: str) -> None:
    """A daemon whose first process ends is ended with it, however often it forked."""
    done = house.perform(shell(DAEMON.format(mark=mark) + "exit 0", keep=ready_when(seconds=2)))
    assert done.fault is not None
    assert (done.fault.reason, "exit code 0 before it was ready" in done.fault.message) == ("NOT_READY", True)
    assert alive(mark) == []


@pytest.mark.parametrize("confined", [True, False])
def test_a_daemon_does_not_escape_from_being_stopped(
    tmp_path: Path, mark: str, monkeypatch: pytest.MonkeyPatch, *, confined: bool
) -> None:
    """Forked twice, in sessions of their own, deaf to TERM: all of it is gone when the request is answered."""
    monkeypatch.setattr("executor.outside.keeping.GRACE_SECONDS", 0.5)
    with program_house(tmp_path, confined=confined) as house:
        script = DAEMON.format(mark=mark) + f"echo ready; while :; do sleep 1; : {mark}; done"
        assert house.perform(shell(script, keep=ready_when(output="ready"))).fault is None
        assert len(alive(mark)) >= 2
        stopped = house.processes.stop("r-1", house.one().process_id, "alice")
        assert (stopped.running, stopped.ended) == (False, "ended by signal 9, stopped by alice")
        assert alive(mark) == []


def test_it_may_end_well_when_asked(house: ProgramHouse) -> None:
    """A program that listens to TERM puts its things in order first."""
    script = "trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    house.perform(shell(script, keep=ready_when(output="ready")))
    stopped = house.processes.stop("r-1", house.one().process_id, "alice")
    assert stopped.ended == "ended with exit code 5, stopped by alice"
    assert house.processes.log_of(stopped.process_id).read_text().endswith("bye\n")


def test_a_taken_port_is_told_before_anything_starts(house: ProgramHouse) -> None:
    """Nobody could tell whose answer it is."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = house.perform(shell("sleep 60", keep=ready_when(port=taken.getsockname()[1])))
    assert (done.state, done.fault is not None and done.fault.reason) == (EffectState.NOT_DONE, "NOT_READY")
    assert house.processes.listed() == ()


def test_one_effect_is_one_program(house: ProgramHouse) -> None:
    """What an effect has started and still runs is not started again."""
    action = shell("echo ready; sleep 60", keep=ready_when(output="ready"))
    assert house.perform(action, key="x-1-s1").fault is None
    again = house.perform(action, key="x-1-s1")
    assert (again.state, again.fault is not None and again.fault.reason) == (EffectState.NOT_DONE, "STATE_FORBIDS")
    assert len(house.processes.listed()) == 1


def test_a_wish_to_stop_ends_what_is_not_ready_yet(house: ProgramHouse, mark: str) -> None:
    """The effect is unknown then, and nothing of it is left."""
    cancel = Cancel()
    threading.Timer(0.5, cancel.request).start()
    done = house.perform(shell(f"sleep 60; : {mark}", keep=ready_when(output="x", seconds=30)), cancel=cancel)
    assert done.state is EffectState.UNKNOWN
    assert alive(mark) == []


def died(folder: Path, moment: str, access: LiveAccess, script: str) -> None:
    """An executor starts a program and is killed at that moment."""
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-m", "tests.unit.executor.keep_and_die", str(folder), moment, access.value, script],
        cwd=root,
        check=False,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("access", [NETWORK, HOST])
def test_it_outlives_the_executor(tmp_path: Path, mark: str, access: LiveAccess) -> None:
    """The next executor lists it as running, and ends it."""
    died(tmp_path, "ready", access, f"echo ready; sleep 300; : {mark}")
    assert alive(mark)
    with program_house(tmp_path) as house:
        one = house.one()
        assert one.running
        assert not house.processes.stop("r-1", one.process_id, "alice").running
        assert alive(mark) == []


@pytest.mark.parametrize("access", [NETWORK, HOST])
def test_what_is_waited_for_ends_with_the_executor(tmp_path: Path, mark: str, access: LiveAccess) -> None:
    """A program that is not to keep running does not outlive who waits for it."""
    died(tmp_path, "waiting", access, f"(setsid sleep 300 &) ; sleep 300; : {mark}")
    assert eventually(lambda: alive(mark) == [], 5.0)


@pytest.mark.parametrize(("moment", "runs"), [("entered", False), ("introduced", False), ("begun", True)])
def test_an_executor_that_dies_while_it_starts_one(tmp_path: Path, mark: str, moment: str, *, runs: bool) -> None:
    """Nothing runs that is not on record: before that nothing starts, after that it is listed and can be stopped."""
    died(tmp_path, moment, HOST, f"echo ready; sleep 300; : {mark}")
    with program_house(tmp_path) as house:
        if runs:
            assert eventually(lambda: bool(alive(mark)), 3.0)
        else:
            time.sleep(0.5)
            assert eventually(lambda: not house.one().running, 3.0)
        one = house.one()
        assert (one.running, bool(alive(mark))) == (runs, runs)
        house.processes.stop("r-1", one.process_id, "alice")
        assert alive(mark) == []


def test_the_network_comes_back_with_the_executor(tmp_path: Path, server: int) -> None:
    """A program in the sandbox reaches its hosts again once somebody serves them, by the same port."""
    url = f"http://listed.test:{server}/"
    script = f"while :; do curl -sf {url} || echo none; sleep 0.1; done"
    ports = frozenset((80, 443, server))
    with program_house(tmp_path, ports=ports) as house:
        house.perform(shell(script, access=NETWORK, keep=ready_when(output="GET /")))
        log = house.processes.log_of(house.one().process_id)
        house.processes.close()
        assert eventually(lambda: log.read_text().endswith("none\nnone\n"), 3.0)
        next_one = ProcessStore(house.processes.folder, house.processes.doors)
        next_one.start()
        try:
            assert eventually(lambda: f"GET / listed.test:{server}" in log.read_text().rpartition("none")[2], 3.0)
        finally:
            next_one.close()


def test_a_strangers_number_is_not_taken_for_it(house: ProgramHouse) -> None:
    """Another start time, or another boot, under the same number is another process: it is never signalled."""
    house.perform(shell("echo ready; sleep 60", keep=ready_when(output="ready")))
    one = house.one()
    place = house.processes.place(one.process_id) / "record.json"
    true = json.loads(place.read_bytes())
    with subprocess.Popen(["sleep", "60"]) as stranger:
        who = dataclasses.asdict(ProcessIdentity.of(stranger.pid))
        for changed in ({"start": who["start"] + 1}, {"boot": "00000000-0000-0000-0000-000000000000"}):
            place.write_text(json.dumps({**true, **who, **changed}))
            assert (house.one().running, bool(house.one().ended)) == (False, True)
            house.processes.stop("r-1", one.process_id, "alice")
        assert stranger.poll() is None
        stranger.kill()
    place.write_text(json.dumps(true))
    assert house.one().running


def test_a_secret_does_not_get_into_the_log(house: ProgramHouse) -> None:
    """What the program was given is taken out of what it prints before it is written anywhere."""
    script = 'echo "a $T b" ; echo ready; sleep 60'
    done = house.perform(shell(script, env={"T": "secret://token"}, keep=ready_when(output="ready")))
    assert done.fault is None
    everything = b"".join(file.read_bytes() for file in house.processes.folder.rglob("*") if file.is_file())
    assert TOKEN.encode() not in everything
    assert TOKEN not in house.output()


def test_the_log_is_bounded(house: ProgramHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest of what it prints is kept, and no more than there may be."""
    monkeypatch.setattr("executor.outside.keeping.LOG_BYTES", 10_000)
    house.perform(
        shell(
            "i=0; while [ $i -lt 3000 ]; do echo line-$i; i=$((i+1)); done; echo ready; sleep 60",
            keep=ready_when(output="ready"),
        )
    )
    place = house.processes.place(house.one().process_id)
    kept = [file for file in place.iterdir() if file.name.startswith("output")]
    assert sum(file.stat().st_size for file in kept) <= 10_000
    assert (place / "output.log").read_text().endswith("line-2999\nready\n")


def test_a_damaged_record_hides_no_other(house: ProgramHouse) -> None:
    """What can not be read is left out, and left where it is."""
    house.perform(shell("echo ready; sleep 60", keep=ready_when(output="ready")))
    other = house.processes.place("x-damaged")
    other.mkdir()
    (other / "record.json").write_text("{")
    assert house.one().running
    assert other.exists()
