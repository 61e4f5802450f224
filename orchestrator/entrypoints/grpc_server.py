"""The orchestrator's gRPC servers: their listeners, health, limits, and a drain that loses nobody's place.

Each listener has a server of its own, with its own bounds: however many knock at one, nobody else waits for it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gonogo.grpc_credentials import mutual_tls, server_tls
from gonogo.grpc_requests import reading
from gonogo.v1 import orchestrator_pb2 as pb
from gonogo.v1.orchestrator_pb2_grpc import (
    AuditServiceServicer,
    CallerServiceServicer,
    ChatServiceServicer,
    MissionServiceServicer,
    SignalServiceServicer,
    WhiteboardServiceServicer,
    add_AuditServiceServicer_to_server,
    add_CallerServiceServicer_to_server,
    add_ChatServiceServicer_to_server,
    add_MissionServiceServicer_to_server,
    add_SignalServiceServicer_to_server,
    add_WhiteboardServiceServicer_to_server,
)
from orchestrator.adapters.certificates import CertificateFiles
from orchestrator.domain.errors import OrchestratorError, Reason
from orchestrator.entrypoints.door import Door
from orchestrator.entrypoints.token_gate import TokenGate

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
MAX_CALLS: Final = 1024
MAX_HEALTH_CALLS: Final = 64
MAX_HEALTH_BYTES: Final = 4 * 1024
CONNECTION_MILLISECONDS: Final = 3600 * 1000
"""After which a connection is asked to go once its calls have ended, so that nobody stays on an old certificate."""
SERVICES: Final = (
    "AuditService",
    "CallerService",
    "ChatService",
    "MissionService",
    "SignalService",
    "WhiteboardService",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where to listen, or where it is listened; empty for what is off."""

    calls: str
    """For callers with certificates."""
    tokens: str = ""
    """For callers with tokens."""
    health: str = ""
    """In plain text, for health and nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faces:
    door: Door
    audit: AuditServiceServicer
    callers: CallerServiceServicer
    missions: MissionServiceServicer
    chat: ChatServiceServicer
    whiteboard: WhiteboardServiceServicer
    signals: SignalServiceServicer


class Server:
    """All listeners, from start to drained."""

    def __init__(self, faces: Faces, certificates: CertificateFiles, *, with_reflection: bool) -> None:
        self._faces = faces
        self._server = _serving(faces)
        self._health = health.aio.HealthServicer()
        self._others: list[grpc.aio.Server] = []
        self._certificates = certificates
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if with_reflection:
            names = (*(_full_name(service) for service in SERVICES), health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)

    async def start(self, wanted: Addresses) -> Addresses:
        """Begin to serve; return the addresses with their ports.

        Raises:
            OrchestratorError: one of them can not be listened on.
        """
        calls = _bound(
            wanted.calls, partial(self._server.add_secure_port, server_credentials=mutual_tls(self._certificates))
        )
        found = Addresses(
            calls=calls,
            tokens=await self._start_tokens(wanted.tokens) if wanted.tokens else "",
            health=await self._start_health(wanted.health) if wanted.health else "",
        )
        await self._server.start()
        for service in ("", *map(_full_name, SERVICES)):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return found

    async def drain(self, draining: asyncio.Event, grace: float) -> None:
        """Say that no new work is wanted, end the watches with their tokens, and let calls finish."""
        await self._health.enter_graceful_shutdown()
        draining.set()
        await asyncio.gather(*(server.stop(grace) for server in (self._server, *self._others)))

    async def _start_tokens(self, address: str) -> str:
        """Serve callers with tokens, who get nothing but gonogo's own services."""
        server = _serving(self._faces, TokenGate(self._faces.door))
        credentials = server_tls(self._certificates)
        bound = _bound(address, partial(server.add_secure_port, server_credentials=credentials))
        await server.start()
        self._others.append(server)
        return bound

    async def _start_health(self, address: str) -> str:
        """Serve health, and only that, in plain text: what probes it often can show no certificate."""
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MAX_HEALTH_BYTES)]
        server = grpc.aio.server(options=options, maximum_concurrent_rpcs=MAX_HEALTH_CALLS)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        bound = _bound(address, server.add_insecure_port)
        await server.start()
        self._others.append(server)
        return bound


def _serving(faces: Faces, *interceptors: grpc.aio.ServerInterceptor) -> grpc.aio.Server:
    """Return a server of gonogo's own services that does not listen yet."""
    server = grpc.aio.server(interceptors=interceptors, options=_options(), maximum_concurrent_rpcs=MAX_CALLS)
    registry = reading(server)
    add_AuditServiceServicer_to_server(faces.audit, registry)
    add_CallerServiceServicer_to_server(faces.callers, registry)
    add_MissionServiceServicer_to_server(faces.missions, registry)
    add_ChatServiceServicer_to_server(faces.chat, registry)
    add_SignalServiceServicer_to_server(faces.signals, registry)
    add_WhiteboardServiceServicer_to_server(faces.whiteboard, registry)
    return server


def _bound(address: str, bind: Callable[[str], int]) -> str:
    """Listen on an address; return it with the port that was taken."""
    try:
        port = bind(address)
    except RuntimeError as error:
        raise OrchestratorError(
            Reason.MALFORMED, f"can not listen on {address}: {error}", "Choose another address."
        ) from error
    return f"{address.rpartition(':')[0]}:{port}"


def _full_name(service: str) -> str:
    return str(pb.DESCRIPTOR.services_by_name[service].full_name)


def _options() -> list[tuple[str, int]]:
    return [
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.http2.ping_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.max_connection_age_ms", CONNECTION_MILLISECONDS),
    ]
