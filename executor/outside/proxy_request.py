"""What a program asks the proxy for, read once and by a narrow grammar, and what goes on to the server in its place."""

import re
import socket
import time
from dataclasses import dataclass
from typing import Final

from executor.domain.hosts import literal
from executor.outside.addresses import NetworkRefusedError, Url, parse_url

USUAL_PORTS: Final = frozenset((80, 443))
_HEAD_BYTES: Final = 32 << 10
_HEAD_SECONDS: Final = 10.0
_BLOCK: Final = 1 << 14
_SHOWN: Final = 200
_REQUEST: Final = re.compile(rb"([A-Z]{1,20}) ([\x21-\x7e]{1,8192}) HTTP/1\.[01]")
_AUTHORITY: Final = re.compile(r"[^/?#@\s]+:[1-9][0-9]{0,4}")
_HEADER: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\x20-\x7e\x80-\xff\t]*)")
_OF_ONE_HOP: Final = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"proxy-authenticate"),
        *(b"te", b"trailer", b"upgrade", b"host"),
    )
)
_MOST_DIGITS: Final = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a program asks the proxy for, read to the end of its head."""

    url: Url
    tunnel: bool
    head: bytes
    """What goes to the server in place of what came."""
    body: bytes
    """What has come already behind the head."""
    length: int | None
    """Of the whole body; None where it ends with the connection."""


def read_request(client: socket.socket, ports: frozenset[int]) -> Request:
    """Read a request's head.

    Raises:
        NetworkRefusedError: it is none, or names what no program may name.
        OSError: the client has gone.
    """
    head, _, rest = _read_head(client).partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    found = _REQUEST.fullmatch(line)
    if found is None:
        raise refused("that is no request to a proxy")
    method, target = found[1], found[2].decode("ascii")
    if method == b"CONNECT":
        if not _AUTHORITY.fullmatch(target):
            raise refused(f"CONNECT {target[:_SHOWN]!a} names no host with a port")
        url = _checked(parse_url(f"https://{target}/"), ports)
        return Request(url=url, tunnel=True, head=b"", body=rest, length=None)
    if not target.lower().startswith("http://"):
        raise refused(f"{target[:_SHOWN]!a} is no whole http:// address")
    url = _checked(parse_url(target), ports)
    forwarded, length = _forwarded(headers)
    start = b"%b %b HTTP/1.1" % (method, url.target.encode("ascii"))
    lines = [start, b"Host: " + url.authority.encode("ascii"), *forwarded, b"Connection: close", b"", b""]
    return Request(url=url, tunnel=False, head=b"\r\n".join(lines), body=rest, length=length)


def _checked(url: Url, ports: frozenset[int]) -> Url:
    if literal(url.host) is not None:
        raise refused(f"{url.host} is an address, not a name")
    if url.port not in ports:
        raise refused(f"{url.host}:{url.port} is not at port {' or '.join(map(str, sorted(ports)))}")
    return url


def _forwarded(headers: list[bytes]) -> tuple[list[bytes], int]:
    """Return the headers that go on to the server, and the length of the body.

    One connection carries one request: with a body of known length nothing else can follow it to the same server.
    """
    kept: list[bytes] = []
    lengths: set[bytes] = set()
    for line in headers:
        found = _HEADER.fullmatch(line)
        if found is None:
            raise refused("the request has a malformed header")
        name = found[1].lower()
        if name == b"transfer-encoding":
            raise refused("the proxy takes no body of unknown length: send Content-Length, or use https")
        if name == b"content-length":
            lengths.add(found[2].strip())
        if name not in _OF_ONE_HOP:
            kept.append(line)
    if len(lengths) > 1 or any(not one.isdigit() or len(one) > _MOST_DIGITS for one in lengths):
        raise refused("the request has no clear Content-Length")
    return kept, int(lengths.pop()) if lengths else 0


def _read_head(client: socket.socket) -> bytes:
    head = b""
    until = time.monotonic() + _HEAD_SECONDS
    while b"\r\n\r\n" not in head:
        left = until - time.monotonic()
        if len(head) > _HEAD_BYTES or left <= 0:
            raise refused("the request's head is too long, or came too slowly")
        client.settimeout(left)
        try:
            chunk = client.recv(_BLOCK)
        except TimeoutError:
            continue
        if not chunk:
            raise refused("the request broke off") if head else ConnectionResetError
        head += chunk
    return head


def refused(message: str) -> NetworkRefusedError:
    """Return the error that tells a program and the report why a request goes no further."""
    return NetworkRefusedError(message, "reach a host that scope.domains and the trust file name, by its name")
