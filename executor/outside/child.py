"""The other end of `worker`: what every child does before it reads its first line, and how it reads and answers.

It is started for one step and ends with its standard input. It imports nothing of the executor's but what it needs.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

from executor.outside.process_tree import end_descendants

_DIE_WITH_PARENT: Final = 1
_TAKE_IN_ORPHANS: Final = 36
_DATA_BYTES: Final = 1 << 30
_OPEN_FILES: Final = 1024
_END_SECONDS: Final = 2.0

Answer = Mapping[str, Any]


class Conversation:
    """Lines of JSON from the executor and to it."""

    def __init__(self, fd: int) -> None:
        self._answers = os.fdopen(fd, "wb")

    def hear(self) -> dict[str, Any] | None:
        """Return the next value; None where none comes any more."""
        line = sys.stdin.buffer.readline()
        value = json.loads(line) if line.endswith(b"\n") else None
        return value if isinstance(value, dict) else None

    def say(self, answer: Answer) -> None:
        """Answer."""
        self._answers.write(json.dumps(answer, separators=(",", ":")).encode() + b"\n")
        self._answers.flush()


def fault(reason: str, message: str, remedy: str) -> Answer:
    """Return an answer that says what went wrong before anything was done."""
    return {"fault": {"reason": reason, "message": message, "remedy": remedy}}


def converse(serve: Callable[[Conversation], None]) -> None:
    """Bound this process, and serve.

    What any library prints goes to the standard error: the answers' way is a descriptor that only this module knows.
    """
    bound()
    answers = os.dup(1)
    os.dup2(2, 1)
    try:
        serve(Conversation(answers))
    finally:  # when this process is gone, nobody would know any more whose these were
        end_descendants(_END_SECONDS)


def bound() -> None:
    """Have this process end with the executor, keep what its children leave behind, and use no more than it may."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_DIE_WITH_PARENT, int(signal.SIGKILL), 0, 0, 0)
    prctl(_TAKE_IN_ORPHANS, 1, 0, 0, 0)
    for kind, most in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, _DATA_BYTES),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        hard = resource.getrlimit(kind)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (least, least))
