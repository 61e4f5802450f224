"""A server on loopback that answers as nobody should, over plain TCP or TLS."""

import gzip
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PAGE = (
    b"<html><head><title>Cats</title><script>var no = 'scripted';</script></head><body><nav>menu</nav><article>"
    b"<h1>Of cats</h1>" + b"<p>The quick tabby sleeps on the windowsill for most of the day.</p>" * 20 + b"</article>"
    b"</body></html>"
)
BOMB_BYTES = 256 << 20
PAUSE = 0.05


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[socket.socket, Seen], None]


@dataclass(kw_only=True)
class HostileServer:
    """Answers by path, and remembers what it was asked."""

    port: int
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0


@contextmanager
def hostile_server(*, tls: ssl.SSLContext | None = None) -> Iterator[HostileServer]:
    """Serve until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = HostileServer(port=listener.getsockname()[1])

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    server.connections += 1
                    threading.Thread(target=_serve, args=(server, connection, tls), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _serve(server: HostileServer, connection: socket.socket, tls: ssl.SSLContext | None) -> None:
    with suppress(OSError), connection:
        connection.settimeout(20)
        if tls is not None:
            connection = tls.wrap_socket(connection, server_side=True)
        with connection:
            seen = _read(connection)
            server.seen.append(seen)
            name = seen.target.partition("?")[0].strip("/").partition("/")[0]
            ANSWERS.get(name, _missing)(connection, seen)


def _read(connection: socket.socket) -> Seen:
    data = b""
    while b"\r\n\r\n" not in data:
        chunk = connection.recv(65536)
        if not chunk:
            raise OSError
        data += chunk
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += connection.recv(65536)
    method, target, _ = first.split(" ")
    return Seen(method=method, target=target, headers=headers, body=body)


def _whole(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    lines = (f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def _fixed(body: bytes, *headers: str, status: str = "200 OK", length: int | None = None) -> Answer:
    def answer(connection: socket.socket, seen: Seen) -> None:
        connection.sendall(_whole(b"" if seen.method == "HEAD" else body, *headers, status=status, length=length))

    return answer


def _missing(connection: socket.socket, _seen: Seen) -> None:
    connection.sendall(_whole(b"no such page", "Content-Type: text/plain", status="404 Not Found"))


def _redirect(connection: socket.socket, seen: Seen) -> None:
    to = unquote(seen.target.partition("?")[2])
    connection.sendall(_whole(b"", f"Location: {to}", status="302 Found"))


def _status(connection: socket.socket, seen: Seen) -> None:
    code = seen.target.rpartition("/")[2]
    extra = ("Location: /elsewhere",) if code.startswith("3") else ("Retry-After: 30",)
    connection.sendall(_whole(b"it says so", "Content-Type: text/plain", *extra, status=f"{code} So"))


def _echo(connection: socket.socket, seen: Seen) -> None:
    told = "\n".join(f"{name}: {value}" for name, value in seen.headers.items())
    body = f"{seen.method} {seen.target}\n{told}\n".encode() + seen.body
    connection.sendall(_whole(body, "Content-Type: text/plain"))


def _loop(connection: socket.socket, _seen: Seen) -> None:
    connection.sendall(_whole(b"", "Location: /loop", status="302 Found"))


def _endless(connection: socket.socket, _seen: Seen) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")


def _slow_body(connection: socket.socket, _seen: Seen) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100000\r\n\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(PAUSE)


def _slow_headers(connection: socket.socket, _seen: Seen) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X: y\r\n")
        time.sleep(PAUSE)


def _silent(_connection: socket.socket, _seen: Seen) -> None:
    time.sleep(20)


def _header_flood(connection: socket.socket, _seen: Seen) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        connection.sendall(b"X-Flood: " + b"y" * 1000 + b"\r\n")


def _informational(connection: socket.socket, _seen: Seen) -> None:
    while True:
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" * 100)


def _bomb(connection: socket.socket, _seen: Seen) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\n\r\n")
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    for _ in range(BOMB_BYTES >> 20):
        connection.sendall(packer.compress(bytes(1 << 20)))
    connection.sendall(packer.flush())


def _raw_deflated(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


def _raw(data: bytes) -> Answer:
    return lambda connection, _seen: connection.sendall(data)


ANSWERS: dict[str, Answer] = {
    "page": _fixed(PAGE, "Content-Type: text/html; charset=utf-8", "Set-Cookie: id=1"),
    "text": _fixed(b"plain words about dogs\n", "Content-Type: text/plain"),
    "latin": _fixed("Käse und Brötchen".encode("latin-1"), "Content-Type: text/plain; charset=iso-8859-1"),
    "binary": _fixed(bytes(range(256)), "Content-Type: application/octet-stream"),
    "empty": _fixed(b"", "Content-Type: text/plain"),
    "gzip": _fixed(gzip.compress(PAGE), "Content-Type: text/html", "Content-Encoding: gzip"),
    "members": _fixed(
        gzip.compress(b"one ") + gzip.compress(b"two"), "Content-Type: text/plain", "Content-Encoding: gzip"
    ),
    "deflate": _fixed(zlib.compress(b"deflated"), "Content-Type: text/plain", "Content-Encoding: deflate"),
    "raw-deflate": _fixed(_raw_deflated(b"deflated"), "Content-Type: text/plain", "Content-Encoding: deflate"),
    "cut-gzip": _fixed(gzip.compress(PAGE)[:-20], "Content-Type: text/html", "Content-Encoding: gzip"),
    "no-gzip": _fixed(b"this is no gzip at all", "Content-Type: text/html", "Content-Encoding: gzip"),
    "brotli": _fixed(b"\x0b\x02\x80x\x03", "Content-Type: text/plain", "Content-Encoding: br"),
    "twice": _fixed(gzip.compress(gzip.compress(b"x")), "Content-Encoding: gzip, gzip"),
    "short": _fixed(b"only this", "Content-Type: text/plain", length=5000),
    "long": _fixed(b"onlymuch more than it said", "Content-Type: text/plain", length=4),
    "garbage": _raw(b"\x16\x03\x01 this is not HTTP at all\r\n\r\n"),
    "nothing": _raw(b""),
    "two-lengths": _raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx"),
    "negative": _raw(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nxx"),
    "redirect": _redirect,
    "status": _status,
    "echo": _echo,
    "loop": _loop,
    "endless": _endless,
    "slow-body": _slow_body,
    "slow-headers": _slow_headers,
    "silent": _silent,
    "header-flood": _header_flood,
    "informational": _informational,
    "bomb": _bomb,
}


@dataclass(frozen=True, kw_only=True)
class Authority:
    """Who makes certificates for tests."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def ca_file(self) -> Path:
        """Where its own certificate is."""
        return self.folder / "ca.pem"

    def server(self, name: str, *, days: int = 30) -> ssl.SSLContext:
        """Return what a server of this name proves itself with; for days that are past, with an expired one."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(name, key, issuer=self.certificate, signer=self.key, days=days)
        chain = self.folder / f"{name}{days}.pem"
        chain.write_bytes(_pem(certificate) + _private(key))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        return context


def authority(folder: Path) -> Authority:
    """Make one, with its certificate in a folder."""
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate("an authority", key, issuer=None, signer=key, days=30)
    made = Authority(folder=folder, key=key, certificate=certificate)
    made.ca_file.write_bytes(_pem(certificate))
    return made


def _certificate(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    *,
    issuer: x509.Certificate | None,
    signer: ec.EllipticCurvePrivateKey,
    days: int,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=60))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer is not None:
        alternative = x509.SubjectAlternativeName([x509.DNSName(name)])
        builder = builder.add_extension(alternative, critical=False)
    return builder.sign(signer, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(pem, form, serialization.NoEncryption())
