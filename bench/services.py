"""The real services for a benchmark: an own state directory, an own workspace, both processes, one client."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Two running services."""

    state: Path
    workspace: Path
    pid: int
    executor_pid: int


@contextmanager
def running_services() -> Iterator[Services]:
    """Start both services on fresh folders; end them and remove the folders afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="gonogo-bench-"))
    state, workspace = folder / "state", folder / "work"
    workspace.mkdir()
    environment = {**os.environ, "GONOGO_STATE": str(state)}
    gonogo = [sys.executable, "-m", "client"]
    subprocess.run([*gonogo, "init"], env=environment, check=True, stdout=subprocess.DEVNULL)
    up = subprocess.Popen(
        [*gonogo, "up", "--workspace", f"work={workspace}"], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        if up.stdout is None or not up.stdout.readline():
            message = "the services did not start"
            raise RuntimeError(message)
        executor = json.loads((state / "run" / "executor.json").read_text())
        yield Services(state=state, workspace=workspace, pid=up.pid, executor_pid=executor["pid"])
    finally:
        up.terminate()
        up.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)
