"""The seven gates: what must hold before anything happens.

They are checked in the order of their numbers, after one first read: a mission that the ledger holds is answered at
once, unless its execution waits and takes a repair plan.
The first gate that fails answers, and nothing has been touched, written or used up then; only a person's no that
came with the request is kept, since it is final.

    first   the ledger does not hold the mission, or its execution waits for the next segment's plan
    1       this executor issued the report, in its present ledger epoch and not too long ago
    2       the dry run was a success
    3       those whom the policy demands approved, by their own signatures, in time, and nobody took it back
    4       report and approvals are about exactly these plan bytes
    5       all documents are about the same mission, intent, workspace and executor
    6       the workspace is what the report was made from                   (under the workspace's lock)
    7       the ledger took the mission, or the next segment of it, durably  (under the workspace's lock)

A repair plan passes the same seven gates with a report and approvals of its own. Besides, it must fit the execution
that waits: its id, the next segment, the digest of what it has done, steps of other names, the same intent and
workspace (`executor.runner.repairs`). That is looked at with gate 5, as soon as the plan may be read, and again before
the claim.

What a gate has shown is a type, not a flag. `Gates.check` alone makes a CheckedRequest, `Gates.claim` alone turns one
into a VerifiedRequest, and only a VerifiedRequest can be run. Signatures are verified over the carried bytes; only
then are those same bytes parsed, strictly.
"""

from collections.abc import Callable, Container
from typing import Final

from executor.domain import gates as rules
from executor.domain.approval import check_report_named
from executor.domain.errors import DriftError, ExecutorError, GateRefusedError
from executor.domain.gate_records import Seen, gate_records
from executor.domain.gates import APPROVED, DRIFT, ONCE, REPORT, GivenApproval
from executor.domain.plan import Plan
from executor.domain.plan_paths import target_of
from executor.domain.receipt import ApprovalRecord
from executor.domain.report import Report
from executor.domain.sealed import SealedBytes
from executor.runner.approvals import Agreement, ApprovalGate
from executor.runner.clock import EffectiveClock
from executor.runner.control_ports import NothingPaused, Paused
from executor.runner.documents import OpenDocuments
from executor.runner.ids import new_id
from executor.runner.ports import Claim, ClaimConflict, FindDrift, Ledger, RequestRecord, Standing
from executor.runner.repairs import ANEW, STANDING, Repairs
from executor.runner.requests import EXECUTE, ExecuteInput
from executor.runner.trust import InForce
from executor.workspace.workspace import Workspace

_MADE_BY_THE_GATES: Final = object()


class CheckedRequest:
    """A request for which the gates 1 to 5 hold. Only the gates can make one."""

    __slots__ = ("agreement", "plan", "report", "report_digest", "request")

    def __init__(
        self,
        proof: object,
        *,
        request: ExecuteInput,
        plan: Plan,
        report: Report,
        report_digest: str,
        agreement: Agreement,
    ) -> None:
        if proof is not _MADE_BY_THE_GATES:
            raise TypeError("a checked request is made by the gates alone")
        self.request = request
        self.plan = plan
        self.report = report
        self.report_digest = report_digest
        self.agreement = agreement


class VerifiedRequest:
    """A request for which all gates hold and whose mission is claimed. Only the gates can make one."""

    __slots__ = ("claim", "plan", "report")

    def __init__(self, proof: object, *, checked: CheckedRequest, claim: Claim) -> None:
        if proof is not _MADE_BY_THE_GATES:
            raise TypeError("a verified request is made by the gates alone")
        self.plan = checked.plan
        self.report = checked.report
        self.claim = claim


