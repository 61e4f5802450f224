"""What every call goes through: who calls, and how an error leaves."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import lru_cache
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import grpc
from google.protobuf.message import Message

from gonogo.digests import digest
from orchestrator.domain.errors import Reason, RequestRefusedError
from orchestrator.entrypoints.errors import abort
from orchestrator.service.requests import Request

CLIENTS: Final = "spiffe://gonogo.local/client/"
RESERVED: Final = frozenset({"gonogo", "orchestrator", "executor"})
"""Names under which the house itself acts."""
MAX_PERSON: Final = 64

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
S = TypeVar("S")
Q = TypeVar("Q", bound=Message)
A = TypeVar("A")


class Mutating(Protocol):
    """A request that carries an id of its own."""

    @property
    def request_id(self) -> str: ...

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes: ...  # noqa: N802 - protobuf's name


def unary(handler: Callable[[S, Q, str], Awaitable[A]]) -> Callable[[S, Q, Context], Awaitable[A]]:
    """Make a handler of (request, person) one of gRPC's, errors and identity taken care of."""

    async def call(service: S, request: Q, context: Context) -> A:
        try:
            return await handler(service, request, person_of(context))
        except Exception as error:  # noqa: BLE001 - the one place where errors leave
            await abort(context, error)

    return call


def stream(handler: Callable[[S, Q, str], AsyncGenerator[A, None]]) -> Callable[[S, Q, Context], AsyncIterator[A]]:
    """Like `unary`, for a handler that yields."""

    async def call(service: S, request: Q, context: Context) -> AsyncIterator[A]:
        try:
            async with aclosing(handler(service, request, person_of(context))) as messages:
                async for message in messages:
                    yield message
        except Exception as error:  # noqa: BLE001 - the one place where errors leave
            await abort(context, error)

    return call


def person_of(context: Context) -> str:
    """Return the person whose certificate the caller holds.

    Raises:
        RequestRefusedError: the caller is no client of this house.
    """
    names = tuple(context.auth_context().get("peer_spiffe_id") or ())
    person = _person_named(names[0]) if len(names) == 1 else None
    if person is None:
        raise RequestRefusedError(
            Reason.PEER_NOT_ALLOWED,
            "the caller's certificate is not one of a client",
            "Use the client certificate that `gonogo init` made.",
        )
    return person


@lru_cache(maxsize=1024)
def _person_named(identity: bytes) -> str | None:
    """Return the person that an identity names, None where it names none; the same bytes always name the same."""
    name = identity.decode("utf-8", "replace")
    person = name.removeprefix(CLIENTS)
    return person if name.startswith(CLIENTS) and _is_person(person) else None


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
        raise RequestRefusedError(Reason.MALFORMED, "page_size is negative", "Leave it out, or give a positive number.")
    return min(wanted or default, most)


def _is_person(person: str) -> bool:
    plain = all(character.isalnum() or character in "._@-" for character in person)
    return 0 < len(person) <= MAX_PERSON and person.isascii() and plain and person not in RESERVED
