"""Who may call, and what a call's errors become: the wrappers around every method of the executor's service.

A method gets the identity that was let in, and nothing else of the call: it is read once.
"""

import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

import grpc

from executor.domain.errors import ExecutorError
from executor.domain.policy import Trust
from executor.entrypoints.grpc_errors import abort, internal_error
from executor.runner.requests import malformed
from gonogo.grpc_requests import UNREADABLE

Context = grpc.aio.ServicerContext[Any, Any]
Service = TypeVar("Service", bound="HasPeers")
Request = TypeVar("Request")
Response = TypeVar("Response")

log = logging.getLogger(__name__)


class Peers:
    """The callers that the trust file names. A certificate of the same authority is not enough.

    Args:
        trust: returns the trust file as it was last read: whoever it no longer names is served no longer.
    """

    def __init__(self, trust: Callable[[], Trust]) -> None:
        self._trust = trust

    def check(self, context: Context) -> str:
        """Return who calls; refuse a caller whose certificate does not carry exactly one of the allowed SPIFFE ids.

        Raises:
            ExecutorError: reason PEER_NOT_ALLOWED.
        """
        identity = identity_of(context)
        if identity not in self._trust().callers:
            raise ExecutorError(
                "PEER_NOT_ALLOWED",
                "this executor serves only the orchestrators of its trust file",
                "add the caller's SPIFFE id to orchestrators in the trust file, or call the orchestrator",
            )
        return identity

    def check_dry_run(self, identity: str) -> None:
        """Refuse a caller who may not ask for dry runs: one is an act of its own, before anybody approves anything.

        Raises:
            ExecutorError: reason PEER_NOT_ALLOWED.
        """
        trust = self._trust()
        if trust.limits.may_dry_run is None:
            return  # `check` has said so, as it does before every method
        if identity not in trust.dry_runners:
            raise ExecutorError(
                "PEER_NOT_ALLOWED",
                "the executor's policy does not let this orchestrator ask for dry runs",
                "have the executor's operator add its SPIFFE id to may_dry_run in the trust file",
            )


def identity_of(context: Context) -> str:
    """Return the caller's SPIFFE id; empty where the certificate does not carry exactly one."""
    # Only the handler's context has the authenticated identity; an interceptor does not see it.
    ids = tuple(context.auth_context().get("peer_spiffe_id", ()))
    return ids[0].decode("ascii", "replace") if len(ids) == 1 else ""


def check_readable(request: object) -> None:
    """Refuse a request that could not be read.

    Raises:
        RequestMalformedError: reason MALFORMED.
    """
    if request is UNREADABLE:
        raise malformed("the request is not a message of this method", "send what the contract in protos/ says")


class HasPeers(Protocol):
    @property
    def peers(self) -> Peers: ...


def unary(
    method: Callable[[Service, Request, str], Awaitable[Response]],
) -> Callable[[Service, Request, Context], Awaitable[Response]]:
    """Wrap a method with one answer."""

    async def call(self: Service, request: Request, context: Context) -> Response:
        try:
            caller = self.peers.check(context)
            check_readable(request)
            return await method(self, request, caller)
        except ExecutorError as error:
            failure = error
        except Exception:
            log.exception("%s failed", method.__name__)
            failure = internal_error()
        return await abort(context, failure)

    return call


def streaming(
    method: Callable[[Service, Request, str], AsyncIterator[Response]],
) -> Callable[[Service, Request, Context], AsyncIterator[Response]]:
    """Wrap a method with a stream of answers."""

    async def call(self: Service, request: Request, context: Context) -> AsyncIterator[Response]:
        try:
            caller = self.peers.check(context)
            check_readable(request)
            async with contextlib.aclosing(method(self, request, caller)) as answers:  # type: ignore[type-var]  # a generator
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
