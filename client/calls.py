"""How a call is made: with an id of its own, and every failure as an error with a stable reason."""

import secrets
from collections.abc import AsyncIterator, Awaitable
from typing import Protocol, TypeVar

import grpc.aio

from client.connection import client_error

QUICK = 30.0
"""Seconds that a call may take which runs nothing."""

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Stream(Protocol[T_co]):
    """What a streaming call returns."""

    def __aiter__(self) -> AsyncIterator[T_co]: ...


def new_request_id() -> str:
    """Return an id for one request."""
    return "q-" + secrets.token_hex(16)


async def called(call: Awaitable[T]) -> T:
    """Return a call's answer.

    Raises:
        ClientError: it failed.
    """
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise client_error(error) from None


async def streamed(call: Stream[T]) -> AsyncIterator[T]:
    """Yield a call's messages; raises as `called` does."""
    try:
        async for part in call:
            yield part
    except grpc.aio.AioRpcError as error:
        raise client_error(error) from None
