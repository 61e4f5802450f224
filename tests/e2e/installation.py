"""A real installation for tests: a state directory, workspaces, both services as processes, the real command."""

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How one `gonogo` command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as JSON."""
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        """Standard error's last line as JSON."""
        return json.loads(self.err.strip().splitlines()[-1])


class Installation:
    """One state directory and the commands on it."""

    def __init__(self, state: Path, workspaces: Mapping[str, Path]) -> None:
        self.state = state
        self.workspaces = dict(workspaces)
        self._up: subprocess.Popen[str] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every command."""
        return {**os.environ, "GONOGO_STATE": str(self.state), "NO_COLOR": "1", "COLUMNS": "160"}

    def run(self, *arguments: str, text: str | None = None, timeout: float = 120) -> Ran:
        """Run one command to its end."""
        process = subprocess.run(
            [sys.executable, "-P", "-m", "client", *arguments],
            env=self.environment,
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Ran(code=process.returncode, out=process.stdout, err=process.stderr)

    def json(self, *arguments: str, text: str | None = None, code: int = 0) -> Any:
        """Run one command with `-o json` and return its answer; the exit code must be `code`."""
        ran = self.run(*arguments, "-o", "json", text=text)
        assert ran.code == code, f"gonogo {' '.join(arguments)} ended with {ran.code}\n{ran.out}\n{ran.err}"
        return ran.json if code == 0 else ran.error

    def start(self, *more: str) -> dict[str, Any]:
        """Start both services, with more options of `gonogo up` where they are given, and return the ready line."""
        options = [word for name, path in self.workspaces.items() for word in ("--workspace", f"{name}={path}")]
        options += more
        self._up = subprocess.Popen(
            [sys.executable, "-P", "-m", "client", "up", *options],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._up.stdout is not None
        readable, _, _ = select.select([self._up.stdout], [], [], START_SECONDS)
        line = self._up.stdout.readline() if readable else ""
        if not line:
            self._up.kill()
            _, errors = self._up.communicate()
            message = f"gonogo up did not become ready:\n{errors}"
            raise AssertionError(message)
        ready: dict[str, Any] = json.loads(line)
        return ready

    @property
    def pid(self) -> int:
        """The process id of `gonogo up`."""
        assert self._up is not None
        return self._up.pid

    def stop(self) -> None:
        """End the services as a person would, with an interrupt."""
        if self._up is None:
            return
        self._up.terminate()
        try:
            self._up.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self._up.kill()
            self._up.communicate()
        self._up = None

    def kill(self) -> None:
        """End the parent without warning; the services must die with it."""
        assert self._up is not None
        self._up.kill()
        self._up.communicate()
        self._up = None

    def service_pids(self) -> list[int]:
        """Return the process ids of the two services, as they wrote them."""
        return [json.loads((self.state / "run" / f"{name}.json").read_text())["pid"] for name in SERVICES]

    def approved(self, plan: str) -> str:
        """Take a plan file's text to an approved mission and return its id."""
        mission: str = self.json("propose", "-f", "-", text=plan)["mission_id"]
        report = self.json("dry-run", mission)
        assert report["status"] == "success", report
        self.json("approve", mission, "--key", str(self.state / "keys" / "approver"), "--yes")
        return mission


SERVICES = ("executor", "orchestrator")


@contextmanager
def installed(folder: Path, *names: str, options: Sequence[str] = ()) -> Iterator[Installation]:
    """Make a state directory with empty workspaces, start the services, and end them afterwards."""
    workspaces = {name: folder / name for name in names or ("site",)}
    for path in workspaces.values():
        path.mkdir(exist_ok=True)
    installation = Installation(folder / "state", workspaces)
    ran = installation.run("init")
    assert ran.code == 0, ran.err
    installation.start(*options)
    try:
        yield installation
    finally:
        installation.stop()


def gone(pid: int, seconds: float = 5) -> bool:
    """Tell whether a process ends within some seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def tree_of(folder: Path) -> dict[str, tuple[Any, ...]]:
    """Return everything a folder holds: kind, mode, times, content."""
    found: dict[str, tuple[Any, ...]] = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        content: object = path.read_bytes() if path.is_file() and not path.is_symlink() else None
        if path.is_symlink():
            content = path.readlink()
        found[str(path.relative_to(folder))] = (info.st_mode, info.st_mtime_ns, content)
    return found
