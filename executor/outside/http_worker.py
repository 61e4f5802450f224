"""The child process that speaks HTTP: one request, over a connection that somebody else made.

It gets a connected socket and reaches nothing else: names, addresses and redirects are the executor's business. It is
asked twice. First it makes the connection safe (TLS, verified against the name) and sends nothing of the request; then
it is told to send. What comes back is decoded as it comes, so that an answer which grows out of all proportion ends
where its limit is. The body goes into a file that the executor opened; the answer tells how much of it there is.
"""

import base64
import os
import re
import socket
import ssl
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpcore
import httpx

from executor.outside.charsets import decoded, named_charset
from executor.outside.child import Answer, Conversation, converse, fault

HEADER_BYTES: Final = 128 * 1024
"""What an answer may have on the wire besides its body."""
TEXT_BYTES: Final = 8 << 20
"""Of a longer page no text is extracted."""
_BLOCK: Final = 1 << 16
_SHOWN: Final = 200
_TOLD: Final = ("content-type", "location", "retry-after")
_TOLD_BYTES: Final = 8192
_NOT_ENCODED: Final = frozenset(("", "identity"))
_WINDOWS: Final[Mapping[str, int]] = {
    "gzip": 16 + zlib.MAX_WBITS,
    "x-gzip": 16 + zlib.MAX_WBITS,
    "deflate": zlib.MAX_WBITS,
}
_HTML: Final = ("text/html", "application/xhtml+xml")
_TEXT: Final = re.compile(r"text/.*|application/(?:.*\+)?(?:json|xml|yaml|javascript|x-ndjson)")


class FarSideError(Exception):
    """The far side did not answer as it should."""

    def __init__(self, message: str, *, reason: str = "FETCH_FAILED", remedy: str = "try again later") -> None:
        super().__init__(message)
        self.reason = reason
        self.remedy = remedy


