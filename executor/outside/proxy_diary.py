"""What a run reached through the proxy and what it was refused: for the report, the receipt and whoever watches."""

import threading
from dataclasses import dataclass, field
from typing import Final

from executor.outside.addresses import Url
from gonogo.safe_text import safe_line

_SHOWN_REFUSALS: Final = 20
_SHOWN_HOSTS: Final = 100
_SHOWN: Final = 200


@dataclass(slots=True, kw_only=True)
class Traffic:
    """What went to one host and port, and came from it."""

    connections: int = 0
    sent: int = 0
    received: int = 0


@dataclass(slots=True)
class Diary:
    """What a run reached, and what it was refused. Every method may be called from any thread."""

    _reached: dict[str, Traffic] = field(default_factory=dict)
    _refused: dict[str, int] = field(default_factory=dict)
    _unnamed: int = 0
    _carried: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def carried(self) -> int:
        """Bytes, both ways together."""
        with self._lock:
            return self._carried

    def opened(self, url: Url) -> Traffic:
        """Begin a connection; its traffic is then counted by `count`."""
        with self._lock:
            traffic = self._reached.setdefault(f"{url.host}:{url.port}", Traffic())
            traffic.connections += 1
            return traffic

    def count(self, traffic: Traffic, *, sent: int = 0, received: int = 0) -> None:
        """Add to what a connection carried."""
        with self._lock:
            traffic.sent += sent
            traffic.received += received
            self._carried += sent + received

    def refuse(self, why: str) -> None:
        """Write down a refusal."""
        told = safe_line(why)[:_SHOWN]
        with self._lock:
            if told in self._refused or len(self._refused) < _SHOWN_REFUSALS:
                self._refused[told] = self._refused.get(told, 0) + 1
            else:
                self._unnamed += 1

    def reached(self) -> tuple[str, ...]:
        """Tell what was reached, a line for each host and port."""
        with self._lock:
            lines = [
                f"reached {name}: {one.connections} connections, {one.sent} bytes sent, {one.received} received"
                for name, one in sorted(self._reached.items())
            ]
        return _bounded(lines, _SHOWN_HOSTS)

    def refused(self) -> tuple[str, ...]:
        """Tell what was refused, a line for each reason."""
        with self._lock:
            lines = [f"refused, {times} times: {why}" for why, times in sorted(self._refused.items())]
            return (*lines, f"and {self._unnamed} more refusals") if self._unnamed else tuple(lines)

    def lines(self) -> tuple[str, ...]:
        """Tell all of it."""
        return (*self.reached(), *self.refused())


def _bounded(lines: list[str], most: int) -> tuple[str, ...]:
    return tuple(lines) if len(lines) <= most else (*lines[:most], f"and {len(lines) - most} more")
