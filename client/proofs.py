"""What a mission's documents prove, checked from their bytes and public keys alone.

Nothing here asks a service: `trace` follows the chain of ids and digests, `verify` adds signatures, fingerprints and
what the receipt says was really changed.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from client.changes import net_states, snapshot_states, states_fingerprint
from client.documents import Documents, open_documents
from client.json_form import short_name
from gonogo.signatures import PublicKey, SignatureError, verify
from gonogo.v1 import evidence_pb2, orchestrator_pb2, sealed_pb2

Keys = Mapping[str, PublicKey]
"""Public keys by fingerprint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was checked."""

    name: str
    ok: bool
    detail: str = ""

    def as_json(self) -> dict[str, object]:
        """Return the check as scripts read it."""
        return {"name": self.name, "ok": self.ok, "detail": self.detail}


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One document or id of the chain, and where the next one names it."""

    kind: str
    id: str
    digest: str
    named_by: str
    ok: bool

    def as_json(self) -> dict[str, object]:
        """Return the link as scripts read it."""
        return {"kind": self.kind, "id": self.id, "digest": self.digest, "named_by": self.named_by, "ok": self.ok}


def trace(response: orchestrator_pb2.GetMissionResponse) -> list[Link]:
    """Return the chain from message to receipt, as far as the mission has come."""
    documents = open_documents(response)
    return [*_origin_links(response.mission, documents), *_evidence_links(response.mission, documents)]


def verify_documents(
    response: orchestrator_pb2.GetMissionResponse, *, executor_key: PublicKey, approver_keys: Keys
) -> list[Check]:
    """Check everything that can be checked about a mission without asking anybody."""
    documents = open_documents(response)
    keys = {executor_key.key_id: executor_key}
    checks = [_signed("report", response.report, keys)] if documents.report else []
    for sealed, approval in zip(response.approvals, documents.approvals, strict=True):
        checks.append(_signed(f"approval {approval.approval_id}", sealed, approver_keys))
    if documents.receipt:
        checks.append(_signed("receipt", response.receipt, keys))
    checks += [_linked(link) for link in trace(response)]
    if documents.report:
        checks += _report_checks(documents, documents.report)
    if documents.receipt:
        checks += _receipt_checks(documents, documents.receipt)
    return checks


def _origin_links(mission: orchestrator_pb2.Mission, documents: Documents) -> Iterator[Link]:
    plan = documents.plan
    if plan.message_id:
        same = plan.message_id == mission.message_id
        yield Link(kind="message", id=plan.message_id, digest="", named_by="plan.message_id", ok=same)
    if plan.transcription_id:
        same = plan.transcription_id == mission.transcription_id
        yield Link(kind="transcription", id=plan.transcription_id, digest="", named_by="plan.transcription_id", ok=same)
    same = plan.intent_id == mission.intent_id
    yield Link(kind="intent", id=plan.intent_id, digest="", named_by="plan.intent_id", ok=same)
    same = plan.mission_id == mission.mission_id
    yield Link(kind="mission", id=plan.mission_id, digest="", named_by="plan.mission_id", ok=same)


def _evidence_links(mission: orchestrator_pb2.Mission, documents: Documents) -> Iterator[Link]:
    plan, report, receipt = documents.plan, documents.report, documents.receipt
    if report is None:
        yield Link(kind="plan", id=plan.plan_id, digest=documents.plan_digest, named_by="", ok=True)
        return
    same = (report.plan_id, report.plan_digest) == (plan.plan_id, documents.plan_digest)
    yield Link(kind="plan", id=plan.plan_id, digest=documents.plan_digest, named_by="report.plan_digest", ok=same)
    expected = (report.report_id, documents.report_digest)
    same = all((one.report_id, one.report_digest) == expected for one in documents.approvals)
    named = "approval.report_digest" if documents.approvals else ""
    yield Link(kind="report", id=report.report_id, digest=documents.report_digest, named_by=named, ok=same)
    for approval, digest in zip(documents.approvals, documents.approval_digests, strict=True):
        recorded = receipt is None or (approval.approval_id, digest) in _recorded(receipt)
        named = "receipt.approvals" if receipt else ""
        yield Link(kind="approval", id=approval.approval_id, digest=digest, named_by=named, ok=recorded)
    if receipt is not None:
        same = receipt.execution_id == mission.execution_id
        named = "receipt.execution_id"
        yield Link(kind="execution", id=receipt.execution_id, digest="", named_by=named, ok=same)
        same = receipt.receipt_id == mission.receipt_id
        named = "mission.receipt_id"
        yield Link(kind="receipt", id=receipt.receipt_id, digest=documents.receipt_digest, named_by=named, ok=same)


def _recorded(receipt: evidence_pb2.Receipt) -> set[tuple[str, str]]:
    return {(record.approval_id, record.approval_digest) for record in receipt.approvals}


def _linked(link: Link) -> Check:
    detail = f"{link.id} {link.digest}".strip()
    return Check(name=f"{link.kind} is named by {link.named_by or 'nothing yet'}", ok=link.ok, detail=detail)


