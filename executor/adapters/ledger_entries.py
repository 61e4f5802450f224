"""What the entries of the audit log say: one JSON object each, which names by digest everything that it stands for.

An entry is written from the values that the same transaction stores, and can be made again from the stored rows: where
the two differ, somebody changed the rows or the entry. So an entry holds every column of its row; of documents and
event texts, which are large, the digest.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from executor.runner.ports import Claim, RequestRecord
from gonogo.digests import digest, framed_digest

REPORT_ISSUED: Final = "report_issued"
CLAIMED: Final = "claimed"
EVENTS_RECORDED: Final = "events_recorded"
EXECUTION_ENDED: Final = "execution_ended"
REFUSED: Final = "refused"
EPOCH_STARTED: Final = "epoch_started"
CHECKPOINT_KEPT: Final = "checkpoint_kept"
FORK_FOUND: Final = "fork_found"
CHECKPOINT_FORGOTTEN: Final = "checkpoint_forgotten"

Value = Mapping[str, Any]

_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def entry_text(kind: str, mission_id: str, at_us: int, value: Value) -> str:
    """Write an entry: the bytes of this text in UTF-8 are the leaf.

    Args:
        kind: what happened.
        mission_id: whose it is; empty where it is no mission's.
        at_us: when, in microseconds since 1970.
        value: all that it says besides.
    """
    whole = {"type": kind, "mission_id": mission_id, "at_us": at_us, **value}
    return _encode(whole)


def signed_by(key_id: str, signature: bytes) -> str:
    """Name a signature and the key that it is said to be by."""
    return framed_digest((key_id.encode(), signature))


def report_value(
    *, report_digest: str, report_id: str, plan_digest: str, epoch: str, status: str, signature: str
) -> Value:
    """Say that a report was issued."""
    return {
        "report_digest": report_digest,
        "report_id": report_id,
        "plan_digest": plan_digest,
        "epoch": epoch,
        "status": status,
        "signature": signature,
    }


def claim_value(claim: Claim, text: str, request: RequestRecord) -> Value:
    """Say that a mission was claimed.

    Args:
        claim: the claim.
        text: as the ledger keeps it.
        request: the request that it answers.
    """
    return {
        "execution_id": claim.execution_id,
        "segment": claim.segment,
        "plan_digest": claim.plan_digest,
        "report_digest": claim.report_digest,
        "approvals": [record.approval_digest for record in claim.approvals],
        "claim_digest": digest(text.encode()),
        "request_id": request.request_id,
        "request_digest": request.body_digest,
    }


def events_value(execution_id: str, last_sequence: int, text: str) -> Value:
    """Say that some events of an execution were stored while it ran."""
    return {"execution_id": execution_id, "last_sequence": last_sequence, "events_digest": digest(text.encode())}


def end_value(
    *, execution_id: str, outcome: str, receipt_digest: str, signature: str, last_sequence: int, events: str
) -> Value:
    """Say that an execution ended."""
    return {
        "execution_id": execution_id,
        "outcome": outcome,
        "receipt_digest": receipt_digest,
        "signature": signature,
        "last_sequence": last_sequence,
        "events_digest": digest(events.encode()),
    }


def refusal_value(*, refusal_id: str, gate: int, reason: str, refusal_digest: str, signature: str, event: str) -> Value:
    """Say that a request was refused."""
    return {
        "refusal_id": refusal_id,
        "gate": gate,
        "reason": reason,
        "refusal_digest": refusal_digest,
        "signature": signature,
        "event_digest": digest(event.encode()),
    }


def epoch_value(epoch: str, former: str, why: str, rows: Sequence[int]) -> Value:
    """Say that an epoch of the ledger began.

    Args:
        epoch: the new one.
        former: the one before; empty for a new ledger.
        why: in words.
        rows: how many reports, executions, batches of events, receipts and refusals the ledger held.
    """
    return {"epoch": epoch, "former": former, "why": why, "rows": list(rows)}


def caller_value(identity: str, note: str, other: str = "") -> Value:
    """Say what became of a checkpoint of a caller's log.

    Args:
        identity: the caller's SPIFFE id.
        note: the checkpoint that is, or was, kept.
        other: the one that contradicts it.
    """
    value = {"identity": identity, "note": note}
    return {**value, "other": other} if other else value
