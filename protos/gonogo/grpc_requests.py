"""Requests whose bytes are no message of their kind, for services that refuse them like any other that is malformed.

gRPC reads a request before anybody has looked at who calls, and answers what it can not read with UNKNOWN, the reader's
own words and a trace in the log: for whoever got a connection. Here such bytes become a value that stands for them. It
reaches the method's wrapper, which first finds out who calls, and then refuses it.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
from google.protobuf.message import DecodeError

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]  # generic in the stubs only

UNREADABLE: Final = object()
"""Stands for a request that could not be read."""


def reading(server: grpc.aio.Server) -> grpc.aio.Server:
    """Return what generated code is given to register a service whose methods get `UNREADABLE`, too."""
    return cast("grpc.aio.Server", _ReadingServer(server))  # the two methods that such code calls


class _ReadingServer:
    """Takes what generated code registers, and registers it with another reader."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, generic_rpc_handlers: object) -> None:
        """Leave them out: generated code registers the same methods by name."""

    def add_registered_method_handlers(self, service_name: str, method_handlers: "Mapping[str, Handler]") -> None:
        """Register the methods, all of them for one place at which the server waits for calls.

        Registered by name as well, each method has a place of its own, and the server goes through all of these places
        for every call.
        """
        handlers = {name: _with_reader(handler) for name, handler in method_handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service_name, handlers),))


def _with_reader(handler: "Handler") -> "Handler":
    shape: Any = handler  # its stub has not all of the fields
    streams = shape.response_streaming
    make = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler
    made: Handler = make(
        shape.unary_stream if streams else shape.unary_unary,
        request_deserializer=_reader(shape.request_deserializer),
        response_serializer=shape.response_serializer,
    )
    return made


def _reader(read: Callable[[bytes], object]) -> Callable[[bytes], Any]:
    def call(data: bytes) -> object:
        try:
            return read(data)
        except DecodeError:
            return UNREADABLE

    return call
