"""What the orchestrator's log says of a mission, compared with the documents and with where it is said to stand."""

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from client.bundle import Bundle
from client.json_form import short_name
from client.mission_state import NAMES, MissionState
from client.proving.checks import Check, check, labelled, same
from client.proving.events import CHAT, STREAM, LeafError, RecordedEvent, read_event
from client.proving.opened import Opened
from client.proving.replay import replayed
from client.proving.segments import Segment, segments
from client.proving.worded import word_events
from gonogo.v1 import events_pb2, evidence_pb2, plan_pb2

STATE = "state replayed from events"
KNOWN = "orchestrator leaves are the mission's"
ORIGIN = (
    *("intent_id", "objective", "workspace_id", "executor_id", "proposer"),
    *("message_id", "transcription_id", "cloned_from"),
)
"""What a plan takes over from the proposal."""
OWN = frozenset({"objective", "proposer"})
"""What of it a plan has of its own that took the place of the first one."""


NAMING = {
    **dict.fromkeys(("plan_sealed", "plan_signed"), "plan_digest"),
    **dict.fromkeys(("dry_run_completed", "approval_granted"), "report_digest"),
}
"""The events about a plan or a report, and what of them names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """The orchestrator's events of a mission, read once."""

    own: tuple[RecordedEvent, ...] = ()
    others: tuple[RecordedEvent, ...] = ()
    """Of other streams; only the message that the mission came from has a place there."""
    unreadable: str = ""
    """Why they could not be read; empty where they could."""
    reports: frozenset[str] = frozenset()
    """Digests of all reports that they tell of."""
    refusals: frozenset[str] = frozenset()
    """Ids of all refusals that they tell of."""
    plans: frozenset[str] = frozenset()
    """Digests of all plans that they tell of."""
    first_plans: tuple[str, ...] = ()
    """Digests of the plans of the first segment: more than one where a dry run failed and another plan was given."""


def read_told(bundle: Bundle) -> Told | None:
    """Read what the orchestrator's log tells, None where the bundle has no such log."""
    if bundle.orchestrator_log is None:
        return None
    try:
        events = [read_event(leaf) for leaf in bundle.orchestrator_log.leaves]
    except LeafError as error:
        return Told(unreadable=str(error))
    own, others = _apart(bundle.mission.mission_id, events)
    return Told(
        own=tuple(own),
        others=tuple(others),
        reports=frozenset(one.payload.report_digest for one in own if one.type == "dry_run_completed"),
        refusals=frozenset(one.payload.refusal_id for one in own if one.type == "gate_refused") - {""},
        plans=frozenset(one.payload.plan_digest for one in own if one.type == "plan_sealed"),
        first_plans=tuple(
            one.payload.plan_digest for one in own if one.type == "plan_sealed" and not one.payload.segment
        ),
    )


def recorded_checks(bundle: Bundle, opened: Opened, told: Told | None) -> Iterator[Check]:
    """Replay the orchestrator's events and compare what they say with the documents."""
    if told is None:
        return
    if told.unreadable:
        yield check(KNOWN, False, told.unreadable)
        return
    try:
        state = replayed(bundle.mission.mission_id, told.own)
    except LeafError as error:
        yield check(KNOWN, False, str(error))
        return
    strange = [event for event in told.others if not _is_origin(event, opened)]
    shown = f"entry {strange[0].pos} is of {strange[0].stream_id}" if strange else f"{len(told.own)} events"
    yield check(KNOWN, not strange, shown)
    yield _state_check(bundle.mission, state)
    if opened.plan is not None and opened.plan.message_id:
        yield _message_events(opened.plan, told.others)
    yield from _document_checks(bundle, opened, told)


def _apart(mission_id: str, events: Iterable[RecordedEvent]) -> tuple[list[RecordedEvent], list[RecordedEvent]]:
    own: list[RecordedEvent] = []
    others: list[RecordedEvent] = []
    for event in events:
        (own if event.stream_id == STREAM + mission_id else others).append(event)
    return own, others


