"""A wish that what runs should end, from any thread to any thread."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Cancel:
    """Tells once, and for good, that something shall end. Every method may be called from any thread."""

    def __init__(self) -> None:
        self._requested = False
        self._calls: dict[object, Callable[[], None]] = {}
        self._lock = threading.Lock()

    @property
    def requested(self) -> bool:
        """Whether it shall end."""
        return self._requested

    def request(self) -> None:
        """Have everything end that listens, now and later."""
        with self._lock:
            self._requested = True
            calls = tuple(self._calls.values())
        for call in calls:
            call()

    @contextmanager
    def calling(self, call: Callable[[], None]) -> Iterator[None]:
        """Have `call` called, at once or from another thread, when the wish comes while the block runs.

        It must not block, and be harmless when what it ends has ended.
        """
        key = object()
        with self._lock:
            self._calls[key] = call
            requested = self._requested
        try:
            if requested:
                call()
            yield
        finally:
            with self._lock:
                del self._calls[key]


NEVER = Cancel()
"""For what nobody can stop."""
