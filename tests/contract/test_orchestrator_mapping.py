"""The orchestrator's values and the contract's messages, held together."""

import json
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass

from gonogo import sealing
from gonogo.digests import digest
from gonogo.v1 import errors_pb2, events_pb2, evidence_pb2, executor_pb2, orchestrator_pb2, plan_pb2
from orchestrator.adapters.event_codec import JsonEventCodec, payload_maps
from orchestrator.adapters.field_mapper import message_map
from orchestrator.adapters.sealed_documents import SealedDocuments
from orchestrator.adapters.times import time_of_text, time_text, time_to_proto
from orchestrator.adapters.wire import draft_from_proto, executor_from_proto, executor_to_proto, mission_to_proto
from orchestrator.domain import events as ev
from orchestrator.domain.control import ExecutionState, LiveProcess
from orchestrator.domain.errors import ContractError, Reason
from orchestrator.domain.evidence import (
    ApprovalFacts,
    ExecutorInfo,
    ReconciliationFacts,
    Sealed,
    Signature,
    StepApprovalFacts,
)
from orchestrator.domain.mission import evolve
from orchestrator.domain.plan import ACTIONS, FailurePolicy, Plan, PlanDraft, RunCommand, Scope, Stage, Step, WriteFile
from orchestrator.domain.plan_rules import completed
from orchestrator.domain.whiteboard import Whiteboard
from orchestrator.entrypoints.errors import CODES
from orchestrator.service.event_log import StoredEvent

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

MIRRORED = [
    (Plan, plan_pb2.Plan),
    (PlanDraft, plan_pb2.PlanDraft),
    (ev.Event, events_pb2.Event),
    (ApprovalFacts, evidence_pb2.Approval),
    (StepApprovalFacts, evidence_pb2.StepApproval),
    (ReconciliationFacts, evidence_pb2.Reconciliation),
    (LiveProcess, executor_pb2.LiveProcess),
    (ExecutionState, executor_pb2.Execution),
    (Whiteboard, orchestrator_pb2.Whiteboard),
]


def example(hint: Any) -> Any:
    """Return a value of a field's type that differs from the default."""
    if get_origin(hint) is UnionType:
        return example(next(argument for argument in get_args(hint) if argument is not type(None)))
    if get_origin(hint) is tuple:
        return (example(get_args(hint)[0]), example(get_args(hint)[0]))
    simple = {str: 'tëxt "\n', int: 7, bool: True, bytes: b"\x00\xff", datetime: NOW}
    if hint in simple:
        return simple[hint]
    if is_dataclass(hint):
        return filled(hint)
    return {"NAME": "value"} if get_origin(hint) is not None else list(hint)[-1]


def filled(value_class: Any) -> Any:
    """Return a value with every field set."""
    hints = get_type_hints(value_class)
    return value_class(**{field.name: example(hints[field.name]) for field in fields(value_class)})


@pytest.mark.quick
@pytest.mark.parametrize("name", sorted(ev.PAYLOADS))
@pytest.mark.parametrize("full", [True, False])
def test_every_event_s_log_text_is_the_message_s_protojson(name: str, full: bool) -> None:
    """Value, message and text of each payload turn into each other without loss; the text is what protobuf writes."""
    table = payload_maps()[name]
    value = filled(ev.PAYLOADS[name])
    if not full:
        empty = {"": str, 0: int}
        value = type(value)(
            **{
                field.name: next((blank for blank, kind in empty.items() if type(item) is kind), item)
                for field in fields(value)
                for item in [getattr(value, field.name)]
            }
        )
    message = table.to_message(value)

    assert table.to_json(value) == json_format.MessageToDict(message, preserving_proto_field_name=True)
    assert table.from_json(json.loads(json.dumps(table.to_json(value)))) == value
    assert table.from_message(message) == value


def test_an_event_is_the_same_after_the_log() -> None:
    """What is decoded from the log is what was encoded."""
    codec, payload = JsonEventCodec(), filled(ev.StepCompleted)
    new = codec.encode(payload, time=NOW, actor="owner")
    stored = StoredEvent(
        pos=9,
        stream_id="mission/m-1",
        version=3,
        type=new.type,
        schema_version=new.schema_version,
        occurred_at_us=new.occurred_at_us,
        recorded_at_us=new.occurred_at_us,
        command_id=None,
        actor=new.actor,
        data=new.data,
        leaf_hash=bytes(32),
    )

    event = codec.decode(stored)

    assert (event.payload, event.time, event.actor, event.sequence) == (payload, NOW, "owner", 3)
    assert (event.mission_id, event.event_id) == ("m-1", "e-1-000003")