def _signed(name: str, sealed: sealed_pb2.Sealed, keys: Keys) -> Check:
    title = f"{name} signature"
    if not sealed.signatures:
        return Check(name=title, ok=False, detail="not signed")
    for signature in sealed.signatures:
        key = keys.get(signature.key_id)
        if key is None:
            continue
        try:
            verify(
                key,
                scheme=signature.scheme,
                signature=signature.signature,
                media_type=sealed.media_type,
                body=sealed.body,
            )
        except SignatureError as error:
            return Check(name=title, ok=False, detail=str(error))
        return Check(name=title, ok=True, detail=f"{signature.scheme} {signature.key_id}")
    return Check(name=title, ok=False, detail=f"by an unknown key {sealed.signatures[0].key_id}")


def _report_checks(documents: Documents, report: evidence_pb2.Report) -> Iterator[Check]:
    plan = documents.plan
    ids = (report.mission_id, report.intent_id, report.workspace_id, report.executor_id)
    same = ids == (plan.mission_id, plan.intent_id, plan.workspace_id, plan.executor_id)
    yield Check(name="report and plan agree", ok=same, detail="mission, intent, workspace and executor ids")
    if report.status == evidence_pb2.REPORT_STATUS_SUCCESS:
        same = [step.step_id for step in report.steps] == [step.step_id for step in plan.steps]
        yield Check(name="report covers every step", ok=same, detail=f"{len(plan.steps)} steps")
        yield _guarded(
            "report's after fingerprint",
            lambda: (states_fingerprint(_report_states(report)[1]), report.after_fingerprint),
        )
    for approval in documents.approvals:
        ids = (approval.mission_id, approval.intent_id, approval.workspace_id, approval.executor_id)
        same = ids == (plan.mission_id, plan.intent_id, plan.workspace_id, plan.executor_id)
        same = same and (approval.plan_id, approval.plan_digest) == (plan.plan_id, documents.plan_digest)
        approves = approval.decision == evidence_pb2.DECISION_APPROVE
        yield Check(
            name=f"approval {approval.approval_id} is for this plan", ok=same and approves, detail=approval.approver
        )


def _receipt_checks(documents: Documents, receipt: evidence_pb2.Receipt) -> Iterator[Check]:
    plan, report = documents.plan, documents.report
    ids = (receipt.mission_id, receipt.intent_id, receipt.workspace_id, receipt.executor_id)
    same = ids == (plan.mission_id, plan.intent_id, plan.workspace_id, plan.executor_id)
    same = same and (receipt.message_id, receipt.transcription_id) == (plan.message_id, plan.transcription_id)
    yield Check(name="receipt and plan agree", ok=same, detail="ids of the chain")
    digests = (receipt.plan_digest, receipt.report_digest)
    same = digests == (documents.plan_digest, documents.report_digest)
    yield Check(name="receipt names plan and report", ok=same, detail="by digest")
    yield Check(name="receipt names an approval", ok=bool(receipt.approvals), detail=_approvers(receipt))
    yield _guarded(
        "after fingerprint of the receipt's snapshots",
        lambda: (states_fingerprint(snapshot_states(receipt.after)), receipt.after_fingerprint),
    )
    outcome = short_name(receipt, "execution_status")
    success = receipt.execution_status == evidence_pb2.OUTCOME_SUCCESS
    if success and report is not None:
        yield from _success_checks(receipt, report)
    counted = sum(step.success for step in receipt.steps), sum(not step.success for step in receipt.steps)
    same = counted == (receipt.steps_succeeded, receipt.steps_failed)
    yield Check(name="receipt counts its steps", ok=same, detail=f"{counted[0]} succeeded, {counted[1]} failed")
    consistent = success == (not receipt.divergence_detected and not receipt.abort_reason and not receipt.steps_failed)
    yield Check(name="receipt's outcome is borne out by its steps", ok=consistent, detail=outcome)


def _success_checks(receipt: evidence_pb2.Receipt, report: evidence_pb2.Report) -> Iterator[Check]:
    same = receipt.after_fingerprint == receipt.expected_after_fingerprint == report.after_fingerprint
    yield Check(name="result is what the report promised", ok=same, detail=receipt.after_fingerprint)
    yield _guarded("before and after are the report's", lambda: (_receipt_states(receipt), _report_states(report)))


def _receipt_states(receipt: evidence_pb2.Receipt) -> object:
    return snapshot_states(receipt.before), snapshot_states(receipt.after)


def _report_states(
    report: evidence_pb2.Report,
) -> tuple[dict[bytes, evidence_pb2.NodeState | None], dict[bytes, evidence_pb2.NodeState | None]]:
    return net_states(step.changes for step in report.steps)


def _approvers(receipt: evidence_pb2.Receipt) -> str:
    return ", ".join(f"{record.approver} ({record.key_id})" for record in receipt.approvals)


def _guarded(name: str, values: Callable[[], tuple[object, object]]) -> Check:
    try:
        left, right = values()
    except ValueError as error:  # a path or node that no honest document holds
        return Check(name=name, ok=False, detail=str(error))
    return Check(name=name, ok=left == right, detail=left if isinstance(left, str) else "")
