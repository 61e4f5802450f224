"""The proxy that sandboxed programs have for a network: it lets through to listed hosts and tells what it let through.

A program in the sandbox has one port on its own loopback (`executor.sandbox.gateway`), and this is what answers there.
It takes `CONNECT host:port`, which it never looks into, and plain requests with a whole URL. A host must be on the
lists of the plan's scope and of the trust file; its name is looked up once, here, and the connection goes to one of
the addresses that were judged. Addresses in place of names, ports beside the usual two, names of users and whatever
could be read in two ways get 403 and the reason.

What a tunnel carries nobody sees: a host that is listed can be told anything. So every host that was reached is written
down with what went each way, and so is every refusal.
"""

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from executor.domain.cancel import Cancel
from executor.domain.errors import ExecutorError
from executor.outside.addresses import NetworkRefusedError, Pinned, Url
from executor.outside.exchange import Bounds, NotSentError, connected
from executor.outside.proxy_diary import Diary
from executor.outside.proxy_request import USUAL_PORTS, Request, read_request, refused
from gonogo.safe_text import safe_line

_CONNECT_SECONDS: Final = 20.0
"""For all of a host's addresses together."""
_BLOCK: Final = 1 << 16
_LOOK_SECONDS: Final = 1.0
_JOIN_SECONDS: Final = 15.0

