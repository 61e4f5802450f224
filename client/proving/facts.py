"""What the policy's rules look at, taken from the sealed plan and report: the same as the executor computes."""

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from client.json_form import short_name
from gonogo.policy import Facts, Proposer
from gonogo.v1 import evidence_pb2, plan_pb2


def facts_of(plan: plan_pb2.Plan, report: evidence_pb2.Report, *, proposer: Proposer, at: datetime) -> Facts:
    """Return the facts of a plan and its report at a moment.

    Raises:
        ValueError: the report gives a file's size as something else than a number.
    """
    return Facts(
        step_kinds=frozenset(step.WhichOneof("action") or "" for step in plan.steps),
        risk_facts=frozenset(fact.kind for fact in report.risk.facts),
        risk=short_name(report.risk, "level") or None,
        workspace_id=plan.workspace_id,
        changes=sum(len(step.changes) for step in report.steps),
        size=sum(_size(change) for step in report.steps for change in step.changes),
        at=at,
        proposer=proposer,
        steps=tuple((step.step_id, step.WhichOneof("action") or "") for step in plan.steps),
    )


def moment(time: Timestamp) -> datetime:
    """Return a document's time.

    Raises:
        ValueError: no such time.
    """
    return time.ToDatetime(tzinfo=UTC)


def _size(change: evidence_pb2.Change) -> int:
    if not change.HasField("new") or change.new.type != evidence_pb2.NODE_TYPE_FILE:
        return 0
    return int(change.new.size or "0")
