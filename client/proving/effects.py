"""Plan, report, approvals and receipt are about the same things, and what was done is what was promised."""

from collections.abc import Iterator

from client.bundle import Bundle
from client.changes import net_states, snapshot_states, states_fingerprint
from client.json_form import short_name
from client.proving.checks import Check, check, guarded, labelled, same
from client.proving.opened import OpenApproval, Opened
from client.proving.recorded import Told
from client.proving.segments import segments
from gonogo.v1 import evidence_pb2, plan_pb2

States = dict[bytes, evidence_pb2.NodeState | None]


def effect_checks(bundle: Bundle, opened: Opened, told: Told | None) -> Iterator[Check]:
    """Compare the documents with each other, as far as the mission has come."""
    for one in segments(bundle, opened):
        yield from labelled(one.label, _segment_checks(one.opened))
    if opened.receipt is not None and opened.plan is not None:
        yield from _outcome_checks(opened.receipt, opened)
    if opened.refusal is not None and opened.plan is not None:
        yield _refusal_check(opened, opened.refusal, told)


def _segment_checks(opened: Opened) -> Iterator[Check]:
    plan, report = opened.plan, opened.report
    if plan is None:
        return
    if report is not None:
        yield from _report_checks(plan, report)
    for one in opened.approvals:
        yield _approval_check(opened, plan, one)
    if opened.receipt is not None:
        yield from _receipt_checks(opened, plan, opened.receipt)


def report_states(report: evidence_pb2.Report) -> tuple[States, States]:
    """Return (before, after) of every path that a report's steps touch.

    Raises:
        ValueError: a path's text and bytes do not agree.
    """
    return net_states(step.changes for step in report.steps)


def _report_checks(plan: plan_pb2.Plan, report: evidence_pb2.Report) -> Iterator[Check]:
    ids = (report.mission_id, report.intent_id, report.workspace_id, report.executor_id)
    named = (plan.mission_id, plan.intent_id, plan.workspace_id, plan.executor_id)
    yield check("report and plan agree", ids == named, "mission, intent, workspace and executor ids")
    if report.status == evidence_pb2.REPORT_STATUS_SUCCESS:
        steps = [(step.step_id, step.WhichOneof("action")) for step in plan.steps]
        reported = [(step.step_id, step.kind) for step in report.steps]
        yield check("report covers every step", steps == reported, f"{len(plan.steps)} steps")
        yield guarded(
            "report's after fingerprint",
            lambda: (states_fingerprint(report_states(report)[1]), report.after_fingerprint),
        )


def _approval_check(opened: Opened, plan: plan_pb2.Plan, one: OpenApproval) -> Check:
    approval = one.approval
    ids = (approval.mission_id, approval.intent_id, approval.workspace_id, approval.executor_id)
    agree = ids == (plan.mission_id, plan.intent_id, plan.workspace_id, plan.executor_id)
    agree = agree and (approval.plan_id, approval.plan_digest) == (plan.plan_id, opened.plan_digest)
    if opened.report is not None:
        seen = (approval.report_id, approval.report_digest, approval.policy_digest)
        agree = agree and seen == (opened.report.report_id, opened.report_digest, opened.report.policy_digest)
    approves = approval.decision == evidence_pb2.DECISION_APPROVE
    return check(f"{one.name} is for this plan", agree and approves, approval.approver)


def _refusal_check(opened: Opened, refusal: evidence_pb2.Refusal, told: Told | None) -> Check:
    """A refusal is of one of the plans, or of one that the events tell of and that was given up since."""
    plans = {one.plan_digest for one in opened.every} | (told.plans if told else set())
    ids = {(one.plan.mission_id, one.plan.executor_id) for one in opened.every if one.plan is not None}
    agree = (refusal.mission_id, refusal.executor_id) in ids and refusal.plan_digest in plans
    return check("refusal is of this plan", agree, f"{refusal.refusal_id}: {refusal.abort_reason}")


def _receipt_checks(opened: Opened, plan: plan_pb2.Plan, receipt: evidence_pb2.Receipt) -> Iterator[Check]:
    ids = (receipt.mission_id, receipt.intent_id, receipt.workspace_id, receipt.executor_id, receipt.plan_id)
    named = (plan.mission_id, plan.intent_id, plan.workspace_id, plan.executor_id, plan.plan_id)
    agree = ids == named
    agree = agree and (receipt.message_id, receipt.transcription_id) == (plan.message_id, plan.transcription_id)
    yield check("receipt and plan agree", agree, "ids of the chain")
    digests = (receipt.plan_digest, receipt.report_digest)
    agree = digests == (opened.plan_digest, opened.report_digest)
    yield check("receipt names plan and report", agree, "by digest")
    approvers = ", ".join(f"{record.approver} ({record.key_id})" for record in receipt.approvals)
    yield check("receipt names an approval", bool(receipt.approvals), approvers)
    known = {(one.approval.approval_id, one.digest) for one in opened.approvals}
    recorded = [(record.approval_id, record.approval_digest) for record in receipt.approvals]
    there = len(set(recorded)) == len(recorded) and set(recorded) <= known
    yield check("receipt's approvals are there", there, f"{len(recorded)} of {len(known)}")
    if opened.report is not None:
        yield same("receipt names the report's epoch", receipt.ledger_epoch, opened.report.ledger_epoch)


