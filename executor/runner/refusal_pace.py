"""How many refusals one orchestrator can have recorded: each is a row, an entry of the audit log and a commit.

Whoever may call could fill the disk with them, and wear it out. So each caller has a bucket of refusals that fills up
again by itself. While it is empty the caller's executions are answered OVERLOADED before anything is looked up, and
nothing of them is recorded; what they would have been refused for is lost, and that there were any, is in the service
log. Nobody who is refused by chance comes near it, and whoever does keeps nobody else waiting.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from executor.domain.errors import ExecutorError

AT_ONCE: Final = 2_000
PER_SECOND: Final = 200.0
LOG_SECONDS: Final = 10.0
CALLERS: Final = 256
"""Those of the trust file, which are few; whoever was refused longest ago is forgotten first."""

log = logging.getLogger(__name__)


class RefusalPace:
    """A bucket for each caller. Every method may be called from any thread.

    Args:
        now: a clock in seconds that never goes back.
        at_once: how many refusals are recorded at once.
        per_second: how many are recorded in a second in the long run.
    """

    def __init__(
        self, now: Callable[[], float] = time.monotonic, *, at_once: int = AT_ONCE, per_second: float = PER_SECOND
    ) -> None:
        self._now = now
        self._at_once = float(at_once)
        self._per_second = per_second
        self._left: dict[str, tuple[float, float]] = {}
        self._turned_away = 0
        self._next_line = 0.0
        self._lock = threading.Lock()

    def check(self, caller: str) -> None:
        """Let a caller in who was not refused too often of late.

        Raises:
            ExecutorError: reason OVERLOADED.
        """
        known = self._left.get(caller)
        if known is None:
            return  # as nearly everybody
        with self._lock:
            now = self._now()
            if self._filled(known, now) >= 1:
                return
            self._turned_away += 1
            self._tell(caller, now)
        raise ExecutorError(
            "OVERLOADED",
            "this orchestrator was refused more often than refusals are recorded",
            "try again in a second; find out why what it sends is refused",
        )

    def refused(self, caller: str) -> None:
        """Count a refusal that is about to be recorded."""
        with self._lock:
            now = self._now()
            left = self._filled(self._left.pop(caller, (self._at_once, now)), now)
            self._left[caller] = (max(left - 1, 0.0), now)
            if len(self._left) > CALLERS:
                del self._left[next(iter(self._left))]

    def _filled(self, known: tuple[float, float], now: float) -> float:
        left, since = known
        return min(self._at_once, left + (now - since) * self._per_second)

    def _tell(self, caller: str, now: float) -> None:
        if now < self._next_line:
            return
        log.warning("%s is refused too often: %d calls were turned away unrecorded", caller, self._turned_away)
        self._turned_away, self._next_line = 0, now + LOG_SECONDS
