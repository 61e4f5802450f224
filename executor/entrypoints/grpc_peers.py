"""Who may call, and what a call's errors become: the wrappers around every method of the executor's service."""

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

import grpc

from executor.domain.errors import ExecutorError
from executor.entrypoints.grpc_errors import abort, internal_error

Context = grpc.aio.ServicerContext[Any, Any]
Service = TypeVar("Service", bound="HasPeers")
Request = TypeVar("Request")
Response = TypeVar("Response")

log = logging.getLogger(__name__)


class Peers:
    """The callers that the trust file names. A certificate of the same authority is not enough."""

    def __init__(self, allowed: frozenset[str]) -> None:
        self._allowed = allowed

    def check(self, context: Context) -> None:
        """Refuse a caller whose certificate does not carry exactly one of the allowed SPIFFE ids.

        Raises:
            ExecutorError: reason PEER_NOT_ALLOWED.
        """
        # Only the handler's context has the authenticated identity; an interceptor does not see it.
        ids = tuple(context.auth_context().get("peer_spiffe_id", ()))
        if len(ids) != 1 or ids[0].decode("ascii", "replace") not in self._allowed:
            raise ExecutorError(
                "PEER_NOT_ALLOWED",
                "this executor serves only the orchestrators of its trust file",
                "add the caller's SPIFFE id to orchestrators in the trust file, or call the orchestrator",
            )


class HasPeers(Protocol):
    @property
    def peers(self) -> Peers: ...


def unary(
    method: Callable[[Service, Request, Context], Awaitable[Response]],
) -> Callable[[Service, Request, Context], Awaitable[Response]]:
    """Wrap a method with one answer."""

    async def call(self: Service, request: Request, context: Context) -> Response:
        try:
            self.peers.check(context)
            return await method(self, request, context)
        except ExecutorError as error:
            failure = error
        except Exception:
            log.exception("%s failed", method.__name__)
            failure = internal_error()
        return await abort(context, failure)

    return call


def streaming(
    method: Callable[[Service, Request, Context], AsyncIterator[Response]],
) -> Callable[[Service, Request, Context], AsyncIterator[Response]]:
    """Wrap a method with a stream of answers."""

    async def call(self: Service, request: Request, context: Context) -> AsyncIterator[Response]:
        try:
            self.peers.check(context)
            async with contextlib.aclosing(method(self, request, context)) as answers:  # type: ignore[type-var]  # a generator
                async for answer in answers:
                    yield answer
        except ExecutorError as error:
            failure = error
        except Exception:
            log.exception("%s failed", method.__name__)
            failure = internal_error()
        else:
            return
        await abort(context, failure)

    return call
