"""Domain values ↔ contract messages; nothing else in the orchestrator maps between them.

What mirrors a message goes through its table (`field_mapper`), in which nothing is left to a default. The rest is
written out here.
"""

from collections.abc import Iterable
from dataclasses import fields, replace
from functools import cache
from typing import Any, Final

from google.protobuf.message import Message

from gonogo.digests import digest
from gonogo.v1 import audit_pb2, events_pb2, executor_pb2, orchestrator_pb2, plan_pb2, sealed_pb2
from orchestrator.adapters.contract_errors import contract_error
from orchestrator.adapters.field_mapper import MessageMap, message_map
from orchestrator.adapters.times import time_from_proto, time_to_proto
from orchestrator.domain.control import ExecutionState, LiveProcess
from orchestrator.domain.events import ControlAction, Event, Rating, Transcription
from orchestrator.domain.evidence import ExecutorInfo, Sealed, Signature
from orchestrator.domain.intent import IntentKind
from orchestrator.domain.mission import Mission, MissionStatus
from orchestrator.domain.plan import PlanDraft
from orchestrator.domain.queue import QueueWish
from orchestrator.domain.whiteboard import Whiteboard
from orchestrator.service.audit_log import LogEntry, LogExtract
from orchestrator.service.dispatcher import Queue
from orchestrator.service.intake import ChatMessage, Reply
from orchestrator.service.ports import ControlOrder, ExecutionOrder, ExecutionUpdate
from orchestrator.service.signals import Learnt

_SENT = orchestrator_pb2.Mission.DESCRIPTOR.fields_by_name
_INNER: Final = frozenset({"queue_position", *(field.name for field in fields(Mission) if field.name not in _SENT)})
"""Fields of a mission that are not sent, and its place in the queue, which is not its own."""

_BY_HAND: Final = frozenset({"policy"})
"""A sealed document also has its digest, which no message carries."""


@cache
def _missions() -> MessageMap[Mission]:
    return message_map(Mission, orchestrator_pb2.Mission, _INNER)


@cache
def _events() -> MessageMap[Event]:
    return message_map(Event, events_pb2.Event)


def refuse_unknown(message: Message) -> None:
    """Refuse a message in which anything is set that this version does not know.

    Raises:
        ContractError: an unknown field, at any depth.
    """
    known = type(message)()
    known.CopyFrom(message)
    known.DiscardUnknownFields()
    if known.ByteSize() != message.ByteSize():
        raise contract_error(f"{message.DESCRIPTOR.name} holds fields that are not known")


def draft_from_proto(message: plan_pb2.PlanDraft) -> PlanDraft:
    """Return what somebody asks for; kinds and fields that are not known are refused."""
    refuse_unknown(message)
    return message_map(PlanDraft, plan_pb2.PlanDraft).from_message(message)


def transcription_from_proto(message: events_pb2.Transcription) -> Transcription:
    return message_map(Transcription, events_pb2.Transcription).from_message(message)


def sealed_from_proto(message: sealed_pb2.Sealed) -> Sealed:
    """Return a sealed document with the digest of its bytes."""
    return Sealed(
        media_type=message.media_type,
        body=message.body,
        digest=digest(message.body),
        signatures=tuple(signature_from_proto(item) for item in message.signatures),
    )


def signature_from_proto(message: sealed_pb2.Signature) -> Signature:
    return Signature(key_id=message.key_id, scheme=message.scheme, signature=message.signature, extra=message.extra)


def sealed_to_proto(sealed: Sealed) -> sealed_pb2.Sealed:
    return sealed_pb2.Sealed(
        media_type=sealed.media_type,
        body=sealed.body,
        signatures=[
            sealed_pb2.Signature(key_id=item.key_id, scheme=item.scheme, signature=item.signature, extra=item.extra)
            for item in sealed.signatures
        ],
    )


def sealed_or_none(sealed: Sealed | None) -> sealed_pb2.Sealed | None:
    return None if sealed is None else sealed_to_proto(sealed)


def mission_to_proto(mission: Mission) -> orchestrator_pb2.Mission:
    sent: orchestrator_pb2.Mission = _missions().to_message(mission)
    return sent


