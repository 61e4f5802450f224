"""What the parts of the simulated orchestrator share: its missions, its events, and how it refuses."""

from dataclasses import dataclass, field
from itertools import count
from typing import NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from gonogo.v1 import events_pb2, orchestrator_pb2, sealed_pb2


@dataclass
class Stored:
    """One mission."""

    mission: orchestrator_pb2.Mission
    plan: sealed_pb2.Sealed
    report: sealed_pb2.Sealed | None = None
    approvals: list[sealed_pb2.Sealed] = field(default_factory=list)
    receipt: sealed_pb2.Sealed | None = None
    events: list[events_pb2.Event] = field(default_factory=list)


class Shelf:
    """The missions; `refuse` names calls that are refused, each with its reason and code."""

    def __init__(self) -> None:
        self.missions: dict[str, Stored] = {}
        self.refuse: dict[str, tuple[str, int]] = {}
        self.numbers = count(1)

    def event(self, mission_id: str, **payload: object) -> events_pb2.Event:
        """Add an event to a mission."""
        stored = self.missions[mission_id]
        event = events_pb2.Event(
            event_id=f"e-{len(stored.events)}",
            mission_id=mission_id,
            sequence=len(stored.events) + 1,
            actor="simulator",
            **payload,  # type: ignore[arg-type]  # one of the payload's fields, by name
        )
        stored.events.append(event)
        return event

    def stored(self, beginning: str, context: grpc.ServicerContext) -> Stored:
        """Return the one mission whose id begins so."""
        found = [stored for mission_id, stored in self.missions.items() if mission_id.startswith(beginning)]
        if len(found) != 1:
            abort(context, "NOT_FOUND", code_pb2.NOT_FOUND)
        return found[0]

    def gate(self, call: str, context: grpc.ServicerContext) -> None:
        """Refuse a call that shall be refused."""
        if call in self.refuse:
            abort(context, *self.refuse[call])


def abort(context: grpc.ServicerContext, reason: str, code: int) -> NoReturn:
    """End a call as the services do."""
    info = error_details_pb2.ErrorInfo(reason=reason, domain="gonogo", metadata={"remedy": "do the other thing"})
    detail = AnyMessage()
    detail.Pack(info)
    context.abort_with_status(rpc_status.to_status(status_pb2.Status(code=code, message="refused", details=[detail])))
