"""The seven gates: what must hold before anything happens.

They are checked in the order of their numbers, after one first read: a mission that the ledger holds is answered at
once. The first gate that fails answers, and nothing has been touched, written or used up then.

    first   the ledger does not hold the mission
    1       this executor issued the report, in its present ledger epoch and not too long ago
    2       the dry run was a success
    3       enough persons approved, by their own signatures, in time
    4       report and approvals are about exactly these plan bytes
    5       all documents are about the same mission, intent, workspace and executor
    6       the workspace is what the report was made from                   (under the workspace's lock)
    7       the ledger took the mission, durably                             (under the workspace's lock)

What a gate has shown is a type, not a flag. `Gates.check` alone makes a CheckedRequest, `Gates.claim` alone turns one
into a VerifiedRequest, and only a VerifiedRequest can be run. Signatures are verified over the carried bytes; only
then are those same bytes parsed, strictly.
"""

from collections.abc import Callable, Container
from datetime import datetime
from typing import Final

from executor.domain import gates as rules
from executor.domain.approval import check_decision, check_report_named, check_window
from executor.domain.errors import DriftError, GateRefusedError
from executor.domain.gates import APPROVED, DRIFT, ONCE, REPORT, GivenApproval
from executor.domain.plan import Plan
from executor.domain.plan_paths import target_of
from executor.domain.plan_rules import is_identifier
from executor.domain.policy import Trust
from executor.domain.receipt import ApprovalRecord
from executor.domain.report import Report, SelfApproval
from executor.domain.sealed import SealedBytes
from executor.runner.documents import OpenDocuments
from executor.runner.ids import new_id
from executor.runner.keyring import Keyring, UnknownKeyError
from executor.runner.ports import Claim, ClaimConflict, FindDrift, Ledger, RequestRecord, Standing
from executor.runner.requests import EXECUTE, ExecuteInput, malformed
from executor.workspace.workspace import Workspace
from gonogo.signatures import SignatureError

_MADE_BY_THE_GATES: Final = object()

SEGMENT = 0

STANDING = {
    Standing.CLAIMED: ("ALREADY_CLAIMED", "Mission is being executed", "watch the execution that runs"),
    Standing.EXECUTED: ("ALREADY_EXECUTED", "Mission has already been executed", "propose a new mission"),
}