def event_parts(events: Iterable[Event]) -> list[Any]:
    """Return what the messages of events are made of, for a message that holds them: none is made and then copied."""
    to_parts = _events().to_parts
    return [to_parts(event) for event in events]


def event_from_proto(message: events_pb2.Event) -> Event:
    return _events().from_message(message)


def status_from_proto(number: int) -> MissionStatus | None:
    """Return the status that a list is limited to, None for all."""
    if number == events_pb2.MISSION_STATUS_UNSPECIFIED:
        return None
    known = {
        events_pb2.MISSION_STATUS_PROPOSED: MissionStatus.PROPOSED,
        events_pb2.MISSION_STATUS_APPROVED: MissionStatus.APPROVED,
        events_pb2.MISSION_STATUS_QUEUED: MissionStatus.QUEUED,
        events_pb2.MISSION_STATUS_ACTIVE: MissionStatus.ACTIVE,
        events_pb2.MISSION_STATUS_PAUSED: MissionStatus.PAUSED,
        events_pb2.MISSION_STATUS_COMPLETED: MissionStatus.COMPLETED,
        events_pb2.MISSION_STATUS_FAILED: MissionStatus.FAILED,
        events_pb2.MISSION_STATUS_CANCELLED: MissionStatus.CANCELLED,
        events_pb2.MISSION_STATUS_REJECTED: MissionStatus.REJECTED,
        events_pb2.MISSION_STATUS_EXPIRED: MissionStatus.EXPIRED,
    }
    try:
        return known[number]  # type: ignore[index]  # a plain number stands for any value the wire can carry
    except KeyError:
        raise contract_error(f"mission status {number} is not known") from None


_INTENTS: Final = {
    IntentKind.PROPOSE: events_pb2.INTENT_KIND_PROPOSE,
    IntentKind.ASK: events_pb2.INTENT_KIND_ASK,
    IntentKind.CONTROL: events_pb2.INTENT_KIND_CONTROL,
    IntentKind.FEEDBACK: events_pb2.INTENT_KIND_FEEDBACK,
    IntentKind.UNCLEAR: events_pb2.INTENT_KIND_UNCLEAR,
}


def reply_to_proto(reply: Reply) -> orchestrator_pb2.SendMessageResponse:
    return orchestrator_pb2.SendMessageResponse(
        session_id=reply.session_id,
        message_id=reply.message_id,
        intent_id=reply.intent_id,
        intent=_INTENTS[reply.intent],
        reply=reply.text,
        mission=None if reply.mission is None else mission_to_proto(reply.mission),
        nearest=reply.nearest,
    )


def chat_message_to_proto(message: ChatMessage) -> orchestrator_pb2.ChatMessage:
    return orchestrator_pb2.ChatMessage(
        message_id=message.message_id,
        actor=message.actor,
        text=message.text,
        time=time_to_proto(message.time),
        mission_id=message.mission_id,
    )


def whiteboard_to_proto(board: Whiteboard) -> orchestrator_pb2.Whiteboard:
    sent: orchestrator_pb2.Whiteboard = message_map(Whiteboard, orchestrator_pb2.Whiteboard).to_message(board)
    return sent


def executor_from_proto(message: executor_pb2.GetExecutorResponse) -> ExecutorInfo:
    info = message_map(ExecutorInfo, executor_pb2.GetExecutorResponse, _BY_HAND).from_message(message)
    return replace(info, policy=sealed_from_proto(message.policy)) if message.HasField("policy") else info


def executor_to_proto(info: ExecutorInfo) -> executor_pb2.GetExecutorResponse:
    table = message_map(ExecutorInfo, executor_pb2.GetExecutorResponse, _BY_HAND)
    sent: executor_pb2.GetExecutorResponse = table.to_message(info)
    if info.policy is not None:
        sent.policy.CopyFrom(sealed_to_proto(info.policy))
    return sent


def execution_from_proto(message: executor_pb2.Execution) -> ExecutionState:
    return message_map(ExecutionState, executor_pb2.Execution).from_message(message)


