"""What may be done with a mission as it stands: each function returns the events of a decision, or raises.

Nothing here checks signatures or asks anybody; that has happened before, and the results come in as values.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from gonogo.secret_shapes import find_secret
from orchestrator.domain import events as ev
from orchestrator.domain.errors import OrchestratorError, Reason, RequestRefusedError, StateForbidsError
from orchestrator.domain.evidence import ApprovalFacts, Outcome, ReceiptFacts, ReportStatus
from orchestrator.domain.mission import WAITING, GrantedApproval, Mission, MissionStatus, reason_of_report

EXECUTED_MESSAGE: Final = "Mission has already been executed"

_EXECUTED: Final = frozenset({MissionStatus.COMPLETED, MissionStatus.FAILED, MissionStatus.PAUSED})


def require_dry_runnable(mission: Mission) -> None:
    """Only a proposed mission is dry-run: approvals of any other stand on the report that it has."""
    if mission.status is not MissionStatus.PROPOSED:
        raise _forbidden(mission, "dry-run", "Clone the mission to dry-run the same plan again.")


def require_approvable(mission: Mission) -> None:
    """A mission takes approvals while it has a successful report and has not been handed over."""
    if mission.status not in {MissionStatus.PROPOSED, *WAITING}:
        raise _forbidden(mission, "approved", "Clone the mission to ask for the same plan again.")
    if mission.report_status is None:
        raise StateForbidsError(
            Reason.REPORT_MISSING,
            "the mission has no report to approve",
            f"Run `gonogo dry-run {mission.mission_id}` and approve what it shows.",
        )
    if mission.report_status is not ReportStatus.SUCCESS:
        raise StateForbidsError(
            reason_of_report(mission.report_status),
            f"the dry run came to {mission.report_status.value}: {mission.reason}",
            "Change the plan so that its dry run succeeds, and propose it again.",
        )


def check_approval(mission: Mission, facts: ApprovalFacts, now: datetime) -> None:
    """Check that an approval is about this mission, this plan and this report, and holds at this time."""
    _check_words(facts.comment)
    again = "Sign an approval for the mission's present plan and report."
    pairs = (
        (Reason.MISSION_MISMATCH, "mission", facts.mission_id, mission.mission_id),
        (Reason.MISSION_MISMATCH, "intent", facts.intent_id, mission.intent_id),
        (Reason.WORKSPACE_MISMATCH, "workspace", facts.workspace_id, mission.workspace_id),
        (Reason.EXECUTOR_MISMATCH, "executor", facts.executor_id, mission.executor_id),
        (Reason.PLAN_MISMATCH, "plan", facts.plan_id, mission.plan_id),
        (Reason.PLAN_MISMATCH, "plan digest", facts.plan_digest, mission.plan_digest),
        (Reason.REPORT_UNKNOWN, "report", facts.report_id, mission.report_id),
        (Reason.REPORT_UNKNOWN, "report digest", facts.report_digest, mission.report_digest),
    )
    for reason, what, said, held in pairs:
        if said != held:
            raise StateForbidsError(reason, f"the approval names another {what} than the mission has", again)
    if facts.expires_at <= now:
        raise StateForbidsError(Reason.APPROVAL_EXPIRED, "the approval has run out", "Approve again.")
    if facts.not_before is not None and facts.not_before > now:
        raise StateForbidsError(
            Reason.NOT_APPROVED, "the approval is not valid yet", "Hand it in when it is, or check the clocks."
        )


def standing_approvals(mission: Mission, now: datetime) -> tuple[GrantedApproval, ...]:
    """Return the approvals of the present report that have not run out."""
    return tuple(granted for granted in mission.approvals if granted.expires_at > now)


def approval_of(mission: Mission, approver: str, now: datetime) -> GrantedApproval | None:
    """Return the approval that a person has given for the present report and that still holds."""
    return next((granted for granted in standing_approvals(mission, now) if granted.approver == approver), None)


def decide_approval(
    mission: Mission, granted: ev.ApprovalGranted, *, now: datetime, enough: Callable[[Mapping[str, str]], bool]
) -> tuple[ev.Payload, ...]:
    """Take an approval that was checked; the last that is needed approves the mission.

    Args:
        mission: as it stands.
        granted: the approval.
        now: the time.
        enough: whether approvals are what the executor's policy asks for, given the key of each person who approved.
    """
    if mission.status is not MissionStatus.PROPOSED:
        return (granted,)
    standing = standing_approvals(mission, now)
    ends = [approval.expires_at for approval in standing]
    signed = {approval.approver: approval.key_id for approval in standing}
    if not enough(signed | {granted.approver: granted.key_id}):
        return (granted,)
    approved = ev.MissionApproved(approval_id=granted.approval_id, expires_at=min((*ends, granted.expires_at)))
    return granted, approved


def decide_denial(mission: Mission, approver: str, comment: str) -> tuple[ev.Payload, ...]:
    """A signed no: it rejects what is proposed and cancels what is approved."""
    reason = f"denied by {approver}" + (f": {comment}" if comment else "")
    if mission.status in WAITING:
        return (ev.MissionCancelled(reason=reason),)
    return (ev.MissionRejected(reason=reason),)


def decide_rejection(mission: Mission, reason: str) -> tuple[ev.Payload, ...]:
    _check_words(reason)
    if mission.status is not MissionStatus.PROPOSED:
        raise _forbidden(mission, "rejected", "Cancel it instead, if it has not been handed to the executor.")
    return (ev.MissionRejected(reason=reason),)


def decide_cancel(mission: Mission, reason: str) -> tuple[ev.Payload, ...]:
    _check_words(reason)
    if mission.status not in {MissionStatus.PROPOSED, *WAITING}:
        raise _forbidden(mission, "cancelled", "Only a mission that the executor has not claimed can be cancelled.")
    return (ev.MissionCancelled(reason=reason),)


def has_run_out(mission: Mission, now: datetime) -> bool:
    """Whether the approvals that a waiting mission stands on have ended."""
    until = mission.approved_until
    return mission.status in WAITING and until is not None and until <= now


def decide_expiry(mission: Mission, now: datetime) -> tuple[ev.Payload, ...]:
    if not has_run_out(mission, now):
        return ()
    return (ev.MissionExpired(reason="its approvals ran out before it was executed"),)


def require_unclaimed(mission: Mission, *, running: bool) -> None:
    """A mission that is being handed over is the executor's."""
    if running:
        raise StateForbidsError(
            Reason.ALREADY_CLAIMED,
            "the mission is being executed already",
            f"Follow it with `gonogo watch {mission.mission_id}`.",
            facts=_facts(mission),
        )