class CheckedRequest:
    """A request for which the gates 1 to 5 hold. Only the gates can make one."""

    __slots__ = ("given", "plan", "report", "report_digest", "request")

    def __init__(
        self,
        proof: object,
        *,
        request: ExecuteInput,
        plan: Plan,
        report: Report,
        report_digest: str,
        given: tuple[GivenApproval, ...],
    ) -> None:
        if proof is not _MADE_BY_THE_GATES:
            raise TypeError("a checked request is made by the gates alone")
        self.request = request
        self.plan = plan
        self.report = report
        self.report_digest = report_digest
        self.given = given


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
        trust: Trust,
        keyring: Keyring,
        ledger: Ledger,
        documents: OpenDocuments,
        workspaces: Container[str],
        find_drift: FindDrift,
        now: Callable[[], datetime],
    ) -> None:
        self._trust = trust
        self._keyring = keyring
        self._ledger = ledger
        self._documents = documents
        self._workspaces = workspaces
        self._find_drift = find_drift
        self._now = now

    def check(self, request: ExecuteInput) -> CheckedRequest:
        """Check the first read and the gates 1 to 5.

        Raises:
            GateRefusedError: a gate does not hold.
            RequestMalformedError: a signed document is not strictly one of its kind.
        """
        self.check_free(request.named.mission_id)
        sealed = self._check_issued(request.report)
        report = self._documents.report(sealed)
        self._check_age(report)
        rules.check_simulation(report)
        given = self._approvals(request, report)
        plan = self._matching_plan(request.plan, report, sealed.digest, given)
        self._check_mission(request, plan, report, given)
        return CheckedRequest(
            _MADE_BY_THE_GATES, request=request, plan=plan, report=report, report_digest=sealed.digest, given=given
        )

    def check_free(self, mission_id: str, *, gate: int = 0) -> None:
        """Refuse a mission that the ledger holds: the first read, and again once the workspace is locked."""
        standing = self._ledger.standing(mission_id, SEGMENT)
        if standing is not Standing.FREE:
            raise GateRefusedError(gate, *STANDING[standing])

    def claim(self, checked: CheckedRequest, workspace: Workspace) -> VerifiedRequest:
        """Check the gates 6 and 7; the caller holds the workspace's lock and keeps it until the execution has ended.

        Raises:
            GateRefusedError: the workspace drifted, or somebody else was first.
        """
        # Whoever held the lock before us may have run this very mission; that is the answer then, and not drift. And
        # while we waited for the lock an approval may have run out.
        self.check_free(checked.request.named.mission_id, gate=ONCE)
        self._check_windows(checked.given)
        self._check_no_drift(checked, workspace)
        claim = self._claim_of(checked)
        conflict = self._ledger.claim(
            claim,
            RequestRecord(
                request_id=checked.request.request_id,
                kind=EXECUTE,
                body_digest=checked.request.body_digest,
                reference=claim.execution_id,
            ),
        )
        if conflict is not None:
            raise _not_taken(conflict)
        return VerifiedRequest(_MADE_BY_THE_GATES, checked=checked, claim=claim)

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

    def _check_age(self, report: Report) -> None:
        """Refuse a report whose contents need not be kept any more."""
        lifetime = self._trust.policy.report_lifetime
        if self._now() - report.completed_at > lifetime:
            raise GateRefusedError(
                REPORT,
                "REPORT_UNKNOWN",
                f"the report is older than {int(lifetime.total_seconds())} seconds: its contents need not be here",
                "make the dry run again and have the new report approved",
            )

    def _approvals(self, request: ExecuteInput, report: Report) -> tuple[GivenApproval, ...]:
        policy = self._trust.policy
        if not policy.in_force:
            raise GateRefusedError(
                APPROVED,
                "NOT_APPROVED",
                "the executor's trust file has no policy, so nothing can be approved",
                "have the operator write a [policy] table into the trust file",
            )
        if not request.approvals:
            raise GateRefusedError(
                APPROVED, "NOT_APPROVED", "nobody has approved the plan", "have the plan and its report approved"
            )
        once = {sealed.digest: sealed for sealed in request.approvals}  # the same document twice is one approval
        given = tuple(self._given(sealed) for sealed in once.values())
        for one in given:
            check_decision(one.approval)
        self._check_windows(given)
        excluded = self._excluded(request.plan, report)
        rules.check_quorum(given, required=policy.approvals_required, excluded=excluded)
        return given

    def _check_windows(self, given: tuple[GivenApproval, ...]) -> None:
        now = self._now()
        for one in given:
            check_window(one.approval, now=now, max_seconds=self._trust.policy.max_approval_seconds)

    def _given(self, sealed: SealedBytes) -> GivenApproval:
        if len(sealed.signatures) != 1:
            raise _bad_signature(f"an approval carries {len(sealed.signatures)} signatures, not one")
        signature = sealed.signatures[0]
        try:
            person = self._keyring.signer(sealed, signature)
        except UnknownKeyError:
            raise GateRefusedError(
                APPROVED,
                "APPROVER_UNKNOWN",
                f"the trust file names nobody with the key {signature.key_id[:100]!r}",
                "approve with a key of the executor's trust file, or have its operator add this one",
            ) from None
        except SignatureError as error:
            raise _bad_signature(str(error)) from None
        approval = self._documents.approval(sealed)
        if not is_identifier(approval.approval_id) or not is_identifier(approval.nonce):
            raise malformed(
                "an approval has no approval_id or no nonce", "make the approval with a client of this release"
            )
        if approval.approver != person:
            raise _bad_signature(f"{person} signed an approval in the name of {approval.approver[:100]!r}")
        return GivenApproval(approval=approval, digest=sealed.digest, person=person, key_id=signature.key_id)

    def _excluded(self, plan: SealedBytes, report: Report) -> frozenset[str]:
        """Return the persons whose approval does not count because they proposed the plan."""
        if self._trust.policy.self_approval is SelfApproval.ALLOWED:
            return frozenset()
        if plan.digest != report.plan_digest:
            return frozenset()  # not the plan of the report: its words say nothing, and gate 4 refuses it
        proposer = self._documents.plan(plan).proposer
        if proposer not in self._signers(plan):
            raise GateRefusedError(
                APPROVED,
                "SELF_APPROVAL",
                "nobody has proven to be the plan's proposer, so the approver may be the proposer",
                "let the proposer sign the plan with a key of the trust file, "
                'or have the operator write self_approval = "allowed" into it',
            )
        return frozenset({proposer})

    def _signers(self, document: SealedBytes) -> set[str]:
        signers: set[str] = set()
        for signature in document.signatures:
            try:
                signers.add(self._keyring.signer(document, signature))
            except UnknownKeyError:
                continue  # the orchestrator's own, for instance; it proves nobody
            except SignatureError as error:
                raise _bad_signature(f"the plan's signature does not hold: {error}") from None
        return signers

    def _matching_plan(
        self, sealed: SealedBytes, report: Report, report_digest: str, given: tuple[GivenApproval, ...]
    ) -> Plan:
        rules.check_plan_digests(sealed.digest, report, given)
        plan = self._documents.plan(sealed)
        rules.check_plan_matches(plan, report, given)
        for one in given:
            check_report_named(one.approval, report, report_digest)
        return plan

    def _check_mission(
        self, request: ExecuteInput, plan: Plan, report: Report, given: tuple[GivenApproval, ...]
    ) -> None:
        rules.check_mission_matches(request.named, plan, report, given)
        if plan.executor_id != self._trust.executor_id:
            raise GateRefusedError(
                rules.MISSION,
                "EXECUTOR_MISMATCH",
                f"the mission is for executor {plan.executor_id!r}",
                f"this is {self._trust.executor_id!r}; send the mission to the executor that it names",
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

    def _claim_of(self, checked: CheckedRequest) -> Claim:
        plan, request = checked.plan, checked.request
        return Claim(
            mission_id=plan.mission_id,
            segment=SEGMENT,
            execution_id=new_id("x"),
            intent_id=plan.intent_id,
            message_id=plan.message_id,
            transcription_id=plan.transcription_id,
            plan_id=plan.plan_id,
            plan_digest=request.plan.digest,
            report_digest=checked.report_digest,
            workspace_id=plan.workspace_id,
            approvals=tuple(_record(one) for one in checked.given),
            nonces=tuple(one.approval.nonce for one in checked.given),
            self_approval=self._trust.policy.self_approval,
            policy_digest=self._trust.policy_digest,
            claimed_at=self._now(),
            failure_policy=plan.failure_policy,
            targets=tuple(target_of(step.action) for step in plan.steps),
        )


def _record(one: GivenApproval) -> ApprovalRecord:
    return ApprovalRecord(
        approval_id=one.approval.approval_id,
        approval_digest=one.digest,
        approver=one.person,
        key_id=one.key_id,
        approved_at=one.approval.approved_at,
    )


def _bad_signature(message: str) -> GateRefusedError:
    return GateRefusedError(
        APPROVED,
        "SIGNATURE_INVALID",
        message,
        "sign the approval again with the approver's own key; a document changes with every byte",
    )


def _drifted(paths: tuple[bytes, ...]) -> GateRefusedError:
    return GateRefusedError(
        DRIFT,
        "BASE_DRIFTED",
        f"the workspace changed after the dry run, at {len(paths)} paths",
        "dry run the plan again and have the new report approved",
        paths=paths,
    )


def _not_taken(conflict: ClaimConflict) -> GateRefusedError:
    match conflict:
        case ClaimConflict.MISSION_CLAIMED:
            return GateRefusedError(ONCE, *STANDING[Standing.CLAIMED])
        case ClaimConflict.MISSION_EXECUTED:
            return GateRefusedError(ONCE, *STANDING[Standing.EXECUTED])
        case ClaimConflict.APPROVAL_USED:
            return GateRefusedError(
                APPROVED,
                "NOT_APPROVED",
                "one of the approvals was used for another mission already",
                "approve this mission; an approval is good for one execution",
            )
