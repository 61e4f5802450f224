"""Taking back a go: what a revocation says, what the ledger keeps of it, and what it means for a mission.

A withdrawal voids all approvals that one person gave, or will give, for a mission. A denial ends the mission at this
executor, whoever else approves. Neither can be taken back, and both are kept by what they mean: a second document that
says the same of the same mission by the same person adds nothing.
"""

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from executor.domain.errors import GateRefusedError
from executor.domain.sealed import SealedBytes
from gonogo.safe_text import excerpt

GATE = 3
SHOWN_REASON = 200
KEPT_REASON = 1000
"""What is kept beside the document, which says all of it: nobody fills the ledger with three copies of a long one."""


class RevocationKind(enum.Enum):
    """What is taken back."""

    WITHDRAW = "withdraw"
    DENY = "deny"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """One person's signed word that a mission shall not go on."""

    revocation_id: str
    executor_id: str
    mission_id: str
    kind: RevocationKind
    person: str
    reason: str
    revoked_at: datetime
    nonce: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationRecord:
    """What the ledger keeps: of a revocation, or of an approval document that denies."""

    revocation_id: str
    """Of an approval document that denies, its approval id."""
    mission_id: str
    person: str
    kind: RevocationKind
    reason: str
    recorded_at: datetime
    document: SealedBytes

    @property
    def denied(self) -> bool:
        """Whether the mission was ended, not only an approval taken back."""
        return self.kind is RevocationKind.DENY

    @property
    def words(self) -> str:
        """What happened, for a person."""
        what = "denied the mission" if self.denied else "withdrew the approval"
        why = f": {excerpt(self.reason, SHOWN_REASON)}" if self.reason else ""
        return f"{self.person} {what} ({self.revocation_id}){why}"


def binding(records: Iterable[RevocationRecord], approvers: Sequence[str]) -> RevocationRecord | None:
    """Return what keeps a mission from going on with the approvals of some persons; a denial comes first."""
    found = [record for record in records if record.denied or record.person in approvers]
    return min(found, key=lambda record: not record.denied, default=None)


def check_not_revoked(records: Iterable[RevocationRecord], approvers: Sequence[str]) -> None:
    """Refuse a mission that was denied, or an approval that was withdrawn.

    Raises:
        GateRefusedError: reason NOT_APPROVED for a denial, APPROVAL_REVOKED for a withdrawal.
    """
    record = binding(records, approvers)
    if record is not None:
        raise revoked(record)


def revoked(record: RevocationRecord) -> GateRefusedError:
    """Return the refusal that a revocation leads to."""
    if record.denied:
        return GateRefusedError(
            GATE,
            "NOT_APPROVED",
            record.words,
            "propose a new mission; a denial is final for this one",
        )
    return GateRefusedError(
        GATE,
        "APPROVAL_REVOKED",
        record.words,
        "propose a new mission, or let other persons approve this one and leave the withdrawn approval out",
    )
