"""In front of the listener for tokens, where anybody may knock: without a good token, nothing of a call is read.

gRPC hands a call to its handler when the request has arrived, which may be 64 MiB of somebody unknown. So the token is
looked at once more, earlier, as soon as the call's metadata is there. The door then admits the call as it does any.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import grpc

from orchestrator.domain.errors import RequestRefusedError
from orchestrator.entrypoints.door import Context, Door
from orchestrator.entrypoints.errors import abort

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any] | None"  # generic in the stubs only


class TokenGate(grpc.aio.ServerInterceptor):
    """Ends calls without a caller's token."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        try:
            self._door.of_token(handler_call_details.invocation_metadata)
        except RequestRefusedError as error:
            return self._refusing(error)
        return await continuation(handler_call_details)

    def _refusing(self, error: RequestRefusedError) -> Handler:
        """Return a handler that ends the call; a handler of a stream is called before any message is read."""

        async def refuse(_requests: AsyncIterator[bytes], context: Context) -> None:
            self._door.note(context, error)
            await abort(context, error)

        return grpc.stream_stream_rpc_method_handler(refuse)