class Gates:
    """Checks requests against the executor's own keys, policy, clock, ledger and workspaces."""

    def __init__(
        self,
        *,
        trust: Callable[[], InForce],
        approvals: ApprovalGate,
        ledger: Ledger,
        documents: OpenDocuments,
        workspaces: Container[str],
        find_drift: FindDrift,
        clock: EffectiveClock,
        paused: Paused | None = None,
    ) -> None:
        self._repairs = Repairs(ledger, paused or NothingPaused())
        self._trust = trust
        self._approvals = approvals
        self._ledger = ledger
        self._documents = documents
        self._workspaces = workspaces
        self._find_drift = find_drift
        self._clock = clock

    def check(self, request: ExecuteInput) -> CheckedRequest:
        """Check the first read, that time and trust file can be relied on, and the gates 1 to 5.

        Raises:
            GateRefusedError: a gate does not hold.
            RequestMalformedError: a signed document is not strictly one of its kind.
            ExecutorError: reason CLOCK_BEHIND, TRUST_EXPIRED or STATE_FORBIDS; nothing can be decided now.
        """
        self._repairs.check_open(request.named.mission_id, request.plan.digest)
        now, in_force = self._clock.checked(), self._trust()
        sealed = self._check_issued(request.report)
        report = self._documents.report(sealed)
        self._check_age(report, in_force)
        rules.check_simulation(report)
        agreement = self._approvals.check(request, report, in_force, now)
        plan = self._matching_plan(request.plan.digest, report, sealed.digest, agreement)
        self._check_mission(request, plan, report, agreement)
        return CheckedRequest(
            _MADE_BY_THE_GATES,
            request=request,
            plan=plan,
            report=report,
            report_digest=sealed.digest,
            agreement=agreement,
        )

    def claim(self, checked: CheckedRequest, workspace: Workspace) -> VerifiedRequest:
        """Check the gates 6 and 7; the caller holds the workspace's lock and keeps it until the execution has ended.

        For a repair plan it is the thread that waits which holds the lock, and the caller keeps that waiting.

        Raises:
            GateRefusedError: the workspace drifted, an approval does not hold any more, or somebody else was first.
        """
        try:
            self._repairs.check_fits(checked.plan)
            self._check_no_drift(checked, workspace)
            claim = self._claim_of(checked, self._agreed_now(checked))
        except ExecutorError:
            # Whoever held the lock before us may have run this very mission; that is the answer then, and not drift.
            self._repairs.check_open(checked.plan.mission_id, checked.request.plan.digest, gate=ONCE)
            raise
        conflict = self._ledger.claim(
            claim,
            RequestRecord(
                request_id=checked.request.request_id,
                kind=EXECUTE,
                body_digest=checked.request.body_digest,
                reference=claim.execution_id,
            ),
            checked.request.plan,
        )
        if conflict is not None:
            raise self._not_taken(conflict, checked)
        return VerifiedRequest(_MADE_BY_THE_GATES, checked=checked, claim=claim)

    def _agreed_now(self, checked: CheckedRequest) -> Agreement:
        """Check gate 3 for the moment of the claim.

        While the workspace was waited for and compared an approval may have run out or a rule of the night begun. Where
        it was the trust file that changed, all gates are checked again. What was revoked meanwhile the ledger itself
        looks at when it takes the claim.
        """
        now = self._clock.checked()
        if self._trust() is not checked.agreement.in_force:
            return self.check(checked.request).agreement
        return self._approvals.again(checked.agreement, checked.report, now)

    def _check_issued(self, sealed: SealedBytes | None) -> SealedBytes:
        if sealed is None or not sealed.body:
            raise GateRefusedError(
                REPORT, "REPORT_MISSING", "the request carries no report", "dry run the plan and send its report"
            )
        if self._ledger.report_epoch(sealed.digest) != self._ledger.epoch:
            raise GateRefusedError(
                REPORT,
                "REPORT_UNKNOWN",
                "this executor did not issue that report, or its ledger began anew since",
                "dry run the plan again on this executor and have the new report approved",
            )
        return sealed

    def _check_age(self, report: Report, in_force: InForce) -> None:
        """Refuse a report whose contents need not be kept any more."""
        lifetime = in_force.trust.limits.report_lifetime
        if self._clock.now() - report.completed_at > lifetime:
            raise GateRefusedError(
                REPORT,
                "REPORT_UNKNOWN",
                f"the report is older than {int(lifetime.total_seconds())} seconds: its contents need not be here",
                "make the dry run again and have the new report approved",
            )

    def _matching_plan(self, plan_digest: str, report: Report, report_digest: str, agreement: Agreement) -> Plan:
        rules.check_plan_digests(plan_digest, report, agreement.signed)
        rules.check_plan_matches(agreement.plan, report, agreement.signed)
        for one in agreement.signed:
            check_report_named(one.approval, report, report_digest)
        return agreement.plan

    def _check_mission(self, request: ExecuteInput, plan: Plan, report: Report, agreement: Agreement) -> None:
        rules.check_mission_matches(request.named, plan, report, agreement.signed)
        self._repairs.check_fits(plan)
        executor_id = agreement.in_force.trust.executor_id
        if plan.executor_id != executor_id:
            raise GateRefusedError(
                rules.MISSION,
                "EXECUTOR_MISMATCH",
                f"the mission is for executor {plan.executor_id!r}",
                f"this is {executor_id!r}; send the mission to the executor that it names",
            )
        if plan.workspace_id not in self._workspaces:
            raise GateRefusedError(
                rules.MISSION,
                "WORKSPACE_UNKNOWN",
                f"this executor serves no workspace {plan.workspace_id!r} now",
                "start the executor with --workspace ID=/path again",
            )

    def _check_no_drift(self, checked: CheckedRequest, workspace: Workspace) -> None:
        try:
            paths = self._find_drift(checked.plan, checked.report, workspace)
        except DriftError as error:
            fault = error.fault
            raise GateRefusedError(DRIFT, "BASE_DRIFTED", fault.message, fault.remedy, paths=fault.paths) from None
        if paths:
            raise _drifted(paths)

    def _claim_of(self, checked: CheckedRequest, agreement: Agreement) -> Claim:
        plan, request, in_force = checked.plan, checked.request, agreement.in_force
        execution_id = plan.execution_id or new_id("x")
        return Claim(
            mission_id=plan.mission_id,
            segment=plan.segment,
            execution_id=execution_id,
            intent_id=plan.intent_id,
            message_id=plan.message_id,
            transcription_id=plan.transcription_id,
            plan_id=plan.plan_id,
            plan_digest=request.plan.digest,
            report_digest=checked.report_digest,
            workspace_id=plan.workspace_id,
            approvals=tuple(_record(one) for one in agreement.given),
            nonces=tuple(one.approval.nonce for one in agreement.given),
            self_approval=in_force.trust.self_approval,
            policy_digest=in_force.policy_digest,
            claimed_at=agreement.facts.at,
            failure_policy=plan.failure_policy,
            targets=tuple(target_of(step.action) for step in plan.steps),
            gates=gate_records(_seen(checked, agreement, execution_id)),
            proposer=agreement.facts.proposer,
            demand=agreement.demand,
            journal_digest=plan.journal_digest,
        )

    def _not_taken(self, conflict: ClaimConflict, checked: CheckedRequest) -> GateRefusedError:
        match conflict:
            case ClaimConflict.MISSION_CLAIMED:
                return GateRefusedError(ONCE, *STANDING[Standing.CLAIMED])
            case ClaimConflict.MISSION_EXECUTED:
                return GateRefusedError(ONCE, *STANDING[Standing.EXECUTED])
            case ClaimConflict.APPROVAL_USED:
                return _used()
            case ClaimConflict.OUT_OF_ORDER:
                return GateRefusedError(ONCE, "STATE_FORBIDS", "the plan is not for the execution's next segment", ANEW)
            case ClaimConflict.REVOKED:
                # The ledger has said so; this only finds the words.
                self._approvals.check_not_revoked(checked.plan.mission_id, checked.agreement.given)
                return GateRefusedError(
                    APPROVED, "APPROVAL_REVOKED", "an approval was taken back", "have the mission approved again"
                )


