"""Plan, report, approvals and receipt are about the same things, and what was done is what was promised."""

from collections.abc import Iterator

from client.changes import net_states, snapshot_states, states_fingerprint
from client.json_form import short_name
from client.proving.checks import Check, check, guarded, same
from client.proving.opened import OpenApproval, Opened
from gonogo.v1 import evidence_pb2, plan_pb2

States = dict[bytes, evidence_pb2.NodeState | None]


def effect_checks(opened: Opened) -> Iterator[Check]:
    """Compare the documents with each other, as far as the mission has come."""
    plan, report = opened.plan, opened.report
    if plan is None:
        return
    if report is not None:
        yield from _report_checks(plan, report)
    for one in opened.approvals:
        yield _approval_check(opened, plan, one)
    if opened.receipt is not None:
        yield from _receipt_checks(opened, plan, opened.receipt)
    if opened.refusal is not None:
        yield _refusal_check(opened, plan, opened.refusal)


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


def _refusal_check(opened: Opened, plan: plan_pb2.Plan, refusal: evidence_pb2.Refusal) -> Check:
    ids = (refusal.mission_id, refusal.executor_id, refusal.plan_digest)
    agree = ids == (plan.mission_id, plan.executor_id, opened.plan_digest)
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
    yield from _outcome_checks(receipt, opened.report)


def _outcome_checks(receipt: evidence_pb2.Receipt, report: evidence_pb2.Report | None) -> Iterator[Check]:
    yield guarded(
        "after fingerprint of the receipt's snapshots",
        lambda: (states_fingerprint(snapshot_states(receipt.after)), receipt.after_fingerprint),
    )
    success = receipt.execution_status == evidence_pb2.OUTCOME_SUCCESS
    if report is not None:
        yield same("receipt names the report's epoch", receipt.ledger_epoch, report.ledger_epoch)
        yield same("receipt names the report's base", receipt.base_fingerprint, report.base_fingerprint)
        if success:
            yield from _success_checks(receipt, report)
    counted = sum(step.success for step in receipt.steps), sum(not step.success for step in receipt.steps)
    agree = counted == (receipt.steps_succeeded, receipt.steps_failed)
    yield check("receipt counts its steps", agree, f"{counted[0]} succeeded, {counted[1]} failed")
    clean = not receipt.divergence_detected and not receipt.abort_reason and not receipt.steps_failed
    detail = short_name(receipt, "execution_status")
    yield check("receipt's outcome is borne out by its steps", success == clean, detail)


def _success_checks(receipt: evidence_pb2.Receipt, report: evidence_pb2.Report) -> Iterator[Check]:
    promised = receipt.after_fingerprint == receipt.expected_after_fingerprint == report.after_fingerprint
    yield check("result is what the report promised", promised, receipt.after_fingerprint)
    done = [(step.step_id, step.operation) for step in receipt.steps]
    tried = [(step.step_id, step.kind) for step in report.steps]
    yield check("receipt covers every step", done == tried, f"{len(tried)} steps")
    yield guarded("before and after are the report's", lambda: (_receipt_states(receipt), report_states(report)))


def _receipt_states(receipt: evidence_pb2.Receipt) -> object:
    return snapshot_states(receipt.before), snapshot_states(receipt.after)
