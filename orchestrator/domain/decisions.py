"""What may be done with a mission as it stands: each function returns the events of a decision, or raises.

Nothing here checks signatures or asks anybody; that has happened before, and the results come in as values.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from gonogo.secret_shapes import find_secret
from orchestrator.domain import events as ev
from orchestrator.domain.errors import OrchestratorError, Reason, RequestRefusedError, StateForbidsError
from orchestrator.domain.events import ControlAction
from orchestrator.domain.evidence import ApprovalFacts, Outcome, ReceiptFacts, ReportStatus
from orchestrator.domain.mission import WAITING, GrantedApproval, Mission, MissionStatus, reason_of_report

EXECUTED_MESSAGE: Final = "Mission has already been executed"
DEADLINE: Final = "deadline"
"""Whom the executor names where nobody decided in time."""

MAX_FEEDBACK_BYTES: Final = 64 * 1024

_EXECUTED: Final = frozenset({MissionStatus.COMPLETED, MissionStatus.FAILED})
_WAYS_ON: Final[Mapping[ControlAction, str]] = {
    ControlAction.PAUSE: "gonogo pause {mission}",
    ControlAction.RESUME: "gonogo resume {mission}",
    ControlAction.STOP: "gonogo stop {mission} [--roll-back]",
    ControlAction.RETRY: "gonogo retry {mission}",
    ControlAction.APPROVE_STEP: "gonogo approve-step|deny-step {mission} {step}",
    ControlAction.RECONCILE: "gonogo reconcile {mission} {step} --happened|--did-not",
}
_UNDER_WAY: Final = frozenset({MissionStatus.ACTIVE, MissionStatus.PAUSED})


def require_dry_runnable(mission: Mission) -> None:
    """Only what is proposed is dry-run, a mission or its repair plan: approvals stand on the report that there is."""
    if mission.status is MissionStatus.PROPOSED or mission.repair_pending:
        return
    if mission.status is MissionStatus.PAUSED:
        raise _forbidden(mission, "dry-run", _ways_on(mission))
    raise _forbidden(mission, "dry-run", "Clone the mission to dry-run the same plan again.")


def require_approvable(mission: Mission) -> None:
    """A mission, or its repair plan, takes approvals while it has a successful report and has not been handed over."""
    if mission.status is MissionStatus.PAUSED and not mission.repair_pending:
        raise _forbidden(mission, "approved", _ways_on(mission))
    if mission.status not in {MissionStatus.PROPOSED, *WAITING} and not mission.repair_pending:
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
            f"Change the plan so that its dry run succeeds: gonogo repair {mission.mission_id}.",
        )


def check_approval(mission: Mission, facts: ApprovalFacts, now: datetime) -> None:
    """Check that an approval is about this mission, this plan and this report, and holds at this time."""
    check_words(facts.comment)
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
    if mission.status is not MissionStatus.PROPOSED and not _wants_more(mission, now):
        return (granted,)
    standing = standing_approvals(mission, now)
    ends = [approval.expires_at for approval in standing]
    signed = {approval.approver: approval.key_id for approval in standing}
    if not enough(signed | {granted.approver: granted.key_id}):
        return (granted,)
    approved = ev.MissionApproved(approval_id=granted.approval_id, expires_at=min((*ends, granted.expires_at)))
    return granted, approved


def _wants_more(mission: Mission, now: datetime) -> bool:
    """Whether a repair plan is not approved, or no longer."""
    return mission.repair_pending and (mission.approved_until is None or mission.approved_until <= now)


def decide_denial(mission: Mission, approver: str, comment: str) -> tuple[ev.Payload, ...]:
    """A signed no: it rejects what is proposed, cancels what is approved, and voids a repair plan."""
    reason = f"denied by {approver}" + (f": {comment}" if comment else "")
    if mission.status in WAITING:
        return (ev.MissionCancelled(reason=reason),)
    if mission.repair_pending:
        return (_void(f"the repair plan was {reason}"),)
    return (ev.MissionRejected(reason=reason),)


def decide_rejection(mission: Mission, reason: str) -> tuple[ev.Payload, ...]:
    check_words(reason)
    if mission.repair_pending:
        return (_void("the repair plan was rejected" + (f": {reason}" if reason else "")),)
    if mission.status is not MissionStatus.PROPOSED:
        instead = _stop(mission) if mission.status in _UNDER_WAY else "Only a proposal, or a repair plan, is rejected."
        raise _forbidden(mission, "rejected", _cancel(mission) if mission.status in WAITING else instead)
    return (ev.MissionRejected(reason=reason),)


def decide_cancel(mission: Mission, reason: str) -> tuple[ev.Payload, ...]:
    """Give up a mission that nobody has claimed, or one whose outcome nobody knows: there is nothing left to stop."""
    check_words(reason)
    if outcome_unknown(mission):
        return (ev.MissionCancelled(reason=reason),)
    if mission.status in _UNDER_WAY:
        raise _forbidden(mission, "cancelled", _stop(mission))
    if mission.status not in {MissionStatus.PROPOSED, *WAITING}:
        raise _forbidden(mission, "cancelled", "Only a mission that the executor has not claimed can be cancelled.")
    return (ev.MissionCancelled(reason=reason),)


def outcome_unknown(mission: Mission) -> bool:
    """Whether a mission waits because nobody knows what its execution has done, and not for the executor."""
    if mission.status is not MissionStatus.PAUSED:
        return False
    return mission.pause is None or mission.pause.kind in {None, ev.PauseKind.UNKNOWN_OUTCOME}


def has_run_out(mission: Mission, now: datetime) -> bool:
    """Whether the approvals that a waiting mission, or its repair plan, stands on have ended, or its time to wait."""
    until = mission.approved_until
    waits = mission.status in WAITING or mission.repair_pending
    return (waits and until is not None and until <= now) or _waited_long(mission, now)


def _waited_long(mission: Mission, now: datetime) -> bool:
    """Whether a queued mission is not to be handed over any more, as whoever queued it said."""
    until = mission.queue_expires_at
    return mission.status is MissionStatus.QUEUED and until is not None and until <= now


def decide_expiry(mission: Mission, now: datetime) -> tuple[ev.Payload, ...]:
    """A waiting mission expires with its approvals; a paused one stays, and its repair plan is approved anew."""
    if not has_run_out(mission, now) or mission.status not in WAITING:
        return ()
    if _waited_long(mission, now):
        return (ev.MissionExpired(reason="it still waited in the queue when it was to expire"),)
    return (ev.MissionExpired(reason="its approvals ran out before it was executed"),)


def require_unclaimed(mission: Mission, *, running: bool) -> None:
    """A mission that is being handed over is the executor's; a repair plan of one is not, before it is handed over."""
    if running and not mission.repair_pending:
        raise StateForbidsError(
            Reason.ALREADY_CLAIMED,
            "the mission is being executed already",
            f"Follow it with `gonogo watch {mission.mission_id}`, end it with `gonogo stop {mission.mission_id}`.",
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
    if outcome_unknown(mission):
        raise StateForbidsError(
            Reason.ALREADY_EXECUTED,
            EXECUTED_MESSAGE,
            "Nobody knows what it did: compare the workspace with its plan, then give it up with `gonogo cancel`.",
            facts=_facts(mission),
        )
    if running or status in {MissionStatus.ACTIVE, MissionStatus.PAUSED, MissionStatus.QUEUED}:
        what = "waits in the queue already" if status is MissionStatus.QUEUED else "is being executed already"
        raise StateForbidsError(
            Reason.ALREADY_CLAIMED,
            f"the mission {what}",
            f"Follow it with `gonogo watch {mission.mission_id}`.",
            facts=_facts(mission),
        )


def require_executable(mission: Mission, *, running: bool) -> None:
    """Only an approved mission that nobody has handed over yet is executed, or a paused one's approved repair plan."""
    if mission.repair_pending:
        _require_approved_repair(mission)
        return
    if mission.status is MissionStatus.PAUSED and not outcome_unknown(mission):
        raise StateForbidsError(
            Reason.EXECUTION_PAUSED,
            f"the mission's execution waits: {mission.reason}",
            _ways_on(mission),
            facts=_facts(mission),
        )
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


def _require_approved_repair(mission: Mission) -> None:
    if mission.approved_until is None:
        raise StateForbidsError(
            Reason.NOT_APPROVED,
            "the mission's repair plan is not approved; nothing was done",
            f"Dry-run it and have it approved; gonogo policy explain {mission.mission_id} says by whom.",
            facts=_facts(mission),
        )


def decide_feedback(rating: ev.Rating | None, text: str) -> tuple[ev.Payload, ...]:
    """Take what somebody thinks of a mission, at any time."""
    if len(text.encode()) > MAX_FEEDBACK_BYTES:
        raise RequestRefusedError(
            Reason.TOO_LARGE, "the feedback is too long", f"Use at most {MAX_FEEDBACK_BYTES:,} bytes."
        )
    check_words(text)
    return (ev.FeedbackRecorded(text=text, rating=rating),)


def require_repairable(mission: Mission) -> None:
    """A plan is replaced where its dry run failed, and gone on from where its execution waits for a person."""
    if mission.status is MissionStatus.PROPOSED:
        if mission.report_status in {None, ReportStatus.SUCCESS}:
            raise _forbidden(
                mission, "repaired", "Dry-run it first; what succeeds needs no repair: clone it to change it."
            )
        return
    if mission.status is not MissionStatus.PAUSED or mission.pause is None:
        first = f"Pause it first: gonogo pause {mission.mission_id}." if mission.status is MissionStatus.ACTIVE else ""
        raise _forbidden(mission, "repaired", first or "Clone it to do the rest with a new mission.")
    if not mission.pause.repairable:
        raise StateForbidsError(
            Reason.STATE_FORBIDS,
            f"the execution waits for something else: {mission.pause.reason}",
            _ways_on(mission),
            facts=_facts(mission),
        )


_CONTROLS: Final[Mapping[ControlAction, str]] = {
    ControlAction.PAUSE: "paused",
    ControlAction.RESUME: "resumed",
    ControlAction.STOP: "stopped",
    ControlAction.RETRY: "retried",
    ControlAction.APPROVE_STEP: "approved step by step",
    ControlAction.RECONCILE: "reconciled",
}


def require_controllable(mission: Mission, action: ControlAction) -> None:
    """Only an execution is controlled. What fits how that stands is the executor's to say: it may have moved on."""
    if mission.status in {MissionStatus.PROPOSED, *WAITING}:
        instead = _cancel(mission) if action is ControlAction.PAUSE else "Execute it first."
        raise _forbidden(mission, _CONTROLS[action], instead)
    if not mission.execution_id and mission.status not in {MissionStatus.ACTIVE, MissionStatus.PAUSED}:
        raise _forbidden(mission, _CONTROLS[action], "It was never executed; clone it to ask for the same plan again.")


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
        Reason.EXECUTION_PAUSED,
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


def decide_repair_refusal(refused: ev.GateRefused) -> tuple[ev.Payload, ...]:
    """What a refusal of a repair plan does: the mission stays paused, and the plan is void with all it stood on."""
    if _passes(refused):
        return ()
    return refused, ev.MissionReturned(reason=refused.reason, message=refused.message)


def _void(message: str) -> ev.MissionReturned:
    return ev.MissionReturned(reason=Reason.NOT_APPROVED.value, message=message)


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
        reason = "the outcome is unknown; it must be reconciled with the workspace"
        return (ev.ExecutionPaused(reason=reason, kind=ev.PauseKind.UNKNOWN_OUTCOME),)
    if receipt.abort_reason == Reason.STOPPED and mission.stopped_by != DEADLINE:
        return (ev.MissionCancelled(reason=_stopped(mission, receipt)),)
    return (ev.MissionFailed(outcome=outcome, reason=_why(receipt)),)


def _stopped(mission: Mission, receipt: ReceiptFacts) -> str:
    by = f" by {mission.stopped_by}" if mission.stopped_by else ""
    return f"stopped{by}: {receipt.outcome.value.replace('_', ' ')}" + (
        f" ({mission.reason})" if mission.reason else ""
    )


def _answer(mission: Mission, receipt: ReceiptFacts) -> str:
    steps = f"{receipt.steps_succeeded} of {mission.steps_count} steps succeeded"
    if mission.opened_segment:
        steps = f"{receipt.steps_succeeded} steps succeeded under {mission.opened_segment + 1} plans"
    paths = f"{receipt.paths_changed} path{'' if receipt.paths_changed == 1 else 's'} changed"
    return f"Done: {mission.objective} ({steps}, {paths})"


def _why(receipt: ReceiptFacts) -> str:
    details = "; ".join(receipt.errors[:3]) or receipt.abort_reason or "the executor gave no reason"
    return f"{receipt.outcome.value.replace('_', ' ')}: {details}"


def _forbidden(mission: Mission, verb: str, remedy: str) -> OrchestratorError:
    message = f"a mission that is {mission.status.value} can not be {verb}"
    return StateForbidsError(Reason.STATE_FORBIDS, message, remedy, facts=_facts(mission))


def _ways_on(mission: Mission) -> str:
    """Return the commands that a paused mission takes."""
    pause = mission.pause
    if pause is None:
        return f"See what it waits for: gonogo show {mission.mission_id}."
    ways = [_WAYS_ON[action].format(mission=mission.mission_id, step=pause.step_id) for action in pause.actions]
    ways += [f"gonogo repair {mission.mission_id} [-f FILE]"] if pause.repairable else []
    return f"It takes: {'; '.join(ways) or f'nothing but gonogo cancel {mission.mission_id}'}."


def _stop(mission: Mission) -> str:
    return f"Stop it: gonogo stop {mission.mission_id} [--roll-back]."


def _cancel(mission: Mission) -> str:
    return f"Cancel it instead: gonogo cancel {mission.mission_id}."


def check_words(said: str) -> None:
    """Refuse what somebody says of a mission where it holds a credential: it would be kept and shown for ever."""
    kind = find_secret(said)
    if kind is not None:
        raise RequestRefusedError(
            Reason.SECRET_IN_PLAN, f"the words hold what looks like a secret: {kind}", "Say it without the secret."
        )


def _facts(mission: Mission) -> dict[str, str]:
    return {"mission_id": mission.mission_id, "status": mission.status.value}
