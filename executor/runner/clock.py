"""Effective time: the wall clock, except that it never runs backwards, not even over a restart.

A clock that is a little behind the latest time that was seen stands still until the wall clock has caught up: that is
how clocks are corrected. One that is far behind was set, or the machine is a restored copy of itself; whether an
approval still holds can not be told then, so nothing is dry run or executed until the clock is right.
"""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from executor.domain.errors import ExecutorError

TOLERATED = timedelta(seconds=30)


def wall_time() -> datetime:
    return datetime.now(UTC)


class EffectiveClock:
    """Somebody who sets the clock back does not bring an expired approval back to life."""

    def __init__(self, high_water: datetime, wall: Callable[[], datetime] = wall_time) -> None:
        self._latest = high_water
        self._wall = wall
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """Return the latest time seen so far; for what is told, and for what ends work that has begun."""
        with self._lock:
            self._latest = max(self._latest, self._wall())
            return self._latest

    def checked(self) -> datetime:
        """Return the effective time for a decision on whether anything may begin.

        Raises:
            ExecutorError: reason CLOCK_BEHIND; the wall clock is more than 30 seconds behind the latest time seen.
        """
        with self._lock:
            wall = self._wall()
            if self._latest - wall > TOLERATED:
                raise _behind(self._latest, wall)
            self._latest = max(self._latest, wall)
            return self._latest


def _behind(latest: datetime, wall: datetime) -> ExecutorError:
    seconds = round((latest - wall).total_seconds())
    return ExecutorError(
        "CLOCK_BEHIND",
        f"the executor's clock is {seconds} seconds behind the latest time that it has seen, {latest.isoformat()}",
        "set the machine's clock right; where it was ahead by mistake, nothing runs before that time has come again",
    )
