"""A gRPC channel without sockets: the generated stub calls the real service, and every message crosses as bytes.

Only what the executor's adapters use is here. The identity that mutual TLS would prove is given, and an error status
reaches the caller as it does over the wire, details and all.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, NoReturn

import grpc
import grpc.aio


class Handlers:
    """Stands where the generated code registers a service, and keeps what it registers."""

    def __init__(self) -> None:
        self.methods: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Take what servers without registered methods use; not needed here."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Keep the methods by the path under which a stub calls them."""
        self.methods |= {f"/{service}/{name}": handler for name, handler in handlers.items()}


class Call:
    """The server's view of one call."""

    def __init__(self, identity: str) -> None:
        self._identity = identity

    def auth_context(self) -> Mapping[str, list[bytes]]:
        """Return the proven identity, in the form in which gRPC tells it."""
        return {"peer_spiffe_id": [self._identity.encode()]}

    async def abort_with_status(self, status: Any) -> NoReturn:
        """End the call with an error status."""
        trailers = grpc.aio.Metadata(*status.trailing_metadata)
        raise grpc.aio.AioRpcError(status.code, grpc.aio.Metadata(), trailers, details=status.details)


class Stream:
    """The client's view of a call that streams."""

    def __init__(
        self, messages: AsyncIterator[Any], serialise: Callable[[Any], bytes], read: Callable[[bytes], Any]
    ) -> None:
        self._messages = messages
        self._serialise = serialise
        self._read = read

    async def read(self) -> Any:
        """Return the next message, or that there is none."""
        try:
            message = await anext(self._messages)
        except StopAsyncIteration:
            return grpc.aio.EOF
        return self._read(self._serialise(message))

    def add_done_callback(self, done: Callable[[object], None]) -> None:
        """Let the service end by itself, and say when it has."""
        self._ending = asyncio.create_task(self._end(done))

    def cancel(self) -> None:
        """Nothing is waited for; the service ends with its generator."""

    async def _end(self, done: Callable[[object], None]) -> None:
        while await self.read() is not grpc.aio.EOF:
            pass
        done(self)


class LoopbackChannel:
    """What a stub takes for a channel."""

    def __init__(self, handlers: Handlers, identity: str) -> None:
        self._handlers = handlers
        self._identity = identity

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        **_: object,
    ) -> Callable[..., Any]:
        """Return what a stub calls for one answer."""
        handler = self._handlers.methods[method]

        async def call(request: Any, **_: object) -> Any:
            arrived = handler.request_deserializer(request_serializer(request))
            answer = await handler.unary_unary(arrived, Call(self._identity))
            return response_deserializer(handler.response_serializer(answer))

        return call

    def unary_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes],
        response_deserializer: Callable[[bytes], Any],
        **_: object,
    ) -> Callable[..., Any]:
        """Return what a stub calls for a stream of answers."""
        handler = self._handlers.methods[method]

        def call(request: Any, **_: object) -> Stream:
            arrived = handler.request_deserializer(request_serializer(request))
            answers = handler.unary_stream(arrived, Call(self._identity))
            return Stream(answers, handler.response_serializer, response_deserializer)

        return call

    async def close(self) -> None:
        """Nothing is open."""
