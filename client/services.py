"""Child processes of `gonogo up`: one service each, ready when it says so, stopped before its parent ends."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.errors import ClientError

READY_TIMEOUT = 60.0
STOP_TIMEOUT = 15.0
POLL = 0.02
LAST_LINES = 15
STARTED_AGAIN = "start gonogo up again: every mission is found where it was left, and nothing is run again by itself"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One running service."""

    name: str
    process: subprocess.Popen[bytes]
    ready_file: Path
    log: Path

    def last_lines(self) -> str:
        """Return the end of its log."""
        lines = self.log.read_text("utf-8", "replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-LAST_LINES:])

    def died(self) -> ClientError:
        """Return the error for a service that ended by itself: what it told as its last line, else its last lines."""
        code = self.process.returncode
        end = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        lines = self.last_lines()
        told = told_error(lines)
        if told is not None:
            return ClientError("SERVICE_DIED", f"the {self.name} {end}: {told.message} [{told.reason}]", told.remedy)
        message = f"the {self.name} {end}; its last lines:\n{lines or '(none)'}"
        remedy = STARTED_AGAIN if code < 0 else "correct what it says"
        return ClientError("SERVICE_DIED", message, f"{remedy}; the whole log is {self.log}")


def told_error(output: str) -> ClientError | None:
    """Return the error that a service's program printed as one JSON object in its last line, if it did."""
    try:
        found = json.loads(output.rstrip().rpartition("\n")[2])
        return ClientError(str(found["reason"]), str(found["message"]), str(found["remedy"]))
    except (ValueError, TypeError, KeyError):
        return None


def start(name: str, arguments: Sequence[str], run: Path) -> Service:
    """Start a service from the main thread, which its death signal is bound to."""
    ready_file = run / f"{name}.json"
    ready_file.unlink(missing_ok=True)
    log = run / f"{name}.log"
    # -P: a directory of the workspace that happens to be called like a service is not what is started.
    argv = [sys.executable, "-P", "-m", *arguments, "--ready-file", str(ready_file), "--die-with-parent"]
    with log.open("ab") as out:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    return Service(name=name, process=process, ready_file=ready_file, log=log)


def wait_ready(service: Service, stopped: Callable[[], bool], timeout: float = READY_TIMEOUT) -> str | None:
    """Return the service's address, or None when a stop was asked for first.

    Raises:
        ClientError: it ended, or did not become ready in time.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if stopped():
            return None
        if service.process.poll() is not None:
            raise service.died()
        address = _read_ready(service).get("address")
        if address:
            return str(address)
        time.sleep(POLL)
    message = f"the {service.name} was not ready after {timeout:.0f} s; its last lines:\n{service.last_lines()}"
    raise ClientError("SERVICE_DIED", message, f"correct what it says; the whole log is {service.log}")


def stop(services: Sequence[Service]) -> None:
    """Ask each service to end, the last started first, and end those that do not."""
    for service in reversed(services):
        if service.process.poll() is None:
            service.process.terminate()
        try:
            service.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            service.process.kill()
            service.process.wait()


def _read_ready(service: Service) -> dict[str, Any]:
    try:
        found = json.loads(service.ready_file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("pid") == service.process.pid else {}