def _seen(checked: CheckedRequest, agreement: Agreement, execution_id: str) -> Seen:
    return Seen(
        plan=checked.plan,
        plan_digest=checked.request.plan.digest,
        report=checked.report,
        report_digest=checked.report_digest,
        given=agreement.given,
        proposer=agreement.facts.proposer,
        demand=agreement.demand,
        policy_digest=agreement.in_force.policy_digest,
        changes=agreement.facts.changes or 0,
        execution_id=execution_id,
    )


def _record(one: GivenApproval) -> ApprovalRecord:
    return ApprovalRecord(
        approval_id=one.approval.approval_id,
        approval_digest=one.digest,
        approver=one.person,
        key_id=one.key_id,
        approved_at=one.approval.approved_at,
        scheme=one.scheme,
        expires_at=one.approval.expires_at,
        hardware_key=one.hardware,
    )


def _drifted(paths: tuple[bytes, ...]) -> GateRefusedError:
    return GateRefusedError(
        DRIFT,
        "BASE_DRIFTED",
        f"the workspace changed after the dry run, at {len(paths)} paths",
        "dry run the plan again and have the new report approved",
        paths=paths,
    )


def _used() -> GateRefusedError:
    return GateRefusedError(
        APPROVED,
        "NOT_APPROVED",
        "one of the approvals was used already, for another mission or another plan of this one",
        "approve this report; an approval is good once",
    )
