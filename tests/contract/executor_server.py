"""A served executor for the contract tests: certificates, a server on loopback, and callers with identities."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from executor.entrypoints.grpc_server import build_server
from executor.entrypoints.grpc_service import ExecutorService
from executor.runner.service import ExecutorCore
from executor.settings import Settings
from gonogo.v1 import executor_pb2_grpc

ORCHESTRATOR = "spiffe://gonogo.local/orchestrator"


class Authority:
    """A certificate authority that writes what it issues into a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        builder = self._builder(self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        certificate = builder.sign(self._key, hashes.SHA256())
        (directory / "ca.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *uris: str) -> None:
        """Issue a leaf that names a host and any number of SPIFFE ids."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names: list[x509.GeneralName] = [x509.DNSName(name), x509.IPAddress(IPv4Address("127.0.0.1"))]
        names += [x509.UniformResourceIdentifier(uri) for uri in uris]
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = self._builder(subject, key.public_key())
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        (self.directory / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        (self.directory / f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + timedelta(days=1))
        )


@dataclass
class Served:
    """A running server and how to call it."""

    authority: Authority
    service: ExecutorService
    port: int

    @contextlib.asynccontextmanager
    async def channel(self, name: str = "orchestrator") -> AsyncIterator[grpc.aio.Channel]:
        """Open a channel with somebody's certificate."""
        directory = self.authority.directory
        credentials = grpc.ssl_channel_credentials(
            (directory / "ca.pem").read_bytes(),
            (directory / f"{name}.key").read_bytes(),
            (directory / f"{name}.pem").read_bytes(),
        )
        options = [("grpc.ssl_target_name_override", "executor"), ("grpc.max_receive_message_length", 70_000_000)]
        async with grpc.aio.secure_channel(f"127.0.0.1:{self.port}", credentials, options=options) as channel:
            yield channel

    @contextlib.asynccontextmanager
    async def stub(self, name: str = "orchestrator") -> AsyncIterator[Any]:
        """Call with somebody's certificate."""
        async with self.channel(name) as channel:
            yield executor_pb2_grpc.ExecutorServiceStub(channel)


@contextlib.asynccontextmanager
async def served(core: ExecutorCore, state: Path, *, heartbeat_seconds: float = 15.0) -> AsyncIterator[Served]:
    """Serve a core on loopback with mutual TLS."""
    settings = Settings(
        state=state,
        workspaces={},
        staging={},
        tools=(),
        listen="127.0.0.1:0",
        ready_file=None,
        die_with_parent=False,
        reflection=True,
        grace_seconds=1,
    )
    authority = Authority(settings.tls)
    authority.issue("executor", "spiffe://gonogo.local/executor")
    authority.issue("orchestrator", ORCHESTRATOR)
    authority.issue("stranger", "spiffe://gonogo.local/client/owner")
    authority.issue("nameless")
    authority.issue("both", ORCHESTRATOR, "spiffe://gonogo.local/client/owner")
    service = ExecutorService(core, heartbeat_seconds=heartbeat_seconds)
    server, _, port = build_server(service, settings)
    await server.start()
    try:
        yield Served(authority, service, port)
    finally:
        service.drain()
        await server.stop(1)