def require_unexecuted(mission: Mission, *, running: bool) -> None:
    """What was executed, or has been handed over, is not executed again."""
    status = mission.status
    if status in _EXECUTED:
        raise StateForbidsError(
            Reason.ALREADY_EXECUTED,
            EXECUTED_MESSAGE,
            "Read its receipt; clone the mission to do the same again.",
            facts=_facts(mission),
        )
    if running or status in {MissionStatus.ACTIVE, MissionStatus.QUEUED}:
        what = "waits in the queue already" if status is MissionStatus.QUEUED else "is being executed already"
        raise StateForbidsError(
            Reason.ALREADY_CLAIMED,
            f"the mission {what}",
            f"Follow it with `gonogo watch {mission.mission_id}`.",
            facts=_facts(mission),
        )


def require_executable(mission: Mission, *, running: bool) -> None:
    """Only an approved mission that nobody has handed over yet is executed."""
    require_unexecuted(mission, running=running)
    status = mission.status
    if status is MissionStatus.PROPOSED:
        raise StateForbidsError(
            Reason.NOT_APPROVED,
            "the mission is not approved; nothing was done",
            f"Dry-run it and have it approved; gonogo policy explain {mission.mission_id} says by whom.",
            facts=_facts(mission),
        )
    if status is MissionStatus.EXPIRED:
        raise StateForbidsError(
            Reason.APPROVAL_EXPIRED,
            "the mission's approvals ran out before it was executed",
            "Clone the mission, dry-run and approve it again.",
            facts=_facts(mission),
        )
    if status is not MissionStatus.APPROVED:
        raise _forbidden(mission, "executed", "Clone the mission to ask for the same plan again.")


