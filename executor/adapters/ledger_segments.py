"""The segments of an execution and the plans they run under, as rows of the SQLite ledger."""

import base64
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from executor.adapters.ledger_claims import claim_from_json
from executor.adapters.ledger_retention import Execute
from executor.domain.errors import StoreError
from executor.domain.revocation import RevocationRecord, binding
from executor.domain.sealed import SealedBytes, Signature
from executor.runner.ports import Claim, ClaimConflict, Standing
from gonogo import sealing

CONFLICTS: Final = {
    Standing.CLAIMED: ClaimConflict.MISSION_CLAIMED,
    Standing.EXECUTED: ClaimConflict.MISSION_EXECUTED,
}
PLANS_AT_ONCE: Final = 200

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_encode: Final = json.JSONEncoder(separators=(",", ":")).encode


class Segments(ABC):
    """The part of the SQLite ledger that knows what an execution stands on, segment by segment."""

    def standing(self, mission_id: str, segment: int = 0) -> Standing:
        rows = self._rows("standing_of_segment" if segment else "standing", mission_id, segment)
        if not rows:
            return Standing.FREE
        return Standing.CLAIMED if rows[0][0] is None else Standing.EXECUTED

    def claims_of(self, execution_id: str) -> tuple[Claim, ...]:
        return tuple(claim_from_json(row[0]) for row in self._rows("claims_of", execution_id))

    def plan_of(self, execution_id: str, segment: int) -> SealedBytes | None:
        rows = self._rows("plan_of", execution_id, segment)
        if not rows:
            return None
        [(signatures, body)] = rows
        plan = SealedBytes(media_type=sealing.PLAN, body=body, signatures=signatures_from_json(signatures))
        claimed = next((one.plan_digest for one in self.claims_of(execution_id) if one.segment == segment), "")
        if plan.digest != claimed:
            raise StoreError(
                "INTERNAL",
                f"the ledger's plan of execution {execution_id}, segment {segment}, is not the one that was claimed",
                "restore the executor's ledger from a copy",
            )
        return plan

    def forget_plans(self, before: datetime, after: int = 0) -> int:
        """Forget plans of executions that ended before a moment, a page of them.

        Args:
            before: the moment.
            after: where the page begins.

        Returns:
            Where the next one begins; 0 when nothing older is left.
        """
        rows = self._rows("plans_after", after, PLANS_AT_ONCE)
        moment = (before - _EPOCH) // _MICROSECOND
        gone = [number for number, _, ended_at in rows if ended_at is not None and ended_at < moment]
        if gone:
            with self._commit(0) as execute:
                for number in gone:
                    execute("forget_plan", number)
        # Who was claimed after the moment has not ended before it, and the rows come in the order of the claims.
        older = len(rows) == PLANS_AT_ONCE and rows[-1][1] < moment
        return int(rows[-1][0]) if older else 0

    @abstractmethod
    def _commit(self, at: int) -> AbstractContextManager[Execute]: ...

    @abstractmethod
    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]: ...


def insert_claim(execute: Execute, claim: Claim, text: str, plan: SealedBytes) -> bool:
    """Write a claim and its plan in a transaction; returns whether it fits to what the ledger holds.

    Raises:
        sqlite3.IntegrityError: there is one for the mission and segment already.
    """
    inserted = execute(
        "insert_segment" if claim.segment else "insert_execution",
        claim.mission_id,
        claim.segment,
        claim.execution_id,
        claim.report_digest,
        (claim.claimed_at - _EPOCH) // _MICROSECOND,
        text,
    )
    if not inserted:
        return False
    kept = (signatures_to_json(plan.signatures), plan.body)
    if claim.segment:
        execute("insert_plan", claim.execution_id, claim.segment, *kept)
    else:
        execute("insert_first_plan", *kept)
    return True


def why_not(
    claim: Claim, first: Standing, own: Standing, revocations: Sequence[RevocationRecord]
) -> ClaimConflict | None:
    """Tell why a claim does not fit; None where nothing of this is why.

    Args:
        claim: what was to be claimed.
        first: how the mission stands.
        own: how this very segment of it stands.
        revocations: what was taken back of it.
    """
    if first is Standing.EXECUTED:
        return ClaimConflict.MISSION_EXECUTED
    if own is Standing.CLAIMED:
        return ClaimConflict.MISSION_CLAIMED
    if binding(revocations, [record.approver for record in claim.approvals]) is not None:
        return ClaimConflict.REVOKED
    return ClaimConflict.OUT_OF_ORDER if claim.segment else None


def signatures_to_json(signatures: Sequence[Signature]) -> str:
    """Write signatures as a list of lists."""
    return _encode([[one.key_id, one.scheme, _coded(one.signature), _coded(one.extra)] for one in signatures])


def signatures_from_json(text: str) -> tuple[Signature, ...]:
    """Read what `signatures_to_json` wrote."""
    return tuple(
        Signature(key_id=key_id, scheme=scheme, signature=base64.b64decode(made), extra=base64.b64decode(extra))
        for key_id, scheme, made, extra in json.loads(text)
    )


def _coded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
