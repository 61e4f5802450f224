"""The real services for a benchmark: an own state directory, own workspaces, both processes, one client."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True, kw_only=True)
class Services:
    """Two running services."""

    folder: Path
    names: Sequence[str]
    _up: "subprocess.Popen[str] | None" = field(default=None)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def workspace(self) -> Path:
        return self.folder / self.names[0]

    @property
    def pid(self) -> int:
        return 0 if self._up is None else self._up.pid

    @property
    def executor_pid(self) -> int:
        return int(json.loads((self.state / "run" / "executor.json").read_text())["pid"])

    def start(self) -> float:
        """Start both; return the seconds until they were ready."""
        command = [sys.executable, "-m", "client", "up"]
        for name in self.names:
            command += ["--workspace", f"{name}={self.folder / name}"]
        began = time.perf_counter()
        self._up = subprocess.Popen(command, env=self._environment, stdout=subprocess.PIPE, text=True)
        if self._up.stdout is None or not self._up.stdout.readline():
            message = "the services did not start"
            raise RuntimeError(message)
        return time.perf_counter() - began

    def restart(self) -> float:
        """Kill both where they are and start them again; return the seconds until they were ready."""
        if self._up is not None:
            self._up.send_signal(signal.SIGKILL)
            self._up.wait()
        time.sleep(1)  # the services die with their parent
        return self.start()

    def stop(self) -> None:
        """End both."""
        if self._up is not None:
            self._up.terminate()
            self._up.wait(timeout=60)

    def initialise(self) -> None:
        """Make workspaces and state."""
        for name in self.names:
            (self.folder / name).mkdir()
        command = [sys.executable, "-m", "client", "init"]
        subprocess.run(command, env=self._environment, check=True, stdout=subprocess.DEVNULL)

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "GONOGO_STATE": str(self.state)}


@contextmanager
def running_services(names: Sequence[str] = ("work",)) -> Iterator[Services]:
    """Start both services on fresh folders; end them and remove the folders afterwards."""
    services = Services(folder=Path(tempfile.mkdtemp(prefix="gonogo-bench-")), names=names)
    try:
        services.initialise()
        services.start()
        yield services
    finally:
        services.stop()
        shutil.rmtree(services.folder, ignore_errors=True)