def test_an_executor_s_description_passes_unchanged() -> None:
    """All that an executor says of itself arrives and is sent on; its policy is mapped by hand, with its digest."""
    body = b'{"version":1}'
    policy = Sealed(media_type=sealing.POLICY, body=body, digest=digest(body), signatures=(filled(Signature),))
    info = replace(filled(ExecutorInfo), policy=policy)

    assert executor_from_proto(executor_to_proto(info)) == info
    assert executor_from_proto(executor_to_proto(replace(info, policy=None))).policy is None


@pytest.mark.parametrize(("value_class", "message_class"), MIRRORED)
def test_a_mirrored_class_has_its_message_s_fields(value_class: Any, message_class: Any) -> None:
    """Building the table fails where a field, an enum's name or a oneof's case is missing on either side."""
    assert message_map(value_class, message_class).message_class is message_class


def test_every_step_kind_of_the_contract_is_known() -> None:
    """A step kind that is added to the contract has to be added here."""
    cases = {field.name for field in plan_pb2.Step.DESCRIPTOR.oneofs_by_name["action"].fields}

    assert cases == ACTIONS.keys()


@pytest.mark.parametrize("kind", sorted(ACTIONS))
def test_every_step_kind_passes_unchanged(kind: str) -> None:
    """Each action's fields all arrive, text and bytes bodies and absent ones told apart."""
    field = plan_pb2.Step.DESCRIPTOR.fields_by_name[kind]
    assert field.message_type is not None
    action: Any = ACTIONS[kind]
    table = message_map(action, GetMessageClass(field.message_type))
    value = filled(action)
    if hasattr(value, "data"):
        value = replace(value, content="", data=None)

    assert table.from_message(table.to_message(value)) == value


def test_reasons_are_the_contract_s() -> None:
    """Reasons, one for one, and each has a status code."""
    names = {name.removeprefix("REASON_") for name in errors_pb2.Reason.DESCRIPTOR.values_by_name} - {"UNSPECIFIED"}

    assert {reason.value for reason in Reason} == names == {reason.name for reason in Reason}
    assert CODES.keys() == set(Reason)


def test_a_sealed_plan_is_the_one_text_of_its_message() -> None:
    """What is sealed is opened strictly, and says the same as the message that protobuf would seal."""
    draft = PlanDraft(
        objective="Ünïcode",
        workspace="site",
        steps=(
            Step(action=WriteFile(path="a", content="")),
            Step(description="verify it", action=RunCommand(argv=("make",), env={"A": "b"}, success_codes=(0, 1))),
        ),
    )
    done = completed(draft, max_content_bytes=99)
    plan = Plan(
        plan_id="p",
        mission_id="m",
        intent_id="i",
        message_id="",
        transcription_id="",
        cloned_from="",
        objective=done.objective,
        workspace_id="site",
        executor_id="e",
        proposer="owner",
        created_at=NOW,
        scope=done.scope or Scope(),
        failure_policy=FailurePolicy.PAUSE,
        steps=done.steps,
        pause=done.pause,
    )
    documents = SealedDocuments()

    sealed = documents.seal_plan(plan)

    opened = sealing.open_sealed(sealed.body, plan_pb2.Plan)
    assert json.loads(sealing.seal(opened)) == json.loads(sealed.body)
    assert documents.open_plan(sealed) == done
    assert documents.scope_of(sealed) == done.scope
    assert [step.stage for step in done.steps] == [Stage.EDIT, Stage.TEST]


