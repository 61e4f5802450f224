"""What each gate saw when it held, in few words: ids, digests, keys and counts, for whoever reads a receipt."""

from collections.abc import Sequence
from dataclasses import dataclass

from executor.domain.gates import APPROVED, DRIFT, MISSION, ONCE, PLAN, REPORT, SIMULATION, GivenApproval
from executor.domain.plan import Plan
from executor.domain.receipt import GateRecord
from executor.domain.report import Report
from gonogo.policy import Demand, Proposer, shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Everything that stood before the gates of one request when they held."""

    plan: Plan
    plan_digest: str
    report: Report
    report_digest: str
    given: Sequence[GivenApproval]
    proposer: Proposer
    demand: Demand
    policy_digest: str
    changes: int
    """Changed paths of all steps, each step's counted."""
    execution_id: str


def gate_records(seen: Seen) -> tuple[GateRecord, ...]:
    """Return one record for each of the seven gates, in their order."""
    plan, report = seen.plan, seen.report
    number = len(seen.given)
    segment = f", segment {plan.segment}," if plan.segment else ""
    approvals = "1 approval" if number == 1 else f"{number} approvals"
    return (
        _record(
            REPORT, "report_exists", f"{report.report_id}, {seen.report_digest}, issued in epoch {report.ledger_epoch}"
        ),
        _record(
            SIMULATION, "simulation_succeeded", f"{report.status.value} at ladder level {report.ladder_level.name}"
        ),
        _record(APPROVED, "approved", _approved(seen)),
        _record(PLAN, "plan_matches", f"{plan.plan_id}, {seen.plan_digest}, in report and {approvals}"),
        _record(
            MISSION,
            "mission_matches",
            f"{plan.mission_id}, intent {plan.intent_id or 'none'}, workspace {plan.workspace_id}, "
            f"executor {plan.executor_id}, in request, plan, report and {approvals}",
        ),
        _record(DRIFT, "no_drift", _base(seen)),
        _record(ONCE, "once", f"{plan.mission_id}{segment} claimed by {seen.execution_id}"),
    )


def demand_words(demand: Demand) -> str:
    """Return what was demanded."""
    wanted = " and ".join(map(shown, demand.requirements))
    hardware = ", with hardware keys" if demand.hardware_key else ""
    rules = f", by rule {', '.join(demand.rules)}" if demand.rules else ""
    return f"{wanted}{hardware}{rules}"


def proposer_words(proposer: Proposer) -> str:
    """Return who proposed."""
    behind = f" for {proposer.sponsor}" if proposer.sponsor else ""
    return f"{proposer.kind.value} {proposer.person}{behind}".strip()


def _record(gate: int, name: str, detail: str) -> GateRecord:
    return GateRecord(gate=gate, name=name, detail=detail)


def _approved(seen: Seen) -> str:
    who = ", ".join(f"{one.person} by {one.key_id} ({one.scheme})" for one in seen.given)
    wanted = demand_words(seen.demand)
    return f"{who}; demanded: {wanted}; proposer: {proposer_words(seen.proposer)}; policy {seen.policy_digest}"


def _base(seen: Seen) -> str:
    manifest = f" and manifest {seen.report.manifest_digest}" if seen.report.manifest_digest else ""
    return f"{seen.changes} changed paths{manifest} compared, base {seen.report.base_fingerprint}"