def _is_origin(event: RecordedEvent, opened: Opened) -> bool:
    """Tell whether an event of a chat is the message or the intent that the plan came from."""
    plan = opened.plan
    if plan is None or not event.stream_id.startswith(CHAT):
        return False
    if event.type not in {"message_received", "intent_classified"}:
        return False
    return bool(plan.message_id) and plan.message_id == str(event.payload.message_id)


def _state_check(said: MissionState, state: MissionState) -> Check:
    different = [name for name in NAMES if getattr(said, name) != getattr(state, name)]
    if not different:
        return check(STATE, True, f"{state.status} after {state.last_sequence} events")
    shown = (f"{name} {getattr(state, name)!r} is shown as {getattr(said, name)!r}" for name in different)
    return check(STATE, False, "; ".join(shown))


def _document_checks(bundle: Bundle, opened: Opened, told: Told) -> Iterator[Check]:
    events = told.own
    yield _proposal_event(opened, told)
    about = _by_digest(events)
    for one in segments(bundle, opened):
        yield from labelled(one.label, _segment_checks(one, about))
    if opened.receipt is not None:
        yield _receipt_events(opened, events)
        yield from _segment_events(opened.receipt, events)
    yield from word_events(opened, events)
    if opened.refusal is not None or told.refusals:
        yield _refusal_event(opened, events)


def _message_events(plan: plan_pb2.Plan, events: Sequence[RecordedEvent]) -> Check:
    """The chain begins with what was said: the message, its transcription, and the intent that it was taken for."""
    title = "events tell of the message"
    received, classified = _last(events, "message_received"), _last(events, "intent_classified")
    if received is None or classified is None:
        return check(title, False, "no event of it")
    agree = (received.message_id, classified.message_id) == (plan.message_id, plan.message_id)
    agree = agree and received.transcription.transcription_id == plan.transcription_id
    agree = agree and (classified.intent_id, classified.kind) == (plan.intent_id, events_pb2.INTENT_KIND_PROPOSE)
    return check(title, agree, received.text)


def _proposal_event(opened: Opened, told: Told) -> Check:
    title = "events tell of the proposal"
    plan, proposed = opened.every[0].plan, _last(told.own, "mission_proposed")
    if plan is None or proposed is None:
        return check(title, False, "no plan, or no event of it")
    names = ORIGIN if len(told.first_plans) == 1 else [name for name in ORIGIN if name not in OWN]
    different = [name for name in names if getattr(proposed, name) != getattr(plan, name)]
    return check(title, not different, f"another {different[0]}" if different else plan.objective)


def _by_digest(events: Sequence[RecordedEvent]) -> dict[str, list[RecordedEvent]]:
    """Return what is told of plans and reports, by the digest that it names."""
    found: dict[str, list[RecordedEvent]] = {}
    for one in events:
        if one.type in NAMING:
            found.setdefault(getattr(one.payload, NAMING[one.type]), []).append(one)
    return found


def _segment_checks(segment: Segment, about: dict[str, list[RecordedEvent]]) -> Iterator[Check]:
    """Compare one segment with what is told of it, which is taken out: no two segments have the same plan."""
    opened = segment.opened
    events = [*about.pop(opened.plan_digest, ()), *about.pop(opened.report_digest, ())]
    yield _plan_events(opened, events)
    yield _plan_signature_events(segment.bundle, opened, events)
    if opened.report is not None:
        yield _report_event(opened, events)
    yield _approval_events(opened, events)


def _plan_events(opened: Opened, events: Sequence[RecordedEvent]) -> Check:
    title, plan = "events tell of the plan", opened.plan
    sealed = _named(events, "plan_sealed", plan_digest=opened.plan_digest)
    if plan is None or sealed is None:
        return check(title, False, "no plan, or no event of it")
    agree = (sealed.plan_id, sealed.segment) == (plan.plan_id, plan.segment)
    steps = [(step.step_id, step.WhichOneof("action")) for step in plan.steps]
    agree = agree and [(step.step_id, step.kind) for step in sealed.steps] == steps
    return check(title, agree, sealed.plan_digest)


