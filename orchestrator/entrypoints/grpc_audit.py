"""`AuditService`."""

from gonogo.v1 import orchestrator_pb2 as pb
from gonogo.v1.orchestrator_pb2_grpc import AuditServiceServicer
from orchestrator.adapters.wire import refuse_unknown
from orchestrator.domain.errors import malformed
from orchestrator.entrypoints.calls import unary
from orchestrator.entrypoints.door import Door
from orchestrator.service.audit import Audit


class AuditFace(AuditServiceServicer):
    """Both audit logs, for those who keep their checkpoints."""

    def __init__(self, audit: Audit, door: Door) -> None:
        self.door = door
        self._audit = audit

    @unary
    async def GetLog(self, request: pb.GetLogRequest, person: str) -> pb.GetLogResponse:
        refuse_unknown(request)
        if request.log == pb.AUDIT_LOG_ORCHESTRATOR:
            shown = await self._audit.own_log(request.known_size)
        elif request.log == pb.AUDIT_LOG_EXECUTOR:
            shown = await self._audit.executor_log(request.known_size)
        else:
            raise malformed("the request names no audit log", "Name the orchestrator's or the executor's.")
        return pb.GetLogResponse(
            checkpoint=shown.checkpoint, consistency=shown.consistency, public_key=shown.public_key
        )
