"""What the executor's own program does with the trust file, run as a process of its own.

The client reads no trust file by rules of its own: the program that decides by it says what it says, and what it would
take. That works on the executor's host alone, whether the executor runs or not.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from client.errors import ClientError
from client.services import told_error
from client.state import StateDirectory

ERROR_LINES = 3
REMEDY = "run this on the executor's host, where its package and its trust file are"


def trust_text(state: StateDirectory, arguments: Sequence[str]) -> str:
    """Run a command about the trust file and return what it says.

    Raises:
        ClientError: it refused, or could not be run.
    """
    argv = [sys.executable, "-P", "-m", "executor", "trust", *arguments, "--state", str(state.root)]
    done = subprocess.run(argv, capture_output=True, check=False)
    if done.returncode:
        raise _failed(arguments[0], done.stderr.decode("utf-8", "replace"))
    return done.stdout.decode("utf-8", "replace").rstrip("\n")


def trust_json(state: StateDirectory, arguments: Sequence[str]) -> dict[str, Any]:
    """Run a command about the trust file and return the object that it prints.

    Raises:
        ClientError: it refused, could not be run, or printed something else.
    """
    text = trust_text(state, [*arguments, "-o", "json"])
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ClientError("INTERNAL", f"trust {arguments[0]} printed no object", REMEDY)
    return found


def _failed(command: str, errors: str) -> ClientError:
    told = told_error(errors)
    if told is not None:
        return told
    lines = errors.strip().splitlines()[-ERROR_LINES:]
    return ClientError("INTERNAL", f"trust {command} failed: {' '.join(lines) or 'no output'}", REMEDY)
