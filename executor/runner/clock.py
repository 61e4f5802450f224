"""Effective time: the wall clock, except that it never runs backwards, not even over a restart."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime


def wall_time() -> datetime:
    return datetime.now(UTC)


class EffectiveClock:
    """Somebody who sets the clock back does not bring an expired approval back to life."""

    def __init__(self, high_water: datetime, wall: Callable[[], datetime] = wall_time) -> None:
        self._latest = high_water
        self._wall = wall
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """Return the latest time seen so far."""
        with self._lock:
            self._latest = max(self._latest, self._wall())
            return self._latest
