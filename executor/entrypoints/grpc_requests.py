"""Requests whose bytes are no message of their kind are refused like any other that is malformed.

Left alone, gRPC answers them with UNKNOWN, with the reader's own words, and with a trace in the log: for whoever got a
connection, before anybody has looked at who calls. Here such bytes become a value that stands for them. It reaches the
method's wrapper, which looks at the caller first and then refuses it.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

import grpc
from google.protobuf.message import DecodeError

from executor.runner.requests import malformed

if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]  # generic in the stubs only

UNREADABLE: Final = object()


def reading(server: grpc.aio.Server) -> grpc.aio.Server:
    """Return what generated code is given to register a service with this server."""
    return cast("grpc.aio.Server", _ReadingServer(server))  # the two methods that such code calls


class _ReadingServer:
    """Stands between generated code and a server, and puts its own reader before every method."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, generic_rpc_handlers: object) -> None:
        """Leave them out: they hold the methods that are registered by name as well."""

    def add_registered_method_handlers(self, service_name: str, method_handlers: "Mapping[str, Handler]") -> None:
        """Register the methods, each with a reader that fails on nothing."""
        handlers = {name: _reading(handler) for name, handler in method_handlers.items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service_name, handlers),))
        self._server.add_registered_method_handlers(service_name, handlers)


def check_readable(request: object) -> None:
    """Refuse a request that could not be read.

    Raises:
        RequestMalformedError: reason MALFORMED.
    """
    if request is UNREADABLE:
        raise malformed("the request is not a message of this method", "send what the contract in protos/ says")


def _reading(handler: "Handler") -> "Handler":
    shape: Any = handler  # its stub has not all of the fields
    make = grpc.unary_stream_rpc_method_handler if shape.response_streaming else grpc.unary_unary_rpc_method_handler
    method = shape.unary_stream if shape.response_streaming else shape.unary_unary
    made: Handler = make(
        method,
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
