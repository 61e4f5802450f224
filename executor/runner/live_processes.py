"""Programs that live steps have started and that keep running, as the runner knows them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

MOST_LISTED = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveProcess:
    """One program."""

    process_id: str
    mission_id: str
    step_id: str
    workspace_id: str
    command: str
    """Program and arguments as a list in text."""
    started_at: datetime
    running: bool
    ended: str
    """How it ended, in words; empty while it runs."""


class Processes(Protocol):
    """Knows the programs that keep running, whichever executor process started them."""

    def listed(self, mission_id: str = "") -> Sequence[LiveProcess]:
        """Return the programs, the newest first, at most `MOST_LISTED`.

        Args:
            mission_id: of this mission only; empty means all.
        """
        ...

    def stop(self, request_id: str, process_id: str, actor: str) -> LiveProcess:
        """End a program with everything that it started, and return it as it is then.

        It is asked to end first, and killed where it does not. One that has ended stays as it is. The same request
        again has the same answer.

        Raises:
            NotFoundError: there is no such program.
            RequestMalformedError: REQUEST_REUSED: the request's id stands for another one.
            ExecutorError: STATE_FORBIDS: it can not be ended.
        """
        ...
