"""`gonogo up` with stand-in services: started in order, announced once, ended together."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from client import services
from client.errors import ClientError
from client.initialise import initialise
from client.state import StateDirectory
from client.up import default_tools, read_pairs

SERVICE = """
import json, os, signal, sys, time
name = os.path.basename(os.path.dirname(__file__)) if __file__.endswith("__main__.py") else "service"
arguments = sys.argv[1:]
print("started", name, json.dumps(arguments), flush=True)
mode = os.environ.get("STAND_IN_" + name.upper(), "")
if mode == "tells":
    print(json.dumps({"reason": "LOCKED", "message": "the ledger is locked", "remedy": "unlock it"}), file=sys.stderr)
    sys.exit(1)
if mode == "fails":
    print("the disk is full", file=sys.stderr)
    sys.exit(4)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
ready = arguments[arguments.index("--ready-file") + 1]
with open(ready + ".new", "w") as file:
    json.dump({"address": "127.0.0.1:1", "pid": os.getpid()}, file)
os.replace(ready + ".new", ready)
deadline = time.monotonic() + (0.5 if mode == "dies" else 30)
while time.monotonic() < deadline:
    time.sleep(0.02)
print("last words", flush=True)
sys.exit(3)
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start `gonogo up` on a fresh state with stand-in services first on Python's path."""
    state = initialise(StateDirectory(root=tmp_path / "state")).state
    for name in ("executor", "orchestrator"):
        package = tmp_path / "services" / name
        package.mkdir(parents=True)
        (package / "__main__.py").write_text(SERVICE)
        (package / "__init__.py").touch()
    (tmp_path / "site").mkdir()
    started: list[subprocess.Popen[str]] = []

    def run(**modes: str) -> "subprocess.Popen[str]":
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "services"), "GONOGO_STATE": str(state.root)}
        environment |= {f"STAND_IN_{name.upper()}": mode for name, mode in modes.items()}
        argv = [sys.executable, "-P", "-m", "client", "up", "--workspace", f"site={tmp_path / 'site'}", "-o", "json"]
        process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=30)


def ready(process: "subprocess.Popen[str]") -> Any:
    """Return the ready line."""
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def ended(pid: int) -> bool:
    """Tell whether a process is gone or only waits to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_one_ready_line_then_a_clean_end(start: Start, tmp_path: Path) -> None:
    """The line and ready.json agree; SIGTERM ends both services and the command with 0."""
    process = start()
    line = ready(process)
    written = json.loads((tmp_path / "state/run/ready.json").read_text())
    assert line == {"ready": True, **written, "ladder_level": None}
    assert written == {"executor": "127.0.0.1:1", "orchestrator": "127.0.0.1:1", "pid": process.pid}
    pids = [
        json.loads((tmp_path / f"state/run/{name}.json").read_text())["pid"] for name in ("executor", "orchestrator")
    ]
    process.terminate()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")
    assert all(ended(pid) for pid in pids)
    assert not (tmp_path / "state/run/ready.json").exists()


def test_services_are_started_with_what_was_asked_for(start: Start, tmp_path: Path) -> None:
    """Workspace, tools and the executor's address are handed on, and each service dies with its parent."""
    process = start()
    ready(process)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    executor = (tmp_path / "state/run/executor.log").read_text()
    orchestrator = (tmp_path / "state/run/orchestrator.log").read_text()
    assert f'"--workspace", "site={tmp_path / "site"}"' in executor
    assert all(f'"--tools", "{tool}"' in executor for tool in default_tools())
    assert '"serve"' in orchestrator
    assert '"--executor", "127.0.0.1:1"' in orchestrator
    assert "--die-with-parent" in executor
    assert "--die-with-parent" in orchestrator
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("modes", "words"),
    [
        ({"executor": "fails"}, "the disk is full"),
        ({"orchestrator": "fails"}, "the disk is full"),
        ({"executor": "dies"}, "last words"),
        ({"orchestrator": "tells"}, "the ledger is locked [LOCKED]"),
    ],
)
def test_a_service_that_ends_takes_everything_along(start: Start, modes: dict[str, str], words: str) -> None:
    """The error tells the service's last words; nothing goes on running."""
    process = start(**modes)
    _, err = process.communicate(timeout=30)
    error = json.loads(err)
    assert (process.returncode, error["code"], error["reason"]) == (1, 1, "SERVICE_DIED")
    assert words in error["message"]
    assert next(iter(modes)) in error["message"]


def test_a_service_that_was_killed_has_nothing_to_correct(tmp_path: Path) -> None:
    """It is started again, and the error says what becomes of the missions."""
    service = services.start("service", ["timeit", "-n1", "import time; time.sleep(30)"], tmp_path)
    service.process.kill()
    service.process.wait()
    error = service.died()
    assert error.message.startswith("the service was killed by signal 9")
    assert "start gonogo up again" in error.remedy


def test_a_second_up_on_the_same_state_is_refused(start: Start) -> None:
    """The first goes on; its ready file stays."""
    first = start()
    ready(first)
    second = start()
    _, err = second.communicate(timeout=30)
    assert (second.returncode, json.loads(err)["reason"]) == (1, "STATE_LOCKED")
    time.sleep(0.1)
    assert first.poll() is None


def test_a_state_is_free_again_after_its_up_was_killed(start: Start) -> None:
    """The lock goes with the process, however it went."""
    first = start()
    ready(first)
    first.kill()
    first.communicate(timeout=30)
    assert ready(start())["ready"] is True


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("site", "USAGE"),
        ("=/tmp", "USAGE"),
        ("a/b=/tmp", "USAGE"),
        ("site=", "USAGE"),
        ("site=/no/such", "WORKSPACE_INVALID"),
    ],
)
def test_a_workspace_is_an_id_and_a_directory(value: str, reason: str) -> None:
    """Everything else is refused before anything is started."""
    with pytest.raises(ClientError) as refused:
        read_pairs([value], "--workspace")
    assert (refused.value.reason, bool(refused.value.remedy)) == (reason, True)


def test_an_id_given_twice_is_refused(tmp_path: Path) -> None:
    """Which of the two was meant is not guessed."""
    with pytest.raises(ClientError, match="given twice"):
        read_pairs([f"site={tmp_path}", f"site={tmp_path}"], "--workspace")
