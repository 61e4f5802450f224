"""What the orchestrator's own program does on a state directory, run as a process of its own.

The client knows nothing of the log's form; it starts the program that does and passes its answer on.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from shutil import copyfileobj
from tempfile import TemporaryFile
from typing import Any, BinaryIO, cast

from client.errors import ClientError
from client.services import told_error
from client.state import StateDirectory

ERROR_LINES = 3
REMEDY = "gonogo doctor shows what is wrong with this state directory"


def pass_through(state: StateDirectory, command: str, out: BinaryIO) -> None:
    """Run a command of the orchestrator and hand its output on as it comes.

    Raises:
        ClientError: it failed.
        BrokenPipeError: whoever read the output has gone; the command was ended.
    """
    with (
        TemporaryFile() as errors,
        subprocess.Popen(_argv(state, [command]), stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        try:
            copyfileobj(cast("BinaryIO", process.stdout), out)
            out.flush()
        except BrokenPipeError:
            process.kill()
            raise
        if process.wait():
            errors.seek(0)
            raise _failed(command, errors.read())


def read_json(state: StateDirectory, command: str, *arguments: str) -> dict[str, Any]:
    """Run a command of the orchestrator, with further arguments, and return the object it prints.

    Raises:
        ClientError: it failed, or printed something else.
    """
    done = subprocess.run(_argv(state, [command, "-o", "json", *arguments]), capture_output=True, check=False)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise _failed(command, done.stderr) from None
    if not isinstance(found, dict):
        raise _failed(command, done.stderr)
    return found


def _argv(state: StateDirectory, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-P", "-m", "orchestrator", *arguments, "--state", str(state.require().root)]


def _failed(command: str, stderr: bytes) -> ClientError:
    text = stderr.decode("utf-8", "replace").strip()
    told = told_error(text)
    if told is not None:
        return told
    lines = text.splitlines()[-ERROR_LINES:]
    return ClientError("INTERNAL", f"{command} failed: {' '.join(lines) or 'no output'}", REMEDY)