@pytest.mark.parametrize("kind", ["step_approval", "reconciliation"])
def test_what_a_person_signs_about_a_step_is_read_strictly(kind: str) -> None:
    """Every field arrives; a document of another type, or with anything else in it, is refused."""
    facts, message, media = {
        "step_approval": (StepApprovalFacts, evidence_pb2.StepApproval, sealing.STEP_APPROVAL),
        "reconciliation": (ReconciliationFacts, evidence_pb2.Reconciliation, sealing.RECONCILIATION),
    }[kind]
    table: Any = message_map(facts, message)
    value = filled(facts)
    body = sealing.seal(table.to_message(value))
    opened: Any = getattr(SealedDocuments(), f"open_{kind}")

    assert opened(Sealed(media_type=media, body=body, signatures=(), digest=digest(body))) == value
    for wrong in (
        Sealed(media_type=sealing.APPROVAL, body=body, signatures=(), digest=digest(body)),
        Sealed(media_type=media, body=body.replace(b"{", b'{"other":1,', 1), signatures=(), digest=""),
        Sealed(media_type=media, body=body + b" {}", signatures=(), digest=""),
    ):
        with pytest.raises(ContractError):
            opened(wrong)


def test_an_event_of_an_older_release_is_read() -> None:
    """What was recorded before pauses had kinds, plans segments and failures a path still is what it was."""
    maps = payload_maps()

    assert maps["execution_paused"].from_json({"reason": "unknown"}) == ev.ExecutionPaused(reason="unknown")
    assert maps["feedback_recorded"].from_json({"text": "well"}) == ev.FeedbackRecorded(text="well")
    assert maps["mission_queued"].from_json({"request_id": "r"}) == ev.MissionQueued(request_id="r")


UNKNOWN = [
    b"\xf8\x7f\x01",  # field 2047 of the draft
    b"\x2a\x03\xf8\x7f\x01",  # of a step
    b"\x2a\x06\x92\x01\x03\xf8\x7f\x01",  # of a step's action
]


@pytest.mark.parametrize("raw", UNKNOWN)
def test_unknown_fields_are_refused_at_any_depth(raw: bytes) -> None:
    """What the orchestrator does not know it does not pass on."""
    with pytest.raises(ContractError, match="not known"):
        draft_from_proto(plan_pb2.PlanDraft.FromString(raw))


def test_a_step_without_an_action_is_refused() -> None:
    """An unset oneof is no step."""
    with pytest.raises(ContractError, match="action"):
        draft_from_proto(plan_pb2.PlanDraft(steps=[plan_pb2.Step(step_id="s1")]))


def test_an_unknown_enum_number_is_refused() -> None:
    """There is no default to fall back to."""
    draft = plan_pb2.PlanDraft(failure_policy=99)  # type: ignore[arg-type]  # what another version may send

    with pytest.raises(ContractError, match="99"):
        draft_from_proto(draft)


MALFORMED: list[Any] = [
    [],
    {"unknown": 1},
    {"step_id": 7},
    {"step_id": "s", "kind": "k", "stage": "STAGE_NOPE"},
    {"step_id": "s", "kind": "k"},
    {"step_id": "s", "kind": "k", "stage": "STAGE_EDIT", "duration_ms": True},
]


@pytest.mark.parametrize("written", MALFORMED)
def test_a_log_text_that_is_not_the_type_s_is_refused(written: Any) -> None:
    """A row that somebody changed by hand is an error, never a guess."""
    with pytest.raises(ContractError):
        payload_maps()["step_completed"].from_json(written)


@pytest.mark.parametrize("microseconds", [0, 1, 1000, 999999, 120000])
def test_times_are_written_as_protobuf_writes_them(microseconds: int) -> None:
    """Three forms of fractions, whole microseconds, always UTC."""
    time = NOW.replace(microsecond=0) + timedelta(microseconds=microseconds)
    message = events_pb2.MissionApproved(expires_at=time_to_proto(time))

    assert time_text(time) == json_format.MessageToDict(message)["expiresAt"]
    assert time_of_text(time_text(time)) == time


def test_a_mission_is_sent_with_all_that_its_message_has() -> None:
    """Every field of the message has a field of the mission to come from."""
    payload = ev.MissionProposed(intent_id="i", objective="x", workspace_id="w", executor_id="e", proposer="p")
    event = ev.Event(event_id="e", mission_id="m-1", sequence=1, time=NOW, actor="p", payload=payload)

    sent = mission_to_proto(evolve(None, event))

    assert (sent.mission_id, sent.status, sent.proposer) == ("m-1", events_pb2.MISSION_STATUS_PROPOSED, "p")
