"""The listener for revocations: approvers reach it without an orchestrator, and it can do nothing else.

Whoever connects needs a certificate of the authority with the URI of a client. That lets them speak and no more: what
counts is the signature on the document. Messages are small, a client that sends many is told to wait, and waits alone.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc

from executor.adapters.wire import sealed_from_proto
from executor.domain.errors import ExecutorError
from executor.entrypoints.grpc_errors import abort, internal_error
from executor.entrypoints.grpc_peers import Context, check_readable, identity_of
from executor.entrypoints.work import Work
from executor.runner.ports import Revoked
from executor.runner.service import ExecutorCore
from executor.settings import SettingsError
from gonogo.grpc_requests import reading
from gonogo.v1 import executor_pb2, executor_pb2_grpc

CLIENTS: Final = "spiffe://gonogo.local/client/"
KIB: Final = 1024
MAX_CALLS: Final = 1024
WORKERS: Final = 2
OPTIONS: Final = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 32 * KIB),
    ("grpc.max_send_message_length", 32 * KIB),
    ("grpc.max_metadata_size", 8 * KIB),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.max_connection_age_ms", 3600 * 1000),
)

log = logging.getLogger(__name__)


class Pace:
    """Lets each client in at a pace: a few at once, then so many a second. What it remembers is bounded."""

    def __init__(
        self, *, at_once: int = 20, per_second: float = 2.0, clients: int = 256, now: Callable[[], float]
    ) -> None:
        self._at_once = float(at_once)
        self._per_second = per_second
        self._clients = clients
        self._now = now
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> None:
        """Use one up.

        Raises:
            ExecutorError: reason OVERLOADED.
        """
        now = self._now()
        left, since = self._left.pop(client, (self._at_once, now))
        left = min(self._at_once, left + (now - since) * self._per_second)
        self._left[client] = (max(left - 1, 0.0), now)
        if len(self._left) > self._clients:
            self._left.popitem(last=False)
        if left < 1:
            raise ExecutorError(
                "OVERLOADED",
                "this client hands in more revocations than are taken at once",
                "try again in a second; what was recorded needs no second time",
            )


class RevocationService(executor_pb2_grpc.RevocationServiceServicer):
    """One call."""

    def __init__(self, revoke: Callable[..., Revoked], pace: Pace) -> None:
        self._revoke = revoke
        self._pace = pace
        self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="revoke")

    async def Revoke(self, request: executor_pb2.RevokeRequest, context: Context) -> executor_pb2.RevokeResponse:
        try:
            client = identity_of(context)
            _check_client(client)
            self._pace.take(client)
            check_readable(request)
            revoked = await Work(self._workers, self._revoke, sealed_from_proto(request.revocation)).answer()
        except ExecutorError as error:
            failure = error
        except Exception:
            log.exception("Revoke failed")
            failure = internal_error()
        else:
            return executor_pb2.RevokeResponse(
                revocation_id=revoked.record.revocation_id, in_time=revoked.in_time, stopping=revoked.stopping
            )
        return await abort(context, failure)


class RevocationPort:
    """A server of its own, off where no address is given."""

    def __init__(self, core: ExecutorCore, listen: str, credentials: Callable[[], grpc.ServerCredentials]) -> None:
        self._core = core
        self._listen = listen
        self._credentials = credentials
        self._server: grpc.aio.Server | None = None

    async def start(self) -> str:
        """Begin to take revocations; return the address, empty where it is off.

        Raises:
            ExecutorError: the address or the certificates can not be used.
        """
        if not self._listen:
            return ""
        self._server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=MAX_CALLS)
        service = RevocationService(self._core.revoke, Pace(now=time.monotonic))
        executor_pb2_grpc.add_RevocationServiceServicer_to_server(service, reading(self._server))
        try:
            port = self._server.add_secure_port(self._listen, self._credentials())
        except RuntimeError as error:
            raise SettingsError(
                f"can not listen on {self._listen}: {error}", "choose another --revocation-listen"
            ) from error
        await self._server.start()
        return f"{self._listen.rpartition(':')[0]}:{port}"

    async def stop(self, grace_seconds: float) -> None:
        """Take no more; what is being recorded is recorded."""
        if self._server is not None:
            await self._server.stop(grace_seconds)


def _check_client(identity: str) -> None:
    name = identity.removeprefix(CLIENTS)
    if name == identity or not name:
        raise ExecutorError(
            "PEER_NOT_ALLOWED",
            "revocations are taken from clients, by a certificate with one such identity",
            "use a client's certificate of the executor's authority, or the command on the executor's host",
        )
