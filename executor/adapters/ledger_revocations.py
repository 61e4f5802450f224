"""Revocations and denials as rows of the SQLite ledger."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from executor.adapters.ledger_audit import AuditRows, append_entry
from executor.adapters.ledger_claims import claim_from_json
from executor.adapters.ledger_entries import signed_by
from executor.domain.errors import StoreError
from executor.domain.revocation import RevocationKind, RevocationRecord, binding
from executor.domain.sealed import SealedBytes, Signature
from executor.runner.ports import Revoked, Standing

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)

REVOKED: Final = "revoked"
"""The kind of these entries in the audit log."""


class Revocations(AuditRows):
    """The part of the SQLite ledger that knows what was taken back.

    Whoever claims a mission looks at these rows in the statement that inserts the claim, so that of a revocation and a
    claim one is always first.
    """

    def revoke(self, record: RevocationRecord) -> Revoked:
        if self._known(record) is None:  # said once more it writes nothing at all
            with self._commit(_micros(record.recorded_at)) as execute:
                if execute("insert_revocation", *_row(record)):
                    append_entry(execute, REVOKED, record.mission_id, _value(record))
            self._anchor_it()
        # Read after the commit: a claim that came before it is there, and none that stands on this can come after it.
        standing, approvers = self._standing(record.mission_id)
        runs = standing is Standing.CLAIMED and binding((record,), approvers) is not None
        return Revoked(record=self._known(record) or record, in_time=standing is Standing.FREE, stopping=runs)

    def _anchor_it(self) -> None:
        """Have the anchor remember it, too: a ledger that is restored to the time before has not forgotten it unseen.

        Whoever is answered was told what outlives that. Where the anchor can not be written, the revocation holds all
        the same.
        """
        if self._anchor is not None:
            self._anchor.move(self.audited_state())
            with suppress(StoreError):
                self._anchor.settle()

    def revocations(self, mission_id: str) -> tuple[RevocationRecord, ...]:
        return tuple(_record(*row) for row in self._rows("revocations", mission_id))

    def _known(self, record: RevocationRecord) -> RevocationRecord | None:
        kept = self.revocations(record.mission_id)
        return next((one for one in kept if (one.person, one.kind) == (record.person, record.kind)), None)

    def _standing(self, mission_id: str) -> tuple[Standing, tuple[str, ...]]:
        """Return how a mission stands, and on whose approvals: those of the newest segment of its execution."""
        rows = self._rows("last_claim_and_outcome", mission_id)
        if not rows:
            return Standing.FREE, ()
        [(claim, outcome)] = rows
        approvers = tuple(one.approver for one in claim_from_json(claim).approvals)
        return (Standing.CLAIMED if outcome is None else Standing.EXECUTED), approvers


def _row(record: RevocationRecord) -> tuple[object, ...]:
    [signature] = record.document.signatures
    return (
        record.mission_id,
        record.person,
        record.kind.value,
        record.revocation_id,
        record.reason,
        _micros(record.recorded_at),
        record.document.media_type,
        record.document.body,
        signature.key_id,
        signature.scheme,
        signature.signature,
        signature.extra,
    )


def _value(record: RevocationRecord) -> Mapping[str, object]:
    [signature] = record.document.signatures
    return {
        "revocation_id": record.revocation_id,
        "person": record.person,
        "kind": record.kind.value,
        "reason": record.reason,
        "media_type": record.document.media_type,
        "document_digest": record.document.digest,
        "signature": signed_by(signature.key_id, signature.signature),
    }


def _record(mission_id: str, person: str, kind: str, revocation_id: str, reason: str, *rest: Any) -> RevocationRecord:
    recorded_at_us, media_type, body, key_id, scheme, signature, extra = rest
    signed = Signature(key_id=key_id, scheme=scheme, signature=signature, extra=extra)
    return RevocationRecord(
        revocation_id=revocation_id,
        mission_id=mission_id,
        person=person,
        kind=RevocationKind(kind),
        reason=reason,
        recorded_at=_EPOCH + recorded_at_us * _MICROSECOND,
        document=SealedBytes(media_type=media_type, body=body, signatures=(signed,)),
    )


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def revocation_said(row: tuple[Any, ...]) -> tuple[int, Mapping[str, object]]:
    """Return what the audit log's entry of a stored row must say, and its time."""
    record = _record(*row)
    return _micros(record.recorded_at), _value(record)
