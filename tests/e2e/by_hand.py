"""Both services started by hand, one by one, as an operator with two machines would: neither dies with the other."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from client.initialise import initialise
from client.state import StateDirectory
from tests.e2e.installation import Installation

START_SECONDS = 60
STOP_SECONDS = 30
POLL_SECONDS = 0.02


class Process:
    """One service's process and what it said."""

    def __init__(self, name: str, arguments: list[str], state: Path) -> None:
        self.name = name
        self.state = state
        self.log = state / "run" / f"{name}.log"
        self.ready_file = state / "run" / f"{name}.json"
        self.ready_file.unlink(missing_ok=True)
        argv = [sys.executable, "-P", "-m", name, *arguments, "--state", str(state)]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [*argv, "--ready-file", str(self.ready_file)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, "GRPC_VERBOSITY": "ERROR"},
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def address(self) -> str:
        """Where it listens; waits until it does."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            if self.ready_file.exists():
                return str(json.loads(self.ready_file.read_text())["address"])
            time.sleep(POLL_SECONDS)
        message = f"the {self.name} did not become ready: {self.log.read_text('utf-8', 'replace')[-2000:]}"
        raise AssertionError(message)

    def kill(self) -> None:
        """End it without warning."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Ask it to end; end it where it does not."""
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()


def start_executor(
    state: Path,
    workspaces: Mapping[str, Path],
    *,
    listen: str = "127.0.0.1:0",
    staging: Mapping[str, Path] | None = None,
    tools: Sequence[Path] = (),
) -> Process:
    """Start the executor and wait until it answers."""
    arguments = [word for name, path in workspaces.items() for word in ("--workspace", f"{name}={path}")]
    arguments += [word for name, path in (staging or {}).items() for word in ("--staging", f"{name}={path}")]
    arguments += [word for path in tools for word in ("--tools", str(path))]
    process = Process("executor", [*arguments, "--listen", listen], state)
    assert process.address
    return process


def start_orchestrator(state: Path, executor: str, *, listen: str = "127.0.0.1:0") -> Process:
    """Start the orchestrator, wait until it answers, and write what the client looks for."""
    process = Process("orchestrator", ["serve", "--executor", executor, "--listen", listen], state)
    ready = {"orchestrator": process.address, "executor": executor, "pid": process.pid}
    (state / "run" / "ready.json").write_text(json.dumps(ready))
    return process


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Both services of one installation; `house` runs commands on it."""

    house: Installation
    executor: Process
    orchestrator: Process


@contextmanager
def pair(
    folder: Path, *, tools: Sequence[Path] = (), site: Path | None = None, staging: Path | None = None
) -> Iterator[Pair]:
    """Make a state directory and the workspace `site` where they are missing; run both services on them."""
    house = prepared(folder, site)
    staged = {"site": staging} if staging else {}
    with ExitStack() as closing:
        executor = start_executor(house.state, house.workspaces, tools=tools, staging=staged)
        closing.callback(executor.stop)
        orchestrator = start_orchestrator(house.state, executor.address)
        closing.callback(orchestrator.stop)
        yield Pair(house=house, executor=executor, orchestrator=orchestrator)


def prepared(folder: Path, site: Path | None = None) -> Installation:
    """Make a state directory and a workspace where they are missing; nothing runs."""
    workspace = site or folder / "site"
    workspace.mkdir(exist_ok=True)
    state = StateDirectory(root=folder / "state")
    if not state.initialised:
        initialise(state)
    return Installation(folder / "state", {"site": workspace})