Reach = Callable[[Url, Cancel], Pinned]
"""Returns where a URL may be connected to; raises ExecutorError where it may not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyLimits:
    """What one run may use."""

    at_once: int = 64
    connections: int = 10_000
    bytes_carried: int = 1 << 30
    """Both ways together."""
    idle_seconds: float = 120.0


class Proxy:
    """Serves the connections of one run; the port `executor.sandbox.sandbox.Gateway`.

    Args:
        reach: decides about each URL, with everything that holds at that moment.
        limits: what the run may use.
        ports: those that may be named.
        diary: gets what is reached and refused.
    """

    def __init__(
        self,
        reach: Reach,
        *,
        limits: ProxyLimits = ProxyLimits(),
        ports: frozenset[int] = USUAL_PORTS,
        diary: Diary | None = None,
    ) -> None:
        self.diary = Diary() if diary is None else diary
        self._reach = reach
        self._limits = limits
        self._ports = ports
        self._connections = 0

    @contextlib.contextmanager
    def serve(self, listener: socket.socket) -> Iterator[None]:
        """Serve until the context ends; then every connection is closed, and every thread has ended."""
        cancel = Cancel()
        threads: list[threading.Thread] = []
        accepting = threading.Thread(target=self._accept, args=(listener, cancel, threads), name="proxy", daemon=True)
        accepting.start()
        try:
            yield
        finally:
            cancel.request()
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes the one who accepts
            until = time.monotonic() + _JOIN_SECONDS
            accepting.join(_JOIN_SECONDS)
            listener.close()
            for thread in threads:
                thread.join(max(0.0, until - time.monotonic()))

    def _accept(self, listener: socket.socket, cancel: Cancel, threads: list[threading.Thread]) -> None:
        slots = threading.Semaphore(self._limits.at_once)
        listener.settimeout(None)
        while not cancel.requested:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threads[:] = [one for one in threads if one.is_alive()]
            self._connections += 1
            if self._connections > self._limits.connections or not slots.acquire(blocking=False):
                self.diary.refuse("more connections than one run may have")
                client.close()
                continue
            thread = threading.Thread(
                target=self._served, args=(client, cancel, slots), name="proxy-connection", daemon=True
            )
            threads.append(thread)
            thread.start()

    def _served(self, client: socket.socket, cancel: Cancel, slots: threading.Semaphore) -> None:
        try:
            with client, cancel.calling(lambda: _shut(client)), contextlib.suppress(OSError):
                self._answer(client, cancel)
        finally:
            slots.release()

    def _answer(self, client: socket.socket, cancel: Cancel) -> None:
        with contextlib.ExitStack() as held:
            try:
                request = read_request(client, self._ports)
                client.settimeout(_CONNECT_SECONDS)
                server = held.enter_context(self._connected(request, cancel))
            except NetworkRefusedError as error:
                self.diary.refuse(error.fault.message)
                _say(client, "403 Forbidden", f"{error.fault.message}; {error.fault.remedy}")
                return
            except ExecutorError as error:
                self.diary.refuse(error.fault.message)
                _say(client, "502 Bad Gateway", error.fault.message)
                return
            with cancel.calling(lambda: _shut(server)):
                self._carry(request, client, server, cancel)

    @contextlib.contextmanager
    def _connected(self, request: Request, cancel: Cancel) -> Iterator[socket.socket]:
        """Connect to the addresses that were judged, and to none that is looked up again."""
        if self.diary.carried >= self._limits.bytes_carried:
            raise refused(f"the run has carried {self._limits.bytes_carried} bytes, which is the most")
        pinned = self._reach(request.url, cancel)
        bounds = Bounds(deadline=time.monotonic() + _CONNECT_SECONDS, body_bytes=0, cancel=cancel)
        with contextlib.ExitStack() as held:
            try:
                server = held.enter_context(connected(pinned, bounds))
            except NotSentError as error:  # what it says of addresses is not the program's business
                where = f"{request.url.host}:{request.url.port}"
                raise NotSentError(error.fault.reason, f"{where} can not be connected to", error.fault.remedy) from None
            yield server

    def _carry(self, request: Request, client: socket.socket, server: socket.socket, cancel: Cancel) -> None:
        if request.tunnel:
            client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        first = request.body if request.length is None else request.body[: request.length]
        left = None if request.length is None else request.length - len(first)
        traffic = self.diary.opened(request.url)
        up = _Way(client, server, count=lambda moved: self.diary.count(traffic, sent=moved), left=left)
        up.waiting = request.head + first
        down = _Way(server, client, count=lambda moved: self.diary.count(traffic, received=moved))
        for side in (client, server):
            side.setblocking(False)
        with selectors.DefaultSelector() as selector:
            self._pump(selector, up, down, cancel)

    def _pump(self, selector: selectors.BaseSelector, up: "_Way", down: "_Way", cancel: Cancel) -> None:
        """Carry both ways until the server has said everything, or until a limit."""
        moved = time.monotonic()
        while not (down.done or cancel.requested):
            _wait_for(selector, up, down)
            if selector.select(_LOOK_SECONDS):
                moved = time.monotonic()
            elif time.monotonic() - moved > self._limits.idle_seconds:
                return
            up.move()
            down.move()
            if self.diary.carried >= self._limits.bytes_carried:
                self.diary.refuse(f"the run has carried {self._limits.bytes_carried} bytes, which is the most")
                return


class _Way:
    """One of a connection's two ways; `left` bytes may still be read from its source, None for any number."""

    def __init__(
        self, source: socket.socket, target: socket.socket, *, count: Callable[[int], None], left: int | None = None
    ) -> None:
        self.source = source
        self.target = target
        self.waiting = b""
        self.done = False
        self._count = count
        self._left = left

    @property
    def wants_to_read(self) -> bool:
        return not self.waiting and not self.done and self._left != 0

    def move(self) -> None:
        """Read one block where nothing waits, and write as much of it as goes."""
        with contextlib.suppress(BlockingIOError):
            if self.wants_to_read:
                chunk = self.source.recv(_BLOCK if self._left is None else min(_BLOCK, self._left))
                if not chunk:
                    self._end()
                self.waiting = chunk
                self._left = None if self._left is None else self._left - len(chunk)
            if self.waiting:
                written = self.target.send(self.waiting)
                self._count(written)
                self.waiting = self.waiting[written:]

    def _end(self) -> None:
        self.done = True
        with contextlib.suppress(OSError):
            self.target.shutdown(socket.SHUT_WR)


def _wait_for(selector: selectors.BaseSelector, *ways: _Way) -> None:
    """Have the selector look for what can go on: reading where nothing waits, writing where something does."""
    wanted: dict[socket.socket, int] = {}
    for way in ways:
        if way.wants_to_read:
            wanted[way.source] = wanted.get(way.source, 0) | selectors.EVENT_READ
        if way.waiting:
            wanted[way.target] = wanted.get(way.target, 0) | selectors.EVENT_WRITE
    for known in [key.fileobj for key in selector.get_map().values()]:
        selector.unregister(known)
    for connection, events in wanted.items():
        selector.register(connection, events)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _say(client: socket.socket, status: str, text: str) -> None:
    body = f"gonogo: {safe_line(text)}\n".encode()
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    client.sendall(head.encode("ascii") + body)