def _outcome_checks(receipt: evidence_pb2.Receipt, opened: Opened) -> Iterator[Check]:
    first, last = opened.every[0].report, opened.report
    yield guarded(
        "after fingerprint of the receipt's snapshots",
        lambda: (states_fingerprint(snapshot_states(receipt.after)), receipt.after_fingerprint),
    )
    success = receipt.execution_status == evidence_pb2.OUTCOME_SUCCESS
    if first is not None:
        yield same("receipt names the report's base", receipt.base_fingerprint, first.base_fingerprint)
    yield from order_checks(receipt, opened)
    if success and last is not None:
        yield from _success_checks(receipt, last) if not receipt.segments else _repaired_checks(receipt, last)
    counted = sum(step.success for step in receipt.steps), sum(not step.success for step in receipt.steps)
    agree = counted == (receipt.steps_succeeded, receipt.steps_failed)
    yield check("receipt counts its steps", agree, f"{counted[0]} succeeded, {counted[1]} failed")
    clean = not receipt.abort_reason and not _in_the_way(receipt)
    detail = short_name(receipt, "execution_status")
    yield check("receipt's outcome is borne out by its steps", success == clean, detail)


def _in_the_way(receipt: evidence_pb2.Receipt) -> bool:
    """Tell whether something stands against a success that was not made good: by a second attempt, or by a repair."""
    made_good = bool(receipt.segments) or any(step.attempts > 1 for step in receipt.steps)
    last = receipt.segments[-1].segment if receipt.segments else 0
    failed = any(not step.success for step in receipt.steps if step.segment == last)
    return failed or (receipt.divergence_detected and not made_good)


def order_checks(receipt: evidence_pb2.Receipt, opened: Opened) -> Iterator[Check]:
    """Check that steps were begun in the order of their plans, none twice and none that no plan has."""
    if not receipt.segments and not any(step.segment for step in receipt.steps):
        return
    begun: dict[int, list[tuple[str, str]]] = {}
    for step in receipt.steps:
        begun.setdefault(step.segment, []).append((step.step_id, step.operation))
    planned = {
        one.number: [(step.step_id, step.WhichOneof("action") or "") for step in one.plan.steps]
        for one in opened.every
        if one.plan is not None
    }
    numbers = [step.segment for step in receipt.steps]
    fine = numbers == sorted(numbers) and all(
        number in planned and steps == planned[number][: len(steps)] for number, steps in begun.items()
    )
    shown = ", ".join(f"segment {number}: {len(steps)}" for number, steps in begun.items())
    yield check("steps were begun in the order of their plans", fine, shown)


def _repaired_checks(receipt: evidence_pb2.Receipt, report: evidence_pb2.Report) -> Iterator[Check]:
    """The last plan's steps were all done, and what it touches is what its report promised."""
    last = receipt.segments[-1].segment
    done = [(step.step_id, step.operation) for step in receipt.steps if step.segment == last and step.success]
    tried = [(step.step_id, step.kind) for step in report.steps]
    yield check("receipt covers every step", done == tried, f"{len(tried)} steps of segment {last}")
    yield guarded(
        "result is what the last report promised", lambda: (_promised(receipt, report), report_states(report)[1])
    )


def _promised(receipt: evidence_pb2.Receipt, report: evidence_pb2.Report) -> States:
    """Return what the receipt shows of the paths that a report is about."""
    after = snapshot_states(receipt.after)
    return {path: after[path] for path in report_states(report)[1] if path in after}


def _success_checks(receipt: evidence_pb2.Receipt, report: evidence_pb2.Report) -> Iterator[Check]:
    promised = receipt.after_fingerprint == receipt.expected_after_fingerprint == report.after_fingerprint
    yield check("result is what the report promised", promised, receipt.after_fingerprint)
    done = [(step.step_id, step.operation) for step in receipt.steps]
    tried = [(step.step_id, step.kind) for step in report.steps]
    yield check("receipt covers every step", done == tried, f"{len(tried)} steps")
    yield guarded("before and after are the report's", lambda: (_receipt_states(receipt), report_states(report)))


def _receipt_states(receipt: evidence_pb2.Receipt) -> object:
    return snapshot_states(receipt.before), snapshot_states(receipt.after)
