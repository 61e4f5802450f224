"""What the tests of ledgers write: claims, reports, controls, effects, made so that they fit one another."""

import dataclasses
from datetime import UTC, datetime, timedelta

from executor.domain.control import ControlAction
from executor.domain.events import StepCompleted
from executor.domain.ladder import LadderLevel
from executor.domain.plan import FailurePolicy, Stage
from executor.domain.receipt import ApprovalRecord, ReconciliationRecord
from executor.domain.report import Report, ReportStatus, RiskLevel, SelfApproval
from executor.domain.revocation import RevocationKind, RevocationRecord
from executor.domain.sealed import SealedBytes, Signature
from executor.runner.control_ports import ControlEntry, EffectClaim, effect_id_of
from executor.runner.ports import Checkpoint, Claim, Event, RequestRecord
from gonogo import sealing
from gonogo.digests import digest
from gonogo.signatures import ED25519

TIME = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)
PLAN = SealedBytes(media_type=sealing.PLAN, body=b"plan")
SIGNED = (Signature(key_id="SHA256:proposer", scheme=ED25519, signature=b"p" * 64, extra=b"\x00extra"),)
WORD = SealedBytes(media_type=sealing.STEP_APPROVAL, body=b"{}", signatures=SIGNED)
RECONCILED = ReconciliationRecord(
    reconciliation_id="w-3",
    reconciliation_digest=digest(b"word"),
    person="owner",
    key_id="SHA256:key",
    happened=False,
)


def sealed(media_type: str, body: bytes) -> SealedBytes:
    """A document as the executor signs it."""
    signature = Signature(key_id="SHA256:key", scheme=ED25519, signature=b"s" * 64)
    return SealedBytes(media_type=media_type, body=body, signatures=(signature,))


def claim(number: int = 1, **changes: object) -> Claim:
    """A claim that shares nothing with that of another number."""
    record = ApprovalRecord(
        approval_id=f"a-{number}",
        approval_digest=digest(b"approval"),
        approver="owner",
        key_id="SHA256:key",
        approved_at=TIME,
    )
    values = Claim(
        mission_id=f"m-{number}",
        segment=0,
        execution_id=f"x-{number}",
        intent_id="i-1",
        message_id="msg-1",
        transcription_id="",
        plan_id="p-1",
        plan_digest=digest(b"plan"),
        report_digest=digest(b"report"),
        workspace_id="site",
        approvals=(record,),
        nonces=(f"n-{number}",),
        self_approval=SelfApproval.ALLOWED,
        policy_digest=digest(b"policy"),
        claimed_at=TIME,
        failure_policy=FailurePolicy.STOP,
        targets=("docs/guide.md",),
    )
    return dataclasses.replace(values, **changes)  # type: ignore[arg-type]  # a test's own values


def request(request_id: str = "q-1", reference: str = "x-1") -> RequestRecord:
    return RequestRecord(request_id=request_id, kind="execute", body_digest=digest(b"body"), reference=reference)


def report(**changes: object) -> Report:
    """A report as the ledger looks at it."""
    values = Report(
        report_id="r-1",
        mission_id="m-1",
        intent_id="i-1",
        plan_id="p-1",
        plan_digest=digest(b"plan"),
        workspace_id="site",
        executor_id="executor-test",
        ledger_epoch="epoch",
        nonce="nonce",
        status=ReportStatus.SUCCESS,
        problems=(),
        started_at=TIME,
        completed_at=TIME,
        ladder_level=LadderLevel.L3,
        self_approval=SelfApproval.ALLOWED,
        policy_digest=digest(b"policy"),
        base_fingerprint="",
        after_fingerprint="",
        manifest_digest="",
        steps=(),
        risk_level=RiskLevel.LOW,
        risk_facts=(),
    )
    return dataclasses.replace(values, **changes)  # type: ignore[arg-type]  # a test's own values


def checkpoint(number: int, **changes: object) -> Checkpoint:
    """A checkpoint of one step of the first mission."""
    values = Checkpoint(
        slot=f"x-1-{number}",
        execution_id="x-1",
        mission_id="m-1",
        step_id=f"s{number}",
        workspace_id="site",
        kept_at=TIME + timedelta(seconds=number),
        size=number,
        record=b'{"slot":"x-1-%d"}' % number,
    )
    return dataclasses.replace(values, **changes)  # type: ignore[arg-type]  # a test's own values


def event(sequence: int) -> Event:
    payload = StepCompleted(
        step_id="s1", kind="write_file", stage=Stage.EDIT, success=True, duration_ms=3, change_count=1
    )
    return Event(event_id=f"e-{sequence}", mission_id="m-1", sequence=sequence, time=TIME, payload=payload)


def revocation(kind: RevocationKind, person: str = "owner") -> RevocationRecord:
    """What somebody takes back of the first mission."""
    return RevocationRecord(
        revocation_id=f"rv-{kind.value}",
        mission_id="m-1",
        person=person,
        kind=kind,
        reason="",
        recorded_at=TIME,
        document=sealed(sealing.REVOCATION, b"{}"),
    )


def control(number: int = 1, **changes: object) -> ControlEntry:
    """What somebody has the first execution do."""
    values = ControlEntry(
        request_id=f"c-{number}",
        body_digest=digest(b"body"),
        execution_id="x-1",
        mission_id="m-1",
        action=ControlAction.STOP,
        actor="owner",
        reason="enough",
        roll_back=True,
        step_id="",
        document=None,
        recorded_at=TIME,
    )
    return dataclasses.replace(values, **changes)  # type: ignore[arg-type]  # a test's own values


def effect(attempt: int = 1, **changes: object) -> EffectClaim:
    """An attempt of the first execution's first step."""
    values = EffectClaim(
        effect_id=effect_id_of("x-1", "s1", attempt),
        execution_id="x-1",
        mission_id="m-1",
        segment=0,
        step_id="s1",
        attempt=attempt,
        compensates=False,
        kind="http_request",
        target="POST https://example.org/items",
        digest=digest(b"request"),
        idempotency_key="x-1-s1",
        claimed_at=TIME,
    )
    return dataclasses.replace(values, **changes)  # type: ignore[arg-type]  # a test's own values
