"""The orchestrator's gRPC server: mutual TLS, health, limits, and a drain that loses nobody's place."""

import asyncio
from dataclasses import dataclass
from typing import Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gonogo.v1 import orchestrator_pb2 as pb
from gonogo.v1.orchestrator_pb2_grpc import (
    ChatServiceServicer,
    MissionServiceServicer,
    WhiteboardServiceServicer,
    add_ChatServiceServicer_to_server,
    add_MissionServiceServicer_to_server,
    add_WhiteboardServiceServicer_to_server,
)

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
MAX_CALLS: Final = 1024
SERVICES: Final = ("ChatService", "MissionService", "WhiteboardService")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """This service's certificate and key, and the authority that its callers' certificates must be from."""

    authority: bytes
    certificate: bytes
    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Faces:
    missions: MissionServiceServicer
    chat: ChatServiceServicer
    whiteboard: WhiteboardServiceServicer


class Server:
    """One listening server, from start to drained."""

    def __init__(self, faces: Faces, identity: Identity, *, with_reflection: bool) -> None:
        self._server = grpc.aio.server(options=_options(), maximum_concurrent_rpcs=MAX_CALLS)
        self._health = health.aio.HealthServicer()
        self._identity = identity
        add_MissionServiceServicer_to_server(faces.missions, self._server)
        add_ChatServiceServicer_to_server(faces.chat, self._server)
        add_WhiteboardServiceServicer_to_server(faces.whiteboard, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if with_reflection:
            names = (*(_full_name(service) for service in SERVICES), health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)

    async def start(self, address: str) -> int:
        """Begin to serve; return the port."""
        credentials = grpc.ssl_server_credentials(
            [(self._identity.key, self._identity.certificate)], self._identity.authority, require_client_auth=True
        )
        port = self._server.add_secure_port(address, credentials)
        await self._server.start()
        for service in ("", *map(_full_name, SERVICES)):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return port

    async def drain(self, draining: asyncio.Event, grace: float) -> None:
        """Say that no new work is wanted, end the watches with their tokens, and let calls finish."""
        await self._health.enter_graceful_shutdown()
        draining.set()
        await self._server.stop(grace)


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
    ]
