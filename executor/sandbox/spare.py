"""A holder kept ready for the next session: the part of its start that is the same for all is then done already.

It is started when a session has ended, a moment later, so that the answer to that session's caller is not held up. A
holder sees the mounts that were there when it started; one that is older than the machine's present mounts is not used.
"""

import contextlib
import threading
import time
from pathlib import Path

from executor.domain.errors import ExecutorError
from executor.sandbox.holder import Holder, Launchers

_MOUNT_TABLE = Path("/proc/self/mountinfo")
_PAUSE_SECONDS = 0.003


class SpareHolder:
    """At most one holder at a time. Thread safe; closed once, when no session is opened any more."""

    def __init__(self, launchers: Launchers) -> None:
        self._launchers = launchers
        self._lock = threading.Lock()
        self._holder: Holder | None = None
        self._mounts = b""
        self._closed = False

    def take(self) -> Holder | None:
        """The spare one, now the caller's; None where there is none that is as good as a new one."""
        with self._lock:
            holder, self._holder = self._holder, None
            if holder is None:
                return None
            if holder.alive and self._mounts == _MOUNT_TABLE.read_bytes():
                return holder
        holder.close()
        return None

    def refill(self) -> None:
        """Has a new one started in the background, where there is none."""
        if self._holder is None and not self._closed:
            threading.Thread(target=self._start, name="spare-holder", daemon=True).start()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            holder, self._holder = self._holder, None
        if holder is not None:
            holder.close()

    def _start(self) -> None:
        time.sleep(_PAUSE_SECONDS)
        # Whoever opens a session meanwhile waits here: this start is ahead of one of its own.
        with self._lock, contextlib.suppress(ExecutorError, OSError):  # a session that then starts its own says why
            if self._holder is None and not self._closed:
                self._mounts = _MOUNT_TABLE.read_bytes()
                self._holder = Holder.for_any_session(self._launchers)
