"""When a program that keeps running counts as ready: a port answers, its output says so, or it still runs then."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from executor.domain.plan import ReadinessCheck
from executor.runner.outside import Setting

_LOOK_SECONDS: Final = 0.05
_CONNECT_SECONDS: Final = 1.0
_LOOPBACKS: Final = ("127.0.0.1", "::1")
_LISTENS: Final = "0A"
_BLOCK: Final = 1 << 16
_MOST_READ: Final = 4 << 20


class PortTakenError(Exception):
    """Somebody else listens there, so that nobody could tell whether the program does."""


class Output:
    """What a program has written into its log so far, passed on as it comes."""

    def __init__(self, place: Path, setting: Setting) -> None:
        self._place = place
        self._setting = setting
        self._redacted = setting.redactor.stream() if setting.redactor else None
        self._offset = 0
        self.text = bytearray()

    def look(self) -> None:
        """Read what is new. The log begins anew when it is full; what was not read by then is only in the log."""
        with suppress(OSError), self._place.open("rb") as file:
            if self._place.stat().st_size < self._offset:
                self._offset = 0
            file.seek(self._offset)
            while chunk := file.read(_BLOCK):
                self._offset += len(chunk)
                self._take(chunk if self._redacted is None else self._redacted.feed(chunk))

    def _take(self, chunk: bytes) -> None:
        self.text += chunk
        del self.text[:-_MOST_READ]
        if chunk:
            self._setting.on_output("stdout", chunk)


class Readiness:
    """One program's check.

    Args:
        check: the plan's.
        in_sandbox: the port is in a namespace of the program's own.

    Raises:
        PortTakenError: somebody listens on the port already.
    """

    def __init__(self, check: ReadinessCheck, *, in_sandbox: bool) -> None:
        self._check = check
        self._in_sandbox = in_sandbox
        if check.port and not in_sandbox and _answers(check.port):
            raise PortTakenError(f"something listens on port {check.port} already")

    def looks(self) -> Iterator[bool]:
        """Yield now and then until the time is over; True where that is the last time."""
        until = time.monotonic() + max(1, self._check.seconds)
        while (left := until - time.monotonic()) > 0:
            yield False
            time.sleep(min(_LOOK_SECONDS, left))
        yield True

    def holds(self, *, inner: int, said: Callable[[], bool], last: bool) -> bool:
        """Tell whether a program that runs is ready.

        Args:
            inner: its first process where it is in a sandbox.
            said: tells whether the text has come.
            last: the time is over.
        """
        if self._check.port:
            return _listens(inner, self._check.port) if self._in_sandbox else _answers(self._check.port)
        if self._check.output:
            return said()
        return last


def _answers(port: int) -> bool:
    for address in _LOOPBACKS:
        with suppress(OSError), socket.create_connection((address, port), timeout=_CONNECT_SECONDS):
            return True
    return False


def _listens(inner: int, port: int) -> bool:
    """Tell whether somebody listens on a port in a process's network namespace, without entering it."""
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            for line in Path(f"/proc/{inner}/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                    return True
    return False
