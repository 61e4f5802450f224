"""What people had executions do, as rows of the SQLite ledger."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal

from executor.adapters.ledger_audit import AuditRows, append_entry, state_after
from executor.adapters.ledger_entries import signed_by
from executor.adapters.ledger_segments import signatures_from_json, signatures_to_json
from executor.adapters.sqlite_driver import sqlite3
from executor.domain.control import ControlAction
from executor.domain.errors import StoreError
from executor.domain.sealed import SealedBytes
from executor.domain.step_words import used_up
from executor.runner.control_ports import DEADLINE, DENY_STEP, ControlEntry
from executor.runner.ports import RequestRecord
from executor.runner.requests import CONTROL as CONTROL_REQUEST
from executor.runner.requests import check_same

CONTROL: Final = "control"
"""The kind of these entries in the audit log."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Controls(AuditRows):
    """The part of the SQLite ledger that knows who had an execution do what."""

    def record_control(self, entry: ControlEntry) -> ControlEntry | None:
        if self._anchor is not None:
            self._anchor.check()
        try:
            with self._commit(_micros(entry.recorded_at)) as execute:
                execute("insert_request", entry.request_id, CONTROL_REQUEST, entry.body_digest, entry.execution_id)
                execute("insert_control", *_row(entry))
                if entry.document is not None:
                    execute("insert_used_approval", entry.document_id, entry.nonce, entry.execution_id)
                append_entry(execute, CONTROL, entry.mission_id, control_value(entry))
                self._sign(execute)
                state = state_after(execute, self._epoch)
        except StoreError as error:
            if isinstance(error.__cause__, sqlite3.IntegrityError):
                return self._recorded(entry, error)
            raise
        if self._anchor is not None:
            self._anchor.move(state)
        return None

    def controls(self, execution_id: str) -> tuple[ControlEntry, ...]:
        return tuple(control_of(row) for row in self._rows("controls_of", execution_id))

    def unheeded_control(self, mission_id: str) -> ControlEntry | None:
        for kind, request_id in self._rows("last_recorded", mission_id):
            if kind == CONTROL:
                return control_of(self._rows("control", request_id)[0])
        return None

    def word_used(self, document_id: str, nonce: str) -> bool:
        return bool(self._rows("used_approval", document_id, nonce))

    def _recorded(self, entry: ControlEntry, error: StoreError) -> ControlEntry:
        rows = self._rows("control", entry.request_id)
        if rows:
            return control_of(rows[0])
        for row in self._rows("request", entry.request_id):
            known = RequestRecord(request_id=row[0], kind=row[1], body_digest=row[2], reference=row[3])
            check_same(known, CONTROL_REQUEST, entry.body_digest)
        if entry.document is not None and self.word_used(entry.document_id, entry.nonce):
            raise used_up(entry.document_id) from None
        raise error


def control_value(entry: ControlEntry) -> Mapping[str, object]:
    """Return what the audit log's entry says."""
    document = entry.document
    return {
        "request_id": entry.request_id,
        "request_digest": entry.body_digest,
        "execution_id": entry.execution_id,
        "action": entry.action_name,
        "actor": entry.actor,
        "reason": entry.reason,
        "roll_back": int(entry.roll_back),
        "step_id": entry.step_id,
        "document_id": entry.document_id,
        "document_digest": "" if document is None else document.digest,
        "signature": "" if document is None else _signature(document),
    }


def control_of(row: tuple[Any, ...]) -> ControlEntry:
    """Read a stored row."""
    request_id, body_digest, execution_id, mission_id, action, actor, reason, roll_back, step_id, at_us, *rest = row
    document_id, nonce, media_type, body, signatures = rest
    document = None
    if media_type is not None:
        document = SealedBytes(media_type=media_type, body=body, signatures=signatures_from_json(signatures))
    return ControlEntry(
        request_id=request_id,
        body_digest=body_digest,
        execution_id=execution_id,
        mission_id=mission_id,
        action=_action(action),
        actor=actor,
        reason=reason,
        roll_back=bool(roll_back),
        step_id=step_id,
        document=document,
        recorded_at=_EPOCH + at_us * _MICROSECOND,
        document_id=document_id,
        nonce=nonce,
    )


def control_said(row: tuple[Any, ...]) -> tuple[str, int, Mapping[str, object]]:
    """Return whose the audit log's entry of a stored row must be, its time, and what it must say."""
    entry = control_of(row)
    return entry.mission_id, _micros(entry.recorded_at), control_value(entry)


def _row(entry: ControlEntry) -> tuple[object, ...]:
    document = entry.document
    carried = (None, None, None)
    return (
        entry.request_id,
        entry.body_digest,
        entry.execution_id,
        entry.mission_id,
        entry.action_name,
        entry.actor,
        entry.reason,
        int(entry.roll_back),
        entry.step_id,
        _micros(entry.recorded_at),
        entry.document_id,
        entry.nonce,
        *(carried if document is None else _carried(document)),
    )


def _carried(document: SealedBytes) -> tuple[str, bytes, str]:
    return document.media_type, document.body, signatures_to_json(document.signatures)


def _signature(document: SealedBytes) -> str:
    [signature] = document.signatures
    return signed_by(signature.key_id, signature.signature)


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def _action(name: str) -> ControlAction | Literal["deadline", "deny_step"]:
    if name == DEADLINE:
        return DEADLINE
    return DENY_STEP if name == DENY_STEP else ControlAction(name)