def _plan_signature_events(bundle: Bundle, opened: Opened, events: Sequence[RecordedEvent]) -> Check:
    told = [
        (one.payload.key_id, one.payload.scheme, base64.b64encode(one.payload.signature))
        for one in events
        if one.type == "plan_signed" and one.payload.plan_digest == opened.plan_digest
    ]
    there = [(one.key_id, one.scheme, base64.b64encode(one.signature)) for one in bundle.plan.sealed.signatures]
    return check("events tell of the plan's signatures", sorted(told) == sorted(there), f"{len(there)} signatures")


def _report_event(opened: Opened, events: Sequence[RecordedEvent]) -> Check:
    report, told = opened.report, _named(events, "dry_run_completed", report_digest=opened.report_digest)
    title = "events tell of the report"
    if report is None or told is None:
        return check(title, False, "no event of it")
    agree = (told.report_id, told.status, told.risk) == (report.report_id, report.status, report.risk.level)
    return check(title, agree, told.report_digest)


def _approval_events(opened: Opened, events: Sequence[RecordedEvent]) -> Check:
    """Compare the approvals with those that were recorded for their report."""
    told = [
        one.payload
        for one in events
        if one.type == "approval_granted" and opened.report_digest
        if one.payload.report_digest == opened.report_digest
    ]
    said = sorted((one.approval_id, one.approval_digest, one.approver, one.key_id) for one in told)
    there = sorted(
        (
            one.approval.approval_id,
            one.digest,
            one.approval.approver,
            one.document.sealed.signatures[0].key_id if one.document.sealed.signatures else "",
        )
        for one in opened.approvals
    )
    ends = {one.approval_digest: one.expires_at for one in told}
    agree = said == there and all(ends[one.digest] == one.approval.expires_at for one in opened.approvals)
    return check("events tell of the approvals", agree, f"{len(there)} approvals, {len(said)} events")


def _segment_events(receipt: evidence_pb2.Receipt, events: Sequence[RecordedEvent]) -> Iterator[Check]:
    """The executor's events tell of every segment that its receipt tells of, and of no other."""
    told = [
        (one.payload.segment, one.payload.plan_id, one.payload.plan_digest, one.payload.report_digest)
        for one in events
        if one.type == "segment_opened"
    ]
    said = [(one.segment, one.plan_id, one.plan_digest, one.report_digest) for one in receipt.segments]
    if told or said:
        yield check("events tell of the segments", told == said, f"{len(told)} events, {len(said)} in the receipt")


def _receipt_events(opened: Opened, events: Sequence[RecordedEvent]) -> Check:
    receipt, title = opened.receipt, "events tell of the receipt"
    started, ended = _last(events, "execution_started"), _last(events, "execution_completed")
    issued = _last(events, "receipt_issued")
    if receipt is None or started is None or ended is None or issued is None:
        return check(title, False, "no event of it")
    agree = started.execution_id == ended.execution_id == issued.execution_id == receipt.execution_id
    agree = agree and short_name(ended, "outcome") == short_name(receipt, "execution_status")
    agree = agree and (issued.receipt_id, issued.receipt_digest) == (receipt.receipt_id, opened.receipt_digest)
    return check(title, agree, issued.receipt_digest)


def _refusal_event(opened: Opened, events: Sequence[RecordedEvent]) -> Check:
    refusal, told = opened.refusal, _last(events, "gate_refused")
    title = "events tell of the refusal"
    if refusal is None or told is None:
        return check(title, False, "no event of it" if told is None else f"{told.refusal_id} is left out")
    said = (told.refusal_id, told.gate, told.reason)
    return same(title, said, (refusal.refusal_id, refusal.gate, refusal.abort_reason), refusal.refusal_id)


def _named(events: Sequence[RecordedEvent], kind: str, **values: str) -> Any | None:
    """Return the last event of a kind that says this."""
    for event in reversed(events):
        if event.type == kind and all(getattr(event.payload, name) == value for name, value in values.items()):
            return event.payload
    return None


def _last(events: Sequence[RecordedEvent], kind: str) -> Any | None:
    return next((event.payload for event in reversed(events) if event.type == kind), None)
