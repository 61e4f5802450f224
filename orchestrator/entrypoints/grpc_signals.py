"""`SignalService`."""

from gonogo.v1 import orchestrator_pb2 as pb
from gonogo.v1.orchestrator_pb2_grpc import SignalServiceServicer
from orchestrator.adapters import wire
from orchestrator.entrypoints.calls import unary
from orchestrator.entrypoints.door import Door
from orchestrator.service.signals import Signals


class SignalFace(SignalServiceServicer):
    """What outcomes taught."""

    def __init__(self, signals: Signals, door: Door) -> None:
        self.door = door
        self._signals = signals

    @unary
    async def GetSignals(self, request: pb.GetSignalsRequest, person: str) -> pb.GetSignalsResponse:
        wire.refuse_unknown(request)
        found = await self._signals.told(kind=request.kind, tool=request.tool, workspace_id=request.workspace_id)
        return wire.learnt_to_proto(found)
