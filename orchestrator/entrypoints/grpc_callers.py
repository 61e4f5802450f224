"""`CallerService`."""

import logging
from typing import Final

from gonogo.v1 import orchestrator_pb2 as pb
from gonogo.v1.orchestrator_pb2_grpc import CallerServiceServicer
from orchestrator.adapters.caller_wire import caller_to_proto, wanted_from_proto
from orchestrator.adapters.wire import refuse_unknown
from orchestrator.entrypoints.calls import page_size, request_of, unary
from orchestrator.entrypoints.door import Door
from orchestrator.entrypoints.tokens import cursor_of, page_token
from orchestrator.service.callers import Callers
from orchestrator.service.event_log import ProjectionCursor

PAGE: Final = 100
LARGEST_PAGE: Final = 1_000

_log = logging.getLogger(__name__)


class CallerFace(CallerServiceServicer):
    """The list of those who may call."""

    def __init__(self, callers: Callers, door: Door) -> None:
        self.door = door
        self._callers = callers

    @unary
    async def AddCaller(self, request: pb.AddCallerRequest, person: str) -> pb.AddCallerResponse:
        refuse_unknown(request)
        added = self._callers.add(request_of(request, person), wanted_from_proto(request))
        caller = added.caller
        _log.info("%s added the caller %s by %s: %s", person, caller.name, caller.credential, ", ".join(caller.roles))
        return pb.AddCallerResponse(caller=caller_to_proto(caller), token=added.token)

    @unary
    async def ListCallers(self, request: pb.ListCallersRequest, person: str) -> pb.ListCallersResponse:
        size = page_size(request.page_size, default=PAGE, most=LARGEST_PAGE)
        after = cursor_of(request.page_token)
        callers, last = self._callers.page(size=size, after=after.key if after else "")
        following = ProjectionCursor(sort_key="", key=last) if last else None
        return pb.ListCallersResponse(
            callers=[caller_to_proto(caller) for caller in callers], next_page_token=page_token(following)
        )

    @unary
    async def RemoveCaller(self, request: pb.RemoveCallerRequest, person: str) -> pb.RemoveCallerResponse:
        request_of(request, person)  # which refuses a request without an id
        self._callers.remove(request.name)
        _log.info("%s removed the caller %s", person, request.name)
        return pb.RemoveCallerResponse()
