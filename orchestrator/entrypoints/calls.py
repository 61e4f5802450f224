"""What every call goes through: who calls, and how an error leaves."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import wraps
from time import monotonic
from typing import Final, Protocol, TypeVar

from google.protobuf.message import Message

from gonogo.digests import digest
from orchestrator.domain.callers import ACCESS, Caller
from orchestrator.domain.errors import malformed
from orchestrator.entrypoints.door import Context, Door
from orchestrator.entrypoints.errors import abort
from orchestrator.service.requests import Request

ADMITTED_SECONDS: Final = 1.0
"""For how long a stream goes on before its caller is looked at again."""


class HasDoor(Protocol):
    """A service whose callers come in by a door."""

    @property
    def door(self) -> Door: ...


S = TypeVar("S", bound=HasDoor)
Q = TypeVar("Q", bound=Message)
A = TypeVar("A")


class Mutating(Protocol):
    """A request that carries an id of its own."""

    @property
    def request_id(self) -> str: ...

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes: ...  # noqa: N802 - protobuf's name


def unary(handler: Callable[[S, Q, str], Awaitable[A]]) -> Callable[[S, Q, Context], Awaitable[A]]:
    """Make a handler of (request, person) one of gRPC's; identity, role and errors are taken care of.

    A handler whose name has no row in the table of roles is refused here, when its class is made.
    """

    def named(service: S, request: Q, caller: Caller) -> Awaitable[A]:
        return handler(service, request, caller.name)

    return unary_of_caller(wraps(handler)(named))


def unary_of_caller(handler: Callable[[S, Q, Caller], Awaitable[A]]) -> Callable[[S, Q, Context], Awaitable[A]]:
    """Like `unary`, for a handler that looks at its caller's roles itself."""
    access = ACCESS[handler.__name__]

    async def call(service: S, request: Q, context: Context) -> A:
        try:
            return await handler(service, request, service.door.admit(context, request, access))
        except Exception as error:  # noqa: BLE001 - the one place where errors leave
            await abort(context, error)

    return call


def stream(handler: Callable[[S, Q, str], AsyncGenerator[A, None]]) -> Callable[[S, Q, Context], AsyncIterator[A]]:
    """Like `unary`, for a handler that yields; who is removed or expires meanwhile gets no further message."""
    access = ACCESS[handler.__name__]

    async def call(service: S, request: Q, context: Context) -> AsyncIterator[A]:
        try:
            caller = service.door.admit(context, request, access)
            admitted = monotonic()
            async with aclosing(handler(service, request, caller.name)) as messages:
                async for message in messages:
                    if monotonic() - admitted > ADMITTED_SECONDS:
                        service.door.admit(context, request, access)
                        admitted = monotonic()
                    yield message
        except Exception as error:  # noqa: BLE001 - the one place where errors leave
            await abort(context, error)

    return call


def request_of(message: Mutating, person: str) -> Request:
    """Return what makes a retry of this message recognisable."""
    kind = type(message).__name__.encode()
    body = message.SerializeToString(deterministic=True)
    return Request(request_id=message.request_id, digest=digest(kind + b"\0" + body), person=person)


def page_size(wanted: int, *, default: int, most: int) -> int:
    """Return how many rows a page holds.

    Raises:
        RequestRefusedError: a negative number.
    """
    if wanted < 0:
        raise malformed("page_size is negative", "Leave it out, or give a positive number.")
    return min(wanted or default, most)
