"""The answers of the executor's service that are no documents."""

import functools
from collections.abc import Sequence
from importlib import metadata

from executor.adapters.wire import sealed_from_proto, sealed_to_proto
from executor.adapters.wire_changes import time_to_proto
from executor.adapters.wire_enums import (
    CONTROL_ACTIONS,
    EXECUTION_STATES,
    LADDER,
    OUTCOMES,
    PAUSE_DEFAULTS,
    PAUSE_KINDS,
    SELF_APPROVALS,
)
from executor.adapters.wire_events import event_to_proto
from executor.domain.control import Pause
from executor.domain.gates import NamedIds
from executor.runner.audit import Extract
from executor.runner.control_requests import ControlInput
from executor.runner.live_processes import LiveProcess
from executor.runner.ports import Event
from executor.runner.requests import ExecuteInput
from executor.runner.run import Progress
from executor.runner.service import Description
from gonogo.policy import KeyUse, Person
from gonogo.v1 import audit_pb2, events_pb2, evidence_pb2, executor_pb2, plan_pb2

BATCH = 200


def event_batches(events: Sequence[Event]) -> list[list[events_pb2.Event]]:
    """Map events in batches of bounded size; at least one batch, which may be empty."""
    messages = [event_to_proto(event) for event in events]
    return [messages[start : start + BATCH] for start in range(0, len(messages), BATCH)] or [[]]


def execute_input(request: executor_pb2.ExecuteRequest, caller: str) -> ExecuteInput:
    """Map a request to execute and who brought it; documents stay the bytes that were carried."""
    return ExecuteInput(
        request_id=request.request_id,
        plan=sealed_from_proto(request.plan),
        report=sealed_from_proto(request.report) if request.HasField("report") else None,
        approvals=tuple(sealed_from_proto(approval) for approval in request.approvals),
        named=NamedIds(
            mission_id=request.mission_id,
            intent_id=request.intent_id,
            workspace_id=request.workspace_id,
            executor_id=request.executor_id,
        ),
        caller=caller,
    )


def control_input(request: executor_pb2.ControlExecutionRequest, caller: str) -> ControlInput:
    """Map a control and who brought it; the document stays the bytes that were carried."""
    return ControlInput(
        request_id=request.request_id,
        mission_id=request.mission_id,
        action=CONTROL_ACTIONS.from_wire(request.action),
        actor=request.actor,
        reason=request.reason,
        roll_back=request.roll_back,
        document=sealed_from_proto(request.document) if request.HasField("document") else None,
        caller=caller,
    )


def execution_message(progress: Progress) -> executor_pb2.Execution:
    """Map how an execution stands."""
    record, pause = progress.record, progress.pause
    outcome = evidence_pb2.OUTCOME_UNSPECIFIED if record.outcome is None else OUTCOMES.to_wire(record.outcome)
    return executor_pb2.Execution(
        execution_id=record.execution_id,
        mission_id=record.mission_id,
        ended=record.ended,
        outcome=outcome,
        started_at=time_to_proto(record.claimed_at),
        completed_at=None if record.ended_at is None else time_to_proto(record.ended_at),
        last_sequence=record.last_sequence,
        state=EXECUTION_STATES.to_wire(progress.state),
        pause=None if pause is None else _pause_message(pause),
        segment=progress.segment,
    )


def _pause_message(pause: Pause) -> executor_pb2.Pause:
    default = pause.default_action
    return executor_pb2.Pause(
        kind=PAUSE_KINDS.to_wire(pause.kind),
        reason=pause.reason,
        step_id=pause.step_id,
        deadline=None if pause.deadline is None else time_to_proto(pause.deadline),
        default_action=plan_pb2.PAUSE_DEFAULT_UNSPECIFIED if default is None else PAUSE_DEFAULTS.to_wire(default),
        results_digest=pause.results_digest,
        change_set_digest=pause.change_set_digest,
        actions=[CONTROL_ACTIONS.to_wire(action) for action in pause.actions],
        repairable=pause.repairable,
    )


def process_message(process: LiveProcess) -> executor_pb2.LiveProcess:
    """Map a program that keeps running."""
    return executor_pb2.LiveProcess(
        process_id=process.process_id,
        mission_id=process.mission_id,
        step_id=process.step_id,
        workspace_id=process.workspace_id,
        command=process.command,
        started_at=time_to_proto(process.started_at),
        running=process.running,
        ended=process.ended,
    )


def description_message(description: Description) -> executor_pb2.GetExecutorResponse:
    """Map who the executor is."""
    trust, policy, found = description.trust, description.trust.policy, description.capabilities
    limits = trust.limits
    return executor_pb2.GetExecutorResponse(
        executor_id=trust.executor_id,
        public_key=description.public_key,
        ledger_epoch=description.ledger_epoch,
        ladder_level=LADDER.to_wire(found.ladder_level),
        findings=[
            executor_pb2.Finding(name=one.name, ok=one.ok, detail=one.detail, remedy=one.remedy)
            for one in found.findings
        ],
        workspaces=[
            executor_pb2.WorkspaceInfo(
                workspace_id=one.workspace_id,
                ladder_level=LADDER.to_wire(one.ladder_level),
                limitation=one.limitation,
            )
            for one in found.workspaces
        ],
        persons=[_person(person) for person in policy.persons if person.approves],
        approvals_required=policy.approvals_required,
        self_approval=SELF_APPROVALS.to_wire(trust.self_approval),
        max_approval_seconds=policy.max_approval_seconds,
        policy_digest=description.in_force.policy_digest,
        version=_version(),
        max_content_bytes=limits.max_content_bytes,
        report_seconds=limits.report_seconds,
        checkpoint_seconds=limits.checkpoint_seconds,
        policy=sealed_to_proto(description.in_force.sealed_policy),
        log_origin=description.log_origin,
        far_sides=[
            executor_pb2.FarSide(kind=one.kind, name=one.name, workspaces=one.workspaces) for one in trust.far_sides
        ],
    )


def extract_message(extract: Extract) -> audit_pb2.LogExtract:
    """Map some entries of the audit log."""
    return audit_pb2.LogExtract(
        checkpoint=extract.checkpoint,
        entries=[
            audit_pb2.LogEntry(index=one.entry.index, leaf=one.entry.leaf, path=one.path) for one in extract.entries
        ],
    )


@functools.cache
def _version() -> str:
    return metadata.version("gonogo")


def _person(person: Person) -> executor_pb2.TrustedPerson:
    return executor_pb2.TrustedPerson(
        person=person.person_id,
        keys=[
            executor_pb2.TrustedKey(key_id=key.key_id, scheme=key.scheme, public_key=key.public_key)
            for key in person.keys
            if key.use is KeyUse.APPROVE
        ],
    )
