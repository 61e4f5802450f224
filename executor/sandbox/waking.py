"""Waking a thread that waits for descriptors when something is to end."""

import contextlib
import os
import threading
from collections.abc import Iterator

from executor.domain.cancel import NEVER, Cancel


class Waking:
    """A descriptor that becomes readable once it is woken, from any thread, as long as it is open."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._open = True
        self._lock = threading.Lock()

    def wake(self) -> None:
        """Make it readable; later than its end it does nothing, whoever has its number by then."""
        with self._lock:
            if self._open:
                os.eventfd_write(self.fd, 1)

    def close(self) -> None:
        """End it."""
        with self._lock:
            self._open = False
            os.close(self.fd)


@contextlib.contextmanager
def woken_by(cancel: Cancel) -> Iterator[Waking | None]:
    """Hold what becomes readable when something is to end; None for what nobody can stop."""
    if cancel is NEVER:
        yield None
        return
    waking = Waking()
    try:
        with cancel.calling(waking.wake):
            yield waking
    finally:
        waking.close()
