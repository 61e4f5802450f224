"""What honest services write: gate records, events and leaves, for the documents that they are about."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from client.json_form import short_name
from gonogo import sealing
from gonogo.digests import digest, framed_digest
from gonogo.signatures import SigningKey
from gonogo.v1 import events_pb2, evidence_pb2, sealed_pb2

START = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def stamp(moment: datetime) -> Timestamp:
    time = Timestamp()
    time.FromDatetime(moment)
    return time


def signature(media_type: str, body: bytes, key: SigningKey, scheme: str) -> sealed_pb2.Signature:
    return sealed_pb2.Signature(key_id=key.public.key_id, scheme=scheme, signature=key.sign(scheme, media_type, body))


def snapshots(states: Mapping[bytes, evidence_pb2.NodeState | None]) -> list[evidence_pb2.Snapshot]:
    return [evidence_pb2.Snapshot(path=path.decode(), node=one) for path, one in sorted(states.items())]


def gate_records(receipt: evidence_pb2.Receipt, report: evidence_pb2.Report) -> list[evidence_pb2.GateRecord]:
    """Return what the gates of an honest executor saw."""
    who = ", ".join(f"{one.approver} by {one.key_id} ({one.scheme})" for one in receipt.approvals)
    mission = f"{receipt.mission_id}, {receipt.intent_id}, {receipt.workspace_id}, {receipt.executor_id}"
    details = (
        ("report_exists", f"{report.report_id}, {receipt.report_digest}, epoch {report.ledger_epoch}"),
        ("simulation_succeeded", "success at ladder level L3"),
        ("approved", f"{who}; policy {receipt.policy_digest}"),
        ("plan_matches", f"{receipt.plan_id}, {receipt.plan_digest}"),
        ("mission_matches", mission),
        ("no_drift", f"base {report.base_fingerprint}"),
        ("once", f"{receipt.mission_id} claimed by {receipt.execution_id}"),
    )
    return [evidence_pb2.GateRecord(gate=gate, name=name, detail=text) for gate, (name, text) in enumerate(details, 1)]


def granted(sealed: sealed_pb2.Sealed) -> events_pb2.ApprovalGranted:
    approval = sealing.open_sealed(sealed.body, evidence_pb2.Approval)
    return events_pb2.ApprovalGranted(
        approval_id=approval.approval_id,
        approval_digest=digest(sealed.body),
        approver=approval.approver,
        key_id=sealed.signatures[0].key_id,
        expires_at=approval.expires_at,
        report_digest=approval.report_digest,
    )


def signed_by(sealed: sealed_pb2.Sealed) -> str:
    return framed_digest((sealed.signatures[0].key_id.encode(), sealed.signatures[0].signature))


def report_leaf(sealed: sealed_pb2.Sealed, report: evidence_pb2.Report) -> dict[str, Any]:
    return {
        "type": "report_issued",
        "mission_id": report.mission_id,
        "at_us": report.completed_at.ToMicroseconds(),
        "report_digest": digest(sealed.body),
        "report_id": report.report_id,
        "plan_digest": report.plan_digest,
        "epoch": report.ledger_epoch,
        "status": short_name(report, "status"),
        "signature": signed_by(sealed),
    }


def revocation_leaf(mission_id: str, person: str, kind: str) -> dict[str, Any]:
    """The leaf of a revocation whose document only the executor has."""
    return {
        "type": "revoked",
        "mission_id": mission_id,
        "at_us": 1,
        "revocation_id": "rv-1",
        "person": person,
        "kind": kind,
        "reason": "",
        "media_type": "application/vnd.gonogo.revocation.v1+json",
        "document_digest": digest(b"revocation"),
        "signature": "by nobody",
    }


def refusal_leaf(sealed: sealed_pb2.Sealed, refusal: evidence_pb2.Refusal) -> dict[str, Any]:
    return {
        "type": "refused",
        "mission_id": refusal.mission_id,
        "at_us": refusal.refused_at.ToMicroseconds(),
        "refusal_id": refusal.refusal_id,
        "gate": refusal.gate,
        "reason": refusal.abort_reason,
        "refusal_digest": digest(sealed.body),
        "signature": signed_by(sealed),
        "event_digest": digest(b"event"),
    }


def execution_leaves(sealed: sealed_pb2.Sealed, receipt: evidence_pb2.Receipt) -> list[dict[str, Any]]:
    """Return the leaves of a claim, of a batch of events and of the end."""
    mission, execution = receipt.mission_id, receipt.execution_id
    begun, ended = receipt.started_at.ToMicroseconds(), receipt.completed_at.ToMicroseconds()
    return [
        {
            "type": "claimed",
            "mission_id": mission,
            "at_us": begun,
            "execution_id": execution,
            "segment": 0,
            "plan_digest": receipt.plan_digest,
            "report_digest": receipt.report_digest,
            "approvals": [one.approval_digest for one in receipt.approvals],
            "claim_digest": digest(b"claim"),
            "request_id": "q-1",
            "request_digest": digest(b"request"),
        },
        {
            "type": "events_recorded",
            "mission_id": mission,
            "at_us": begun,
            "execution_id": execution,
            "last_sequence": 1,
            "events_digest": digest(b"events"),
        },
        {
            "type": "execution_ended",
            "mission_id": mission,
            "at_us": ended,
            "execution_id": execution,
            "outcome": short_name(receipt, "execution_status"),
            "receipt_digest": digest(sealed.body),
            "signature": signed_by(sealed),
            "last_sequence": 4,
            "events_digest": digest(b"more events"),
        },
    ]


def leaf_text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def event_leaf(place: int, stream: str, version: int, name: str, payload: Message, seconds: float, actor: str) -> str:
    """Return the leaf of an event of the orchestrator."""
    at = stamp(after(seconds)).ToMicroseconds()
    data = json.dumps(
        json_format.MessageToDict(payload, preserving_proto_field_name=True), ensure_ascii=False, separators=(",", ":")
    )
    value = [place + 1, stream, version, name, 1, at, at, None, actor, data]
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