_ACTIONS: Final = {
    ControlAction.PAUSE: events_pb2.CONTROL_ACTION_PAUSE,
    ControlAction.RESUME: events_pb2.CONTROL_ACTION_RESUME,
    ControlAction.STOP: events_pb2.CONTROL_ACTION_STOP,
    ControlAction.RETRY: events_pb2.CONTROL_ACTION_RETRY,
    ControlAction.APPROVE_STEP: events_pb2.CONTROL_ACTION_APPROVE_STEP,
    ControlAction.RECONCILE: events_pb2.CONTROL_ACTION_RECONCILE,
}


def action_from_proto(number: int) -> ControlAction:
    """Return what is wanted of an execution; what is unset or not known is refused."""
    for action, known in _ACTIONS.items():
        if known == number:
            return action
    raise contract_error(f"control action {number} is not known")


def control_to_proto(order: ControlOrder) -> executor_pb2.ControlExecutionRequest:
    return executor_pb2.ControlExecutionRequest(
        request_id=order.request_id,
        mission_id=order.mission_id,
        action=_ACTIONS[order.action],
        actor=order.actor,
        reason=order.reason,
        roll_back=order.roll_back,
        document=sealed_or_none(order.document),
    )


def process_from_proto(message: executor_pb2.LiveProcess) -> LiveProcess:
    return message_map(LiveProcess, executor_pb2.LiveProcess).from_message(message)


def process_to_proto(process: LiveProcess) -> executor_pb2.LiveProcess:
    sent: executor_pb2.LiveProcess = message_map(LiveProcess, executor_pb2.LiveProcess).to_message(process)
    return sent


def wish_from_proto(message: orchestrator_pb2.ExecuteMissionRequest) -> QueueWish:
    """Return how somebody wants a mission queued."""
    return QueueWish(
        priority=message.priority,
        not_before=time_from_proto(message.not_before) if message.HasField("not_before") else None,
        expires_at=time_from_proto(message.expires_at) if message.HasField("expires_at") else None,
    )


def queue_to_proto(queue: Queue) -> orchestrator_pb2.GetQueueResponse:
    sent: orchestrator_pb2.GetQueueResponse = message_map(Queue, orchestrator_pb2.GetQueueResponse).to_message(queue)
    return sent


def learnt_to_proto(learnt: Learnt) -> orchestrator_pb2.GetSignalsResponse:
    table = message_map(Learnt, orchestrator_pb2.GetSignalsResponse)
    sent: orchestrator_pb2.GetSignalsResponse = table.to_message(learnt)
    return sent


def rating_from_proto(number: int) -> Rating:
    """Return how good somebody found a result; what is unset or not known is refused."""
    for rating, known in _RATINGS.items():
        if known == number:
            return rating
    raise contract_error(f"rating {number} is not known")


_RATINGS: Final = {Rating.GOOD: events_pb2.RATING_GOOD, Rating.BAD: events_pb2.RATING_BAD}


def order_to_proto(order: ExecutionOrder) -> executor_pb2.ExecuteRequest:
    return executor_pb2.ExecuteRequest(
        request_id=order.request_id,
        mission_id=order.mission_id,
        plan=sealed_to_proto(order.plan),
        report=sealed_to_proto(order.report),
        approvals=[sealed_to_proto(approval) for approval in order.approvals],
        workspace_id=order.workspace_id,
        executor_id=order.executor_id,
        intent_id=order.intent_id,
    )


def update_from_proto(message: executor_pb2.ExecuteResponse | executor_pb2.WatchExecutionResponse) -> ExecutionUpdate:
    return ExecutionUpdate(
        events=tuple(event_from_proto(event) for event in message.events),
        resume_token=message.resume_token,
        receipt=sealed_from_proto(message.receipt) if message.HasField("receipt") else None,
    )


def extract_from_proto(message: audit_pb2.LogExtract) -> LogExtract:
    return LogExtract(
        checkpoint=message.checkpoint,
        entries=tuple(
            LogEntry(index=entry.index, leaf=entry.leaf, path=tuple(entry.path)) for entry in message.entries
        ),
    )


def extract_to_proto(extract: LogExtract) -> audit_pb2.LogExtract:
    return audit_pb2.LogExtract(
        checkpoint=extract.checkpoint,
        entries=[audit_pb2.LogEntry(index=entry.index, leaf=entry.leaf, path=entry.path) for entry in extract.entries],
    )
