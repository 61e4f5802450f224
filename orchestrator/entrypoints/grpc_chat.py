"""`ChatService` and `WhiteboardService`."""

from typing import Final

from gonogo.v1 import orchestrator_pb2 as pb
from gonogo.v1.orchestrator_pb2_grpc import ChatServiceServicer, WhiteboardServiceServicer
from orchestrator.adapters import wire
from orchestrator.domain.callers import Caller, Role
from orchestrator.entrypoints.calls import page_size, request_of, unary, unary_of_caller
from orchestrator.entrypoints.door import Door
from orchestrator.entrypoints.tokens import resume_token, sequence_of
from orchestrator.service.intake import ChatTurn, Intake
from orchestrator.service.watching import Watching

PAGE: Final = 100
LARGEST_PAGE: Final = 1_000


class ChatFace(ChatServiceServicer):
    """Messages in, answers and proposed missions out."""

    def __init__(self, intake: Intake, door: Door) -> None:
        self.door = door
        self._intake = intake

    @unary_of_caller
    async def SendMessage(self, request: pb.SendMessageRequest, caller: Caller) -> pb.SendMessageResponse:
        heard = request.transcription if request.HasField("transcription") else None
        turn = ChatTurn(
            session_id=request.session_id,
            text=request.text,
            transcription=None if heard is None else wire.transcription_from_proto(heard),
            workspace_id=request.workspace_id,
            controls_all=Role.OPERATE in caller.roles,
        )
        return wire.reply_to_proto(await self._intake.send(request_of(request, caller.name), turn))

    @unary
    async def ListMessages(self, request: pb.ListMessagesRequest, person: str) -> pb.ListMessagesResponse:
        size = page_size(request.page_size, default=PAGE, most=LARGEST_PAGE)
        after = sequence_of(request.page_token, request.session_id)
        messages = self._intake.messages(request.session_id, after=after, size=size + 1)
        more = len(messages) > size
        return pb.ListMessagesResponse(
            messages=[wire.chat_message_to_proto(message) for message in messages[:size]],
            next_page_token=resume_token(request.session_id, messages[size - 1].sequence) if more else "",
        )


class WhiteboardFace(WhiteboardServiceServicer):
    """Missions as their events tell them."""

    def __init__(self, watching: Watching, door: Door) -> None:
        self.door = door
        self._watching = watching

    @unary
    async def GetWhiteboard(self, request: pb.GetWhiteboardRequest, person: str) -> pb.GetWhiteboardResponse:
        return pb.GetWhiteboardResponse(whiteboard=wire.whiteboard_to_proto(self._watching.board(request.mission_id)))