class TooLargeError(FarSideError):
    """More came than may."""

    def __init__(self, what: str) -> None:
        super().__init__(what, reason="TOO_LARGE", remedy="ask for less, or raise the limit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an answer may come to."""

    deadline: float
    """By the machine's monotonic clock, which the executor goes by, too."""
    decoded_bytes: int

    @property
    def left(self) -> float:
        """How much time there is; never nothing, which would mean without end."""
        return max(self.deadline - time.monotonic(), 0.001)


class Wire(httpcore.NetworkStream):
    """The one connection, which counts what comes and knows the time."""

    def __init__(self, connection: socket.socket, limits: Limits) -> None:
        self._connection = connection
        self._limits = limits
        self._left = limits.decoded_bytes + HEADER_BYTES

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - there is one limit for all
        if time.monotonic() >= self._limits.deadline:
            raise FarSideError("it took longer than it may", remedy="raise scope.max_duration_seconds, or try later")
        self._connection.settimeout(self._limits.left)
        data = self._connection.recv(max_bytes)
        self._left -= len(data)
        if self._left < 0:
            raise TooLargeError("more came over the wire than the answer may have")
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - there is one limit for all
        """Write; where the far side takes no more, it may have answered already, which is then read."""
        self._connection.settimeout(self._limits.left)
        try:
            self._connection.sendall(buffer)
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        self._connection.close()


class OneConnection(httpcore.NetworkBackend):
    """Has one connection, whatever address is asked for."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def connect_tcp(self, *_where: Any, **_how: Any) -> httpcore.NetworkStream:
        return self._wire


class OverWire(httpx.HTTPTransport):
    """Sends requests over the one connection."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), trust_env=False)
        self._pool = httpcore.ConnectionPool(network_backend=OneConnection(wire), max_connections=1)


def main() -> None:
    """Serve one request."""
    converse(_serve)


def _serve(conversation: Conversation) -> None:
    first = conversation.hear()
    if first is None:
        return
    limits = Limits(deadline=first["deadline"], decoded_bytes=first["decoded_bytes"])
    connection = socket.socket(fileno=first["connection"])
    try:
        wire = Wire(_made_safe(connection, first, limits), limits)
    except (OSError, ValueError) as error:
        conversation.say(fault("FETCH_FAILED", f"no safe connection: {_why(error)}", "look at its certificate"))
        return
    conversation.say({"ready": True})
    request = conversation.hear()
    if request is not None:
        conversation.say(_answered(request, wire, limits, first["body"], first["text"]))


def _made_safe(connection: socket.socket, first: Mapping[str, Any], limits: Limits) -> socket.socket:
    connection.settimeout(limits.left)
    if not first["tls"]:
        return connection
    context = ssl.create_default_context(cadata=first["authorities"] or None)
    context.set_alpn_protocols(["http/1.1"])
    return context.wrap_socket(connection, server_hostname=first["host"])


def _answered(request: Mapping[str, Any], wire: Wire, limits: Limits, body: int, text: int) -> Answer:
    try:
        answer = _sent(request, wire, limits, body)
    except FarSideError as error:
        return fault(error.reason, str(error), error.remedy)
    except (httpx.HTTPError, OSError, ValueError) as error:
        return fault("FETCH_FAILED", f"the connection failed: {_why(error)}", "try again later")
    if not answer["cut"]:
        answer["text"] = _keep_text(answer, body, text, extract=request["extract"])
    return answer


def _sent(request: Mapping[str, Any], wire: Wire, limits: Limits, body: int) -> dict[str, Any]:
    content = None if request["content"] is None else base64.b64decode(request["content"])
    headers = [(name.encode("ascii"), value.encode("latin-1")) for name, value in request["headers"]]
    outgoing = httpx.Request(
        request["method"],
        f"http://{request['authority']}/",  # the connection is safe already, where it has to be
        headers=headers,
        content=content,
        extensions={"target": request["target"].encode("ascii")},
    )
    with httpx.Client(transport=OverWire(wire), trust_env=False) as client:
        response = client.send(outgoing, stream=True, follow_redirects=False)
        try:
            told = {name: response.headers.get(name, "")[:_TOLD_BYTES] for name in _TOLD}
            size, cut = _keep_body(response, body, limits.decoded_bytes, cut=request["cut"])
        finally:
            response.close()
    return {"status": response.status_code, **told, "size": size, "cut": cut, "text": 0}


def _keep_body(response: httpx.Response, body: int, most: int, *, cut: bool) -> tuple[int, bool]:
    """Write the decoded body; `cut` says whether one that is too long is shortened, which tells the second value."""
    size = 0
    try:
        for block in _decoded(response):
            part = block[: most - size]
            _write(body, part)
            size += len(part)
            if len(part) < len(block):
                raise TooLargeError(f"the body has more than {most} bytes")  # noqa: TRY301 - as where it comes from
    except TooLargeError:
        if not cut:
            raise
        return size, True
    return size, False


def _decoded(response: httpx.Response) -> Iterator[bytes]:
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding in _NOT_ENCODED:
        yield from response.iter_raw(_BLOCK)
    elif encoding in _WINDOWS:
        yield from _inflated(response.iter_raw(_BLOCK), _WINDOWS[encoding])
    else:
        raise FarSideError(f"its body is encoded as {encoding[:_SHOWN]!a}, for which nobody asked")


def _inflated(blocks: Iterator[bytes], window: int) -> Iterator[bytes]:
    """Decode block by block, never more than a block at once: a small answer can be one of terabytes."""
    inflater, fresh = zlib.decompressobj(window), True
    for block in blocks:
        left = block
        while left:
            if inflater.eof:  # one member after the other is allowed
                inflater, fresh = zlib.decompressobj(window), True
            try:
                data = inflater.decompress(left, _BLOCK)
            except zlib.error:
                if not fresh or window != zlib.MAX_WBITS:
                    raise FarSideError("its body can not be decoded") from None
                window = -zlib.MAX_WBITS  # what some take for deflate
                inflater = zlib.decompressobj(window)
                continue
            fresh = fresh and not data
            left = inflater.unconsumed_tail or inflater.unused_data
            yield data
    if not inflater.eof and not fresh:
        raise FarSideError("its body is cut off")


def _keep_text(answer: Mapping[str, Any], body: int, text: int, *, extract: bool) -> int:
    """Write the text of an answer that is text, or the readable text of a page, and return its length in bytes."""
    content_type, size = answer["content-type"], answer["size"]
    kind = content_type.partition(";")[0].strip().lower()
    readable = extract if kind in _HTML else _TEXT.fullmatch(kind) is not None
    if not readable or not 0 < size <= TEXT_BYTES:
        return 0
    data = os.pread(body, size, 0)
    found = _of_html(data, content_type) if kind in _HTML else decoded(data, content_type)
    encoded = found.encode("utf-8", "replace")[:TEXT_BYTES]
    _write(text, encoded)
    return len(encoded)


def _of_html(data: bytes, content_type: str) -> str:
    """Read a page; where nothing in it looks like an article, all its text."""
    import trafilatura  # noqa: PLC0415 - it takes longer to load than most answers take to come

    page = decoded(data, content_type) if named_charset(content_type) else data
    found = trafilatura.extract(page, include_comments=False, include_tables=True, deduplicate=False)
    return str(found or trafilatura.html2txt(page) or "")


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it took longer than it may"
    return (str(error) or type(error).__name__)[:_SHOWN]


if __name__ == "__main__":
    main()
