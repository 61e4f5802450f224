"""One person's signed decision about one report.

The executor checks every approval again, by itself, and only its verdict counts. What is checked here is checked so
that a person hears of a slip while the signature is being made, not when the mission is executed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from gonogo.policy import Policy
from orchestrator.domain import decisions
from orchestrator.domain import events as ev
from orchestrator.domain.errors import ContractError, OrchestratorError, Reason, StateForbidsError
from orchestrator.domain.evidence import ApprovalFacts, ExecutorInfo, Sealed
from orchestrator.domain.evidence import Decision as Verdict
from orchestrator.domain.mission import Mission
from orchestrator.service.caution import Caution, Enough
from orchestrator.service.demands import Asked, can_not_approve
from orchestrator.service.executor_card import ExecutorCard
from orchestrator.service.mission_store import Decision, MissionStore, as_decided
from orchestrator.service.ports import Clock, Documents
from orchestrator.service.requests import Answer, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checked:
    """An approval whose signature was looked at; `fault` says why it is not taken."""

    facts: ApprovalFacts
    sealed: Sealed
    key_id: str
    info: ExecutorInfo
    fault: OrchestratorError | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Approvals:
    """Takes signed approvals and denials."""

    store: MissionStore
    card: ExecutorCard
    documents: Documents
    clock: Clock
    is_running: Callable[[str], bool]
    caution: Caution

    async def approve(self, request: Request, reference: str, sealed: Sealed) -> Answer:
        """Record one person's signed decision; of a person who approves twice the first record stays.

        Raises:
            StateForbidsError: the mission, its report or the approval does not allow it. A signature that does not
                prove what it claims is recorded as refused.
            ContractError: the document is not an approval.
        """
        mission_id = self.store.find(reference).mission_id
        checked = await self._checked(sealed)
        return await self.store.act(mission_id, request, lambda mission: self._decided(mission, checked))

    async def record(self, actor: str, mission_id: str, sealed: Sequence[Sealed]) -> None:
        """Record signed decisions one after the other, as `approve` would, in one write.

        The first that is refused ends it: those before it stay recorded, and the error is raised.

        Raises:
            StateForbidsError: as `approve` does.
            ContractError: a document is not an approval; nothing is recorded.
        """
        checked = [await self._checked(each) for each in sealed]
        await self.store.record(mission_id, actor, lambda mission: self._decided_in_turn(mission, checked, actor))

    def _decided_in_turn(self, mission: Mission, checked: Sequence[_Checked], actor: str) -> Decision:
        payloads: tuple[ev.Payload, ...] = ()
        documents: tuple[Sealed, ...] = ()
        for each in checked:
            try:
                decision = self._decided(mission, each)
            except OrchestratorError as error:
                return Decision(payloads=payloads, documents=documents, error=error)
            payloads, documents = payloads + decision.payloads, documents + decision.documents
            if decision.error is not None:
                return Decision(payloads=payloads, documents=documents, error=decision.error)
            mission = as_decided(mission, decision.payloads, actor, self.clock.now())
        return Decision(payloads=payloads, documents=documents)

    async def _checked(self, sealed: Sealed) -> _Checked:
        facts = self.documents.open_approval(sealed)
        key_id, scheme = (sealed.signatures[0].key_id, sealed.signatures[0].scheme) if sealed.signatures else ("", "")
        info, key = await self.card.key_of(facts.approver, key_id, scheme, facts.policy_digest)
        fault: OrchestratorError | None = None
        if len(sealed.signatures) != 1:
            fault = _fault(Reason.SIGNATURE_INVALID, "an approval carries exactly one signature")
        elif key is None:
            unknown = _fault(Reason.APPROVER_UNKNOWN, f"the executor knows no such key of {facts.approver!r}")
            fault = can_not_approve(self._policy(info), key_id, scheme) or unknown
        else:
            fault = can_not_approve(self._policy(info), key_id, scheme) or self._verified(sealed, key.public_key)
        return _Checked(facts=facts, sealed=sealed, key_id=key_id, info=info, fault=fault)

    def _verified(self, sealed: Sealed, public_key: str) -> OrchestratorError | None:
        try:
            self.documents.verify(sealed, public_key)
        except ContractError as error:
            return _fault(Reason.SIGNATURE_INVALID, error.message)
        return None

    def _decided(self, mission: Mission | None, checked: _Checked) -> Decision:
        if mission is None:
            raise _fault(Reason.NOT_FOUND, "no such mission")
        facts, now = checked.facts, self.clock.now()
        decisions.require_approvable(mission)
        decisions.require_unclaimed(mission, running=self.is_running(mission.mission_id))
        decisions.check_approval(mission, facts, now)
        asked = self._asked(mission, checked.info)
        fault = checked.fault
        if fault is None and facts.decision is Verdict.APPROVE:
            fault = asked.fault(facts.approver, checked.key_id)
        if fault is not None:
            refused = ev.ApprovalRefused(approver=facts.approver, reason=fault.reason.value, message=fault.message)
            return Decision(payloads=(refused,), error=fault)
        if facts.decision is Verdict.DENY:
            denied = decisions.decide_denial(mission, facts.approver, facts.comment)
            return Decision(payloads=denied, documents=(checked.sealed,), told=_told_of(facts))
        return _granted(mission, checked, now, self.caution.judged(mission, asked.enough))

    def _asked(self, mission: Mission, info: ExecutorInfo) -> Asked:
        """Put together what is known of what the executor asks for this mission's report."""
        sealed = self.store.document(mission.mission_id, mission.report_digest)
        report = None if sealed is None else self.documents.open_report(sealed)
        return Asked(mission=mission, info=info, report=report, policy=self._policy(info))

    def _policy(self, info: ExecutorInfo) -> Policy | None:
        """Return the policy in force; None where it can not be read, which must not keep anybody from denying."""
        try:
            return None if info.policy is None else self.documents.open_policy(info.policy)
        except ContractError:
            return None


def _granted(mission: Mission, checked: _Checked, now: datetime, enough: Enough) -> Decision:
    facts = checked.facts
    first = decisions.approval_of(mission, facts.approver, now)
    if first is not None:
        return Decision(payloads=(), told=_told(first.approval_id, facts.approver, first.expires_at))
    granted = ev.ApprovalGranted(
        approval_id=facts.approval_id,
        approval_digest=checked.sealed.digest,
        approver=facts.approver,
        key_id=checked.key_id,
        expires_at=facts.expires_at,
        report_digest=facts.report_digest,
    )
    payloads = decisions.decide_approval(mission, granted, now=now, enough=enough)
    return Decision(payloads=payloads, documents=(checked.sealed,), told=_told_of(facts))


def _told_of(facts: ApprovalFacts) -> dict[str, str]:
    return _told(facts.approval_id, facts.approver, facts.expires_at)


def _told(approval_id: str, approver: str, expires_at: datetime) -> dict[str, str]:
    return {"approval_id": approval_id, "approver": approver, "expires_at": expires_at.isoformat()}


def _fault(reason: Reason, message: str) -> StateForbidsError:
    remedies = {
        Reason.SIGNATURE_INVALID: "Sign the mission's present plan and report with the key that is named.",
        Reason.APPROVER_UNKNOWN: "Sign with a key of the executor's trust file, or have its operator add this one.",
        Reason.NOT_FOUND: "List the missions with `gonogo list`.",
    }
    return StateForbidsError(reason, message, remedies[reason])
