"""Compares the entries of the audit log with the rows that they stand for.

From the rows an entry is made again, and must be the very text that the log holds: so an edited row is found as well as
an edited entry, and a row that is gone.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from executor.adapters.ledger_audit import Rows, StoredEntry
from executor.adapters.ledger_claims import claim_from_json
from executor.adapters.ledger_controls import CONTROL, control_of, control_said
from executor.adapters.ledger_effects import EFFECT_CLAIMED, EFFECT_SETTLED, effect_said, settlement_said
from executor.adapters.ledger_entries import (
    CLAIMED,
    EVENTS_RECORDED,
    EXECUTION_ENDED,
    REFUSED,
    REPORT_ISSUED,
    claim_value,
    end_value,
    entry_text,
    events_value,
    refusal_value,
    report_value,
    signed_by,
)
from executor.adapters.ledger_revocations import REVOKED, revocation_said
from executor.runner.ports import RequestRecord
from executor.runner.requests import CONTROL as CONTROL_REQUEST
from gonogo.digests import digest

COUNTED: Final = (REPORT_ISSUED, CLAIMED, EVENTS_RECORDED, EXECUTION_ENDED, REFUSED)
"""The kinds whose rows `recorded_rows` counts, in its order."""
COUNTED_OF_CONTROL: Final = (CLAIMED, CONTROL, EFFECT_CLAIMED, EFFECT_SETTLED)
"""Those of `recorded_control_rows`: claims here are those of later segments."""


class GoneError(LookupError):
    """What an entry stands for is not there, or is not what can be read."""


class Records:
    """Looks up what entries stand for."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._made: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
            REPORT_ISSUED: self._report,
            CLAIMED: self._claim,
            EVENTS_RECORDED: self._events,
            EXECUTION_ENDED: self._end,
            REFUSED: self._refusal,
            REVOKED: self._revocation,
            CONTROL: self._control,
            EFFECT_CLAIMED: self._effect,
            EFFECT_SETTLED: self._settlement,
        }

    def fault_of(self, entry: StoredEntry) -> str:
        """Say in words how an entry and its record differ; empty where they agree."""
        kind = ""
        try:
            said = json.loads(entry.leaf)
            kind = said["type"]
            if said["mission_id"] != entry.mission_id:
                return "it is filed under another mission"
            make = self._made.get(kind)
            if make is not None and make(said).encode() != entry.leaf:
                return f"what is recorded of it ({kind}, mission {entry.mission_id}) says something else"
        except GoneError:
            return f"what it stands for ({kind}, mission {entry.mission_id}) is not there"
        except (ValueError, LookupError, TypeError, AttributeError):
            return "it or what is recorded of it can not be read"
        return ""

    def _one(self, query: str, *values: object) -> tuple[Any, ...]:
        rows = self._rows(query, *values)
        if len(rows) != 1:
            raise GoneError(query)
        return rows[0]

    def _report(self, said: Mapping[str, Any]) -> str:
        row = self._one("audited_report", said["report_digest"])
        mission_id, report_id, plan_digest, epoch, status, issued_at, key_id, signature, body = row
        value = report_value(
            report_digest=digest(body),
            report_id=report_id,
            plan_digest=plan_digest,
            epoch=epoch,
            status=status,
            signature=signed_by(key_id, signature),
        )
        return entry_text(REPORT_ISSUED, mission_id, issued_at, value)

    def _claim(self, said: Mapping[str, Any]) -> str:
        place = (said["execution_id"], said["segment"])
        row = self._one("audited_segment", *place) if said["segment"] else self._one("audited_claim", place[0])
        mission_id, segment, report_digest, claimed_at, text = row
        claim = claim_from_json(text)
        if (claim.mission_id, claim.segment, claim.report_digest) != (mission_id, segment, report_digest):
            return ""
        for approval, nonce in zip(claim.approvals, claim.nonces, strict=True):
            self._one("audited_approval", approval.approval_id, nonce, claim.execution_id)
        kind, body_digest, reference = self._one("audited_request", said["request_id"])
        request = RequestRecord(request_id=said["request_id"], kind=kind, body_digest=body_digest, reference=reference)
        if reference != claim.execution_id:
            return ""
        return entry_text(CLAIMED, mission_id, claimed_at, claim_value(claim, text, request))

    def _events(self, said: Mapping[str, Any]) -> str:
        execution_id, last = said["execution_id"], said["last_sequence"]
        mission_id, text = self._one("audited_events", execution_id, last)
        return entry_text(EVENTS_RECORDED, mission_id, said["at_us"], events_value(execution_id, last, text))

    def _end(self, said: Mapping[str, Any]) -> str:
        row = self._one("audited_end", said["execution_id"])
        mission_id, ended_at, outcome, last_sequence, events, key_id, signature, body = row
        value = end_value(
            execution_id=said["execution_id"],
            outcome=outcome,
            receipt_digest=digest(body),
            signature=signed_by(key_id, signature),
            last_sequence=last_sequence,
            events=events,
        )
        return entry_text(EXECUTION_ENDED, mission_id, ended_at, value)

    def _refusal(self, said: Mapping[str, Any]) -> str:
        row = self._one("audited_refusal", said["refusal_id"])
        mission_id, gate, reason, refused_at, event, key_id, signature, body = row
        value = refusal_value(
            refusal_id=said["refusal_id"],
            gate=gate,
            reason=reason,
            refusal_digest=digest(body),
            signature=signed_by(key_id, signature),
            event=event,
        )
        return entry_text(REFUSED, mission_id, refused_at, value)

    def _revocation(self, said: Mapping[str, Any]) -> str:
        row = self._one("audited_revocation", said["mission_id"], said["person"], said["kind"])
        recorded_at, value = revocation_said(row)
        return entry_text(REVOKED, said["mission_id"], recorded_at, value)

    def _control(self, said: Mapping[str, Any]) -> str:
        row = self._one("control", said["request_id"])
        kind, body_digest, reference = self._one("audited_request", said["request_id"])
        mission_id, recorded_at, value = control_said(row)
        if (kind, body_digest, reference) != (CONTROL_REQUEST, value["request_digest"], value["execution_id"]):
            return ""
        if value["document_id"]:
            self._one("audited_approval", value["document_id"], control_of(row).nonce, value["execution_id"])
        return entry_text(CONTROL, mission_id, recorded_at, value)

    def _effect(self, said: Mapping[str, Any]) -> str:
        return entry_text(EFFECT_CLAIMED, *effect_said(self._one("effect", said["effect_id"])))

    def _settlement(self, said: Mapping[str, Any]) -> str:
        place = (said["effect_id"], said["settlement"])
        row, settled = self._one("effect", place[0]), self._one("audited_settlement", *place)
        return entry_text(EFFECT_SETTLED, *settlement_said(row, place[1], settled))
