"""The executor's own documents: reports, receipts and refusals, each sealed once and signed at once."""

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from executor.domain.errors import ExecutorError, GateRefusedError
from executor.domain.facts import facts_of
from executor.domain.plan import Plan
from executor.domain.receipt import ExecutionResult, Receipt, Refusal, SegmentRecord
from executor.domain.redaction import Redactor, no_secrets
from executor.domain.report import Report, StepReport
from executor.domain.sealed import SealedBytes
from executor.runner.ids import new_id
from executor.runner.keyring import DocumentSigner
from executor.runner.ports import Claim, Documents, Simulation
from executor.runner.redacted import redacted, redacted_result, redacted_simulation
from executor.runner.requests import ExecuteInput
from executor.runner.trust import InForce, TrustInForce
from gonogo import sealing
from gonogo.policy import Demand, Proposer, demand_of
from gonogo.safe_text import shown_path

MAX_PATHS = 50
# A refusal travels in the trailers of a call, where eight KiB is all there is; `path_count` tells the full number.
MAX_PATH_TEXT = 1024
MAX_TEXT_BYTES = 360

MILLISECOND = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Writes what the executor answers for."""

    trust: TrustInForce
    epoch: str
    documents: Documents
    signer: DocumentSigner
    now: Callable[[], datetime]
    redactor: Callable[[], Redactor] = no_secrets
    """What is taken out of every word before a document is sealed."""

    def report(
        self,
        plan: Plan,
        plan_digest: str,
        found: Simulation,
        started_at: datetime,
        in_force: InForce,
        proposer: Proposer,
    ) -> tuple[Report, SealedBytes]:
        """Write the report of a dry run that was made under a trust file, and what that file demands of its approval.

        A demand that refuses stands in the report like any other: nobody can approve it, and the report says why.
        """
        completed_at = self.now()
        simulation = redacted_simulation(found, self.redactor())
        demand = _demanded(in_force, plan, simulation, proposer, completed_at)
        report = Report(
            report_id=new_id("r"),
            mission_id=plan.mission_id,
            intent_id=plan.intent_id,
            plan_id=plan.plan_id,
            plan_digest=plan_digest,
            workspace_id=plan.workspace_id,
            executor_id=self.trust.last().trust.executor_id,
            ledger_epoch=self.epoch,
            nonce=secrets.token_hex(16),
            status=simulation.status,
            problems=simulation.problems,
            started_at=started_at,
            completed_at=completed_at,
            ladder_level=simulation.ladder_level,
            self_approval=in_force.trust.self_approval,
            policy_digest=in_force.policy_digest,
            base_fingerprint=simulation.base_fingerprint,
            after_fingerprint=simulation.after_fingerprint,
            manifest_digest=simulation.manifest_digest,
            steps=_marked(plan, simulation.steps, demand),
            risk_level=simulation.risk_level,
            risk_facts=simulation.risk_facts,
            notices=simulation.notices,
            proposer=proposer,
            demand=demand,
        )
        return report, self.signer.sign(sealing.REPORT, self.documents.seal_report(report))

    def receipt(
        self, claims: Sequence[Claim], reports: Sequence[Report], result: ExecutionResult
    ) -> tuple[Receipt, SealedBytes]:
        """Write the receipt of an execution that ended, or that nobody knows the end of.

        Args:
            claims: what it claimed, segment by segment.
            reports: the report of each.
            result: what came of all of them together.
        """
        completed_at = self.now()
        (claim, *later), (report, *_) = claims, reports
        receipt = Receipt(
            receipt_id=new_id("rc"),
            execution_id=claim.execution_id,
            mission_id=claim.mission_id,
            intent_id=claim.intent_id,
            message_id=claim.message_id,
            transcription_id=claim.transcription_id,
            plan_id=claim.plan_id,
            plan_digest=claim.plan_digest,
            report_id=report.report_id,
            report_digest=claim.report_digest,
            approvals=claim.approvals,
            executor_id=self.trust.last().trust.executor_id,
            workspace_id=claim.workspace_id,
            ledger_epoch=self.epoch,
            ladder_level=report.ladder_level,
            self_approval=claim.self_approval,
            policy_digest=claim.policy_digest,
            started_at=claim.claimed_at,
            completed_at=completed_at,
            execution_duration_ms=(completed_at - claim.claimed_at) // MILLISECOND,
            base_fingerprint=report.base_fingerprint,
            expected_after_fingerprint=report.after_fingerprint,
            result=redacted_result(result, self.redactor()),
            gates=claim.gates,
            proposer=claim.proposer,
            demand=claim.demand,
            segments=tuple(_segment(one, its) for one, its in zip(later, reports[1:], strict=True)),
        )
        return receipt, self.signer.sign(sealing.RECEIPT, self.documents.seal_receipt(receipt))

    def refusal(self, request: ExecuteInput, error: ExecutorError) -> tuple[Refusal, SealedBytes]:
        """Write that nothing was done, and why."""
        fault = error.fault
        refusal = Refusal(
            refusal_id=new_id("rf"),
            mission_id=trailer_text(request.named.mission_id),
            plan_digest=request.plan.digest,
            report_digest=request.report.digest if request.report and request.report.body else "",
            executor_id=self.trust.last().trust.executor_id,
            gate=error.gate if isinstance(error, GateRefusedError) else 0,
            abort_reason=fault.reason,
            message=trailer_text(fault.message),
            remedy=trailer_text(fault.remedy),
            paths=_first(fault.paths),
            path_count=len(fault.paths),
            refused_at=self.now(),
        )
        refusal = redacted(refusal, self.redactor())
        return refusal, self.signer.sign(sealing.REFUSAL, self.documents.seal_refusal(refusal))


def _segment(claim: Claim, report: Report) -> SegmentRecord:
    """Return what a later segment of an execution stood on."""
    return SegmentRecord(
        segment=claim.segment,
        plan_id=claim.plan_id,
        plan_digest=claim.plan_digest,
        report_id=report.report_id,
        report_digest=claim.report_digest,
        approvals=claim.approvals,
        started_at=claim.claimed_at,
        gates=claim.gates,
        proposer=claim.proposer,
        demand=claim.demand,
        journal_digest=claim.journal_digest,
    )


def _marked(plan: Plan, steps: Sequence[StepReport], demand: Demand) -> tuple[StepReport, ...]:
    """Return what a dry run found of each step, with the mark on those that will wait for a signature of their own."""
    asked = {step.step_id for step in plan.steps if step.needs_approval} | set(demand.approve_steps)
    return tuple(replace(step, needs_approval=True) if step.step_id in asked else step for step in steps)


def _demanded(in_force: InForce, plan: Plan, simulation: Simulation, proposer: Proposer, at: datetime) -> Demand:
    """Return what the policy demands of the approvals of a dry run's report."""
    facts = facts_of(
        plan,
        steps=simulation.steps,
        risk_level=simulation.risk_level,
        risk_facts=simulation.risk_facts,
        proposer=proposer,
        at=at,
    )
    return demand_of(in_force.trust.policy, facts)


def trailer_text(text: str) -> str:
    """Make any text one that a document and a call's trailers can hold: whole characters, few bytes."""
    raw = text.encode("utf-8", "backslashreplace")
    if len(raw) <= MAX_TEXT_BYTES:
        return raw.decode()
    return raw[:MAX_TEXT_BYTES].decode("utf-8", "ignore") + "…"


def _first(paths: tuple[bytes, ...]) -> tuple[bytes, ...]:
    kept: list[bytes] = []
    room = MAX_PATH_TEXT
    for path in paths[:MAX_PATHS]:
        room -= len(json.dumps(shown_path(path)))
        if room < 0:
            break
        kept.append(path)
    return tuple(kept)
