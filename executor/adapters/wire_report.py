"""Reports between the contract and the domain."""

from executor.adapters.wire_changes import change_from_proto, change_to_proto, time_to_proto
from executor.adapters.wire_enums import LADDER, RISKS, SELF_APPROVALS, STAGES, STATUSES
from executor.adapters.wire_evidence import evidence_from_proto, set_evidence
from executor.adapters.wire_texts import time_from_proto
from executor.domain.errors import RequestMalformedError
from executor.domain.report import (
    CompensationReport,
    Notice,
    Problem,
    Report,
    RiskFact,
    StepReport,
)
from gonogo.policy import Demand, Proposer
from gonogo.policy_document import demand_from_proto, demand_to_proto, proposer_from_proto, proposer_to_proto
from gonogo.sealing import SealingError
from gonogo.v1 import evidence_pb2


def report_to_proto(report: Report) -> evidence_pb2.Report:
    """Map a report."""
    return evidence_pb2.Report(
        report_id=report.report_id,
        mission_id=report.mission_id,
        intent_id=report.intent_id,
        plan_id=report.plan_id,
        plan_digest=report.plan_digest,
        workspace_id=report.workspace_id,
        executor_id=report.executor_id,
        ledger_epoch=report.ledger_epoch,
        nonce=report.nonce,
        status=STATUSES.to_wire(report.status),
        problems=[_problem_to_proto(problem) for problem in report.problems],
        started_at=time_to_proto(report.started_at),
        completed_at=time_to_proto(report.completed_at),
        ladder_level=LADDER.to_wire(report.ladder_level),
        self_approval=SELF_APPROVALS.to_wire(report.self_approval),
        policy_digest=report.policy_digest,
        base_fingerprint=report.base_fingerprint,
        after_fingerprint=report.after_fingerprint,
        manifest_digest=report.manifest_digest,
        steps=[_step_to_proto(step) for step in report.steps],
        risk=evidence_pb2.Risk(
            level=RISKS.to_wire(report.risk_level),
            facts=[_fact_to_proto(fact) for fact in report.risk_facts],
        ),
        notices=[_notice_to_proto(notice) for notice in report.notices],
        proposer=None if report.proposer is None else proposer_to_proto(report.proposer),
        demand=None if report.demand is None else demand_to_proto(report.demand),
    )


def report_from_proto(message: evidence_pb2.Report) -> Report:
    """Map a report."""
    return Report(
        report_id=message.report_id,
        mission_id=message.mission_id,
        intent_id=message.intent_id,
        plan_id=message.plan_id,
        plan_digest=message.plan_digest,
        workspace_id=message.workspace_id,
        executor_id=message.executor_id,
        ledger_epoch=message.ledger_epoch,
        nonce=message.nonce,
        status=STATUSES.from_wire(message.status),
        problems=tuple(_problem_from_proto(problem) for problem in message.problems),
        started_at=time_from_proto(message, "started_at"),
        completed_at=time_from_proto(message, "completed_at"),
        ladder_level=LADDER.from_wire(message.ladder_level),
        self_approval=SELF_APPROVALS.from_wire(message.self_approval),
        policy_digest=message.policy_digest,
        base_fingerprint=message.base_fingerprint,
        after_fingerprint=message.after_fingerprint,
        manifest_digest=message.manifest_digest,
        steps=tuple(_step_from_proto(step) for step in message.steps),
        risk_level=RISKS.from_wire(message.risk.level),
        risk_facts=tuple(_fact_from_proto(fact) for fact in message.risk.facts),
        notices=tuple(_notice_from_proto(notice) for notice in message.notices),
        proposer=_proposer_from_proto(message),
        demand=_demand_from_proto(message),
    )


def _proposer_from_proto(message: evidence_pb2.Report) -> Proposer | None:
    """Map who proposed; reports of an older release do not say."""
    try:
        return proposer_from_proto(message.proposer) if message.HasField("proposer") else None
    except SealingError as error:
        raise _not_whole(error) from None


def _demand_from_proto(message: evidence_pb2.Report) -> Demand | None:
    """Map what is demanded; reports of an older release do not say."""
    try:
        return demand_from_proto(message.demand) if message.HasField("demand") else None
    except SealingError as error:
        raise _not_whole(error) from None


def _not_whole(error: SealingError) -> RequestMalformedError:
    return RequestMalformedError("MALFORMED", str(error)[:500], "make the dry run again")


def _problem_to_proto(problem: Problem) -> evidence_pb2.Problem:
    return evidence_pb2.Problem(
        step_id=problem.step_id,
        path=problem.path,
        reason=problem.reason,
        message=problem.message,
        remedy=problem.remedy,
    )


def _problem_from_proto(message: evidence_pb2.Problem) -> Problem:
    return Problem(
        step_id=message.step_id,
        path=message.path,
        reason=message.reason,
        message=message.message,
        remedy=message.remedy,
    )


def _fact_to_proto(fact: RiskFact) -> evidence_pb2.RiskFact:
    return evidence_pb2.RiskFact(kind=fact.kind, path=fact.path, detail=fact.detail, level=RISKS.to_wire(fact.level))


def _fact_from_proto(message: evidence_pb2.RiskFact) -> RiskFact:
    return RiskFact(kind=message.kind, path=message.path, detail=message.detail, level=RISKS.from_wire(message.level))


def _notice_to_proto(notice: Notice) -> evidence_pb2.Notice:
    return evidence_pb2.Notice(kind=notice.kind, path=notice.path, message=notice.message)


def _notice_from_proto(message: evidence_pb2.Notice) -> Notice:
    return Notice(kind=message.kind, path=message.path, message=message.message)


def _step_to_proto(step: StepReport) -> evidence_pb2.StepReport:
    message = evidence_pb2.StepReport(
        step_id=step.step_id,
        kind=step.kind,
        stage=STAGES.to_wire(step.stage),
        success=step.success,
        changes=[change_to_proto(change) for change in step.changes],
        duration_ms=step.duration_ms,
        not_simulated=step.not_simulated,
        irreversible=step.irreversible,
        needs_approval=step.needs_approval,
        compensation=None if step.compensation is None else _compensation_to_proto(step.compensation),
    )
    if step.evidence is not None:
        set_evidence(message, step.evidence)
    return message


def _step_from_proto(message: evidence_pb2.StepReport) -> StepReport:
    return StepReport(
        step_id=message.step_id,
        kind=message.kind,
        stage=STAGES.from_wire(message.stage),
        success=message.success,
        changes=tuple(change_from_proto(change) for change in message.changes),
        evidence=evidence_from_proto(message),
        duration_ms=message.duration_ms,
        not_simulated=message.not_simulated,
        irreversible=message.irreversible,
        needs_approval=message.needs_approval,
        compensation=_compensation_from_proto(message.compensation) if message.HasField("compensation") else None,
    )


def _compensation_to_proto(compensation: CompensationReport) -> evidence_pb2.CompensationReport:
    return evidence_pb2.CompensationReport(
        kind=compensation.kind,
        target=compensation.target,
        description=compensation.description,
        not_simulated=compensation.not_simulated,
    )


def _compensation_from_proto(message: evidence_pb2.CompensationReport) -> CompensationReport:
    return CompensationReport(
        kind=message.kind,
        target=message.target,
        description=message.description,
        not_simulated=message.not_simulated,
    )
