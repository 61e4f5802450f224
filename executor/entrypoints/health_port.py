"""Health in plain text, on a port where nothing else answers: what probes it often can show no certificate."""

from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from executor.settings import SettingsError

MAX_CALLS: Final = 64
MAX_BYTES: Final = 4 * 1024
OPTIONS: Final = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", MAX_BYTES))


class Checks(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # the health package has no types
    """Answers, and keeps nobody waiting: a few that watch for ever would leave no room for whoever only asks."""

    def __init__(self, checks: health.aio.HealthServicer) -> None:
        self._checks = checks

    async def Check(  # noqa: N802 - the contract's name
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> health_pb2.HealthCheckResponse:
        return await self._checks.Check(request, context)


class HealthPort:
    """A server of its own, off where no address is given."""

    def __init__(self, checks: health.aio.HealthServicer, listen: str) -> None:
        self._checks = checks
        self._listen = listen
        self._server: grpc.aio.Server | None = None

    async def start(self) -> str:
        """Begin to answer; return the address, empty where it is off.

        Raises:
            SettingsError: the address can not be listened on.
        """
        if not self._listen:
            return ""
        self._server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
        health_pb2_grpc.add_HealthServicer_to_server(Checks(self._checks), self._server)
        try:
            port = self._server.add_insecure_port(self._listen)
        except RuntimeError as error:
            raise SettingsError(
                f"can not listen on {self._listen}: {error}", "choose another --health-listen"
            ) from error
        await self._server.start()
        return f"{self._listen.rpartition(':')[0]}:{port}"

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(None)