TRANSIENT: Final = frozenset(
    {
        Reason.OVERLOADED,
        Reason.STORE_FULL,
        Reason.INTERNAL,
        Reason.EXECUTOR_UNAVAILABLE,
        Reason.PEER_NOT_ALLOWED,
        Reason.CLOCK_BEHIND,
        Reason.TRUST_EXPIRED,
        Reason.AUDIT_FORKED,
    }
)
"""Refusals that say nothing about the mission: the same request may be taken later."""


def decide_refusal(refused: ev.GateRefused) -> tuple[ev.Payload, ...]:
    """What a refusal does: a mission whose evidence does not convince the executor goes back for a fresh dry run.

    So does one whose approvals would have been enough without the one that was withdrawn. Somebody took a go back, and
    the others are asked again knowing that; what the withdrawer signed is not sent with the next report.
    """
    if _passes(refused):
        return ()
    if refused.reason == Reason.APPROVAL_EXPIRED:
        return refused, ev.MissionExpired(reason=refused.message)
    return refused, ev.MissionReturned(reason=refused.reason, message=refused.message)


def _passes(refused: ev.GateRefused) -> bool:
    """Whether a refusal says nothing about the mission.

    The executor's trust file that can not be used now is before all gates. A fork that a gate finds is one between an
    approval and the executor's log: that approval will never do.
    """
    if refused.gate:
        return refused.reason in TRANSIENT - {Reason.AUDIT_FORKED}
    return refused.reason in TRANSIENT | {Reason.STATE_FORBIDS}


def decide_end(mission: Mission, receipt: ReceiptFacts) -> tuple[ev.Payload, ...]:
    """What the receipt's outcome makes of the mission."""
    outcome = receipt.outcome
    if outcome is Outcome.SUCCESS:
        return (ev.MissionCompleted(final_answer=_answer(mission, receipt)),)
    if outcome is Outcome.UNKNOWN:
        return (ev.ExecutionPaused(reason="the outcome is unknown; it must be reconciled with the workspace"),)
    return (ev.MissionFailed(outcome=outcome, reason=_why(receipt)),)


def _answer(mission: Mission, receipt: ReceiptFacts) -> str:
    steps = f"{receipt.steps_succeeded} of {mission.steps_count} steps succeeded"
    paths = f"{receipt.paths_changed} path{'' if receipt.paths_changed == 1 else 's'} changed"
    return f"Done: {mission.objective} ({steps}, {paths})"


def _why(receipt: ReceiptFacts) -> str:
    details = "; ".join(receipt.errors[:3]) or receipt.abort_reason or "the executor gave no reason"
    return f"{receipt.outcome.value.replace('_', ' ')}: {details}"


def _forbidden(mission: Mission, verb: str, remedy: str) -> OrchestratorError:
    message = f"a mission that is {mission.status.value} can not be {verb}"
    return StateForbidsError(Reason.STATE_FORBIDS, message, remedy, facts=_facts(mission))


def _check_words(said: str) -> None:
    """Refuse what somebody says of a mission where it holds a credential: it would be kept and shown for ever."""
    kind = find_secret(said)
    if kind is not None:
        raise RequestRefusedError(
            Reason.SECRET_IN_PLAN, f"the words hold what looks like a secret: {kind}", "Say it without the secret."
        )


def _facts(mission: Mission) -> dict[str, str]:
    return {"mission_id": mission.mission_id, "status": mission.status.value}
