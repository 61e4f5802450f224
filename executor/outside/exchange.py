"""One request to one far side, and its answer: connected here, spoken by a child that reaches nothing else.

The connection is made by the executor, to an address that was looked at; the child gets the connected socket and no
network of its own, so that whatever an answer does to it, it can talk to nobody else. Until the child is told to send,
nothing of the request has left this machine.
"""

import base64
import errno
import fcntl
import os
import select
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from executor.domain.cancel import Cancel
from executor.domain.errors import StepBlockedError, StepFailedError
from executor.outside.addresses import Pinned
from executor.outside.installed import INSTALL
from executor.outside.worker import Confinement, View, Worker, WorkerGoneError
from gonogo.safe_text import safe_line

WORKER: Final = "executor.outside.http_worker"
TEXT_BYTES: Final = 8 << 20
CONNECT_SECONDS: Final = 10.0
KILL_SECONDS: Final = 2.0
"""How much longer than its time the child gets to say that its time is over."""
_LOOK_SECONDS: Final = 0.1
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
_MOST_AUTHORITIES: Final = 1 << 20
_MOST_SHOWN: Final = 256
_MISSING: Final = "try again; the executor's log says more"


class NotSentError(StepFailedError):
    """Nothing of the request was sent."""


class BrokenOffError(StepFailedError):
    """Sending had begun; how far it came, nobody knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is sent. Values of headers are Latin-1 texts."""

    method: str
    headers: tuple[tuple[str, str], ...]
    content: bytes | None = None
    extract: bool = False
    """Find the readable text of a page."""
    cut: bool = False
    """Shorten a body that is too long; otherwise that is an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back, not yet redacted."""

    status: int
    content_type: str
    location: str
    retry_after: str
    body: bytes
    """Decoded."""
    text: bytes | None
    """The readable text, as UTF-8; None where there is none."""
    cut: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one exchange may take."""

    deadline: float
    """As `time.monotonic` tells it."""
    body_bytes: int
    cancel: Cancel

    @property
    def left(self) -> float:
        """How many seconds there are."""
        return self.deadline - time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """Sends requests."""

    confinement: Confinement | None
    """How children are confined; None where they can not be."""

    def send(self, to: Pinned, request: Request, bounds: Bounds, *, ca_file: str = "") -> Answer:
        """Send one request and return the answer, whatever its status.

        Args:
            to: where.
            request: what.
            bounds: how long and how much.
            ca_file: authorities to believe instead of the system's.

        Raises:
            StepBlockedError: what it needs is not installed.
            NotSentError: nothing was sent.
            BrokenOffError: it was, and no whole answer came.
        """
        check_installed()
        with ExitStack() as closing:
            body = closing.enter_context(_room(bounds.body_bytes))
            text = closing.enter_context(_room(TEXT_BYTES))
            first = _first(to, bounds, body, text, ca_file)
            connection = closing.enter_context(connected(to, bounds))
            answer = self._spoken(first | {"connection": connection.fileno()}, _second(to, request), bounds)
            return _read(answer, body, text, bounds.body_bytes)

    def _spoken(self, first: Mapping[str, Any], second: Mapping[str, Any], bounds: Bounds) -> dict[str, Any]:
        """Have the child make the connection safe, and only then send."""
        sending = False
        try:
            with Worker(
                WORKER,
                seconds=bounds.left + KILL_SECONDS,
                cancel=bounds.cancel,
                view=View(offline=True),
                confinement=self.confinement,
                pass_fds=(first["connection"], first["body"], first["text"]),
            ) as worker:
                _check(worker.ask(first), NotSentError)
                sending = True
                answer = worker.ask(second)
        except WorkerGoneError as error:
            broken = BrokenOffError if sending else NotSentError
            raise broken("FETCH_FAILED", f"the exchange broke off: {error}", _MISSING) from None
        return _check(answer, BrokenOffError)


def check_installed() -> None:
    """Refuse where the packages that the child needs are missing.

    Raises:
        StepBlockedError: says what to install.
    """
    if find_spec("httpx") is None or find_spec("trafilatura") is None:
        raise StepBlockedError("UNSUPPORTED", "this executor is installed without what reaches a network", INSTALL)


@contextmanager
def connected(to: Pinned, bounds: Bounds) -> Iterator[socket.socket]:
    """Hold a connection to the first of the addresses that takes one.

    Raises:
        NotSentError: none does.
    """
    why = "there was no time left"
    for address in to.addresses:
        connection = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        with connection:
            failed = _connect(connection, (address, to.url.port), bounds)
            if failed is None:
                connection.setblocking(True)
                yield connection
                return
            why = f"{address}: {failed}"
    raise NotSentError("FETCH_FAILED", f"no connection to {to.url.authority}: {why}", "see whether it runs; try again")


def _connect(connection: socket.socket, address: tuple[str, int], bounds: Bounds) -> str | None:
    """Connect, and return why not."""
    connection.setblocking(False)
    error = connection.connect_ex(address)
    until = time.monotonic() + min(CONNECT_SECONDS, bounds.left)
    while error in {errno.EINPROGRESS, errno.EINTR}:
        if bounds.cancel.requested:
            return "it was stopped"
        if time.monotonic() >= until:
            return "no answer in time"
        waiting = select.poll()
        waiting.register(connection, select.POLLOUT)
        if waiting.poll(_LOOK_SECONDS * 1000):
            error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    return os.strerror(error) if error else None


def _first(to: Pinned, bounds: Bounds, body: int, text: int, ca_file: str) -> dict[str, Any]:
    tls = to.url.scheme == "https"
    return {
        "host": to.url.host,
        "tls": tls,
        "authorities": _authorities(ca_file) if tls else "",
        "deadline": bounds.deadline,
        "decoded_bytes": bounds.body_bytes,
        "body": body,
        "text": text,
    }


def _second(to: Pinned, request: Request) -> dict[str, Any]:
    content = None if request.content is None else base64.b64encode(request.content).decode("ascii")
    return {
        "method": request.method,
        "authority": to.url.authority,
        "target": to.url.target,
        "headers": [("Host", to.url.authority), *request.headers, ("Connection", "close")],
        "content": content,
        "extract": request.extract,
        "cut": request.cut,
    }


def _authorities(ca_file: str) -> str:
    if not ca_file:
        return ""
    try:
        with Path(ca_file).open(encoding="ascii") as file:
            return file.read(_MOST_AUTHORITIES)
    except (OSError, ValueError) as error:
        raise NotSentError(
            "FETCH_FAILED", f"the authorities to believe can not be read: {error}", "correct ca_file in the trust file"
        ) from None


def _check(answer: dict[str, Any], broken: type[StepFailedError]) -> dict[str, Any]:
    fault = answer.get("fault")
    if fault is not None:
        raise broken(str(fault["reason"]), _line(fault["message"]), str(fault["remedy"]))
    return answer


def _read(answer: Mapping[str, Any], body: int, text: int, most: int) -> Answer:
    """Take the answer of a child that has ended; what it wrote can not change any more."""
    try:
        size, length = int(answer["size"]), int(answer["text"])
        return Answer(
            status=int(answer["status"]),
            content_type=_line(answer["content-type"]),
            location=str(answer["location"]),
            retry_after=_line(answer["retry-after"]),
            body=os.pread(body, min(size, most), 0),
            text=os.pread(text, min(length, TEXT_BYTES), 0) if length else None,
            cut=bool(answer["cut"]),
        )
    except (KeyError, TypeError, ValueError, OverflowError, OSError) as error:
        raise BrokenOffError(
            "FETCH_FAILED", "the exchange broke off: what came of it can not be read", _MISSING
        ) from error


def _line(value: object) -> str:
    """Return what a header says, as one that people read."""
    return safe_line(str(value)[:_MOST_SHOWN])


@contextmanager
def _room(size: int) -> Iterator[int]:
    """Hold a file in memory that can never hold more than a size."""
    fd = os.memfd_create("answer", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
        yield fd
    finally:
        os.close(fd)
