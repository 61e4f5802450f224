"""What persons sign while an execution waits, and the rules about it that need nothing but the document and the time.

A step's approval names the step, what that would do, and what the execution had done by then; a word on an effect names
the step and what the execution had done. Whatever else it names, it is about something else.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from executor.domain.control import Reconciliation, StepApproval
from executor.domain.errors import GateRefusedError
from executor.domain.gates import APPROVED

AHEAD: Final = timedelta(seconds=30)
"""How far a signer's clock may be ahead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Awaited:
    """The step that an execution waits at, by everything that a word about it can name."""

    executor_id: str
    mission_id: str
    workspace_id: str
    execution_id: str
    segment: int
    step_id: str
    change_set_digest: str
    results_digest: str


Check = tuple[str, str, str]
"""What is compared, the reason where it differs, and what it is in words."""

WHERE: Final[Sequence[Check]] = (
    ("executor_id", "EXECUTOR_MISMATCH", "executor"),
    ("mission_id", "MISSION_MISMATCH", "mission"),
    ("execution_id", "MISSION_MISMATCH", "execution"),
)
STEP: Final[Check] = ("step_id", "STEP_NOT_WAITING", "step")
RESULTS: Final[Check] = ("results_digest", "PLAN_MISMATCH", "what the execution has done so far")
OF_AN_APPROVAL: Final[Sequence[Check]] = (
    *WHERE,
    ("workspace_id", "WORKSPACE_MISMATCH", "workspace"),
    ("segment", "STEP_NOT_WAITING", "segment"),
    STEP,
    ("change_set_digest", "PLAN_MISMATCH", "what the step would do"),
    RESULTS,
)
OF_A_RECONCILIATION: Final[Sequence[Check]] = (*WHERE, STEP, RESULTS)


def check_approval_named(approval: StepApproval, awaited: Awaited) -> None:
    """Refuse an approval of anything but the step that waits, as it waits now.

    Raises:
        GateRefusedError: naming the first thing that differs.
    """
    _check(approval, awaited, OF_AN_APPROVAL, f"step approval {approval.approval_id}")


def check_reconciliation_named(word: Reconciliation, awaited: Awaited) -> None:
    """Refuse a word on anything but the effect that nobody knows.

    Raises:
        GateRefusedError: naming the first thing that differs.
    """
    _check(word, awaited, OF_A_RECONCILIATION, f"reconciliation {word.reconciliation_id}")


def check_time(what: str, *, signed_at: datetime, expires_at: datetime | None, now: datetime, max_seconds: int) -> None:
    """Refuse a word that was signed too long ago, or later than now.

    Args:
        what: the document, in words.
        signed_at: when it says that it was signed.
        expires_at: its own end; None where it has none.
        now: the executor's effective time.
        max_seconds: the longest time for which the executor takes it.

    Raises:
        GateRefusedError: reason APPROVAL_EXPIRED or NOT_APPROVED.
    """
    if signed_at - now > AHEAD:
        raise GateRefusedError(
            APPROVED,
            "NOT_APPROVED",
            f"{what} was signed at {signed_at.isoformat()}, which is not yet",
            "check the clocks of whoever signed and of the executor",
        )
    if (expires_at is not None and now >= expires_at) or (now - signed_at).total_seconds() >= max_seconds:
        raise GateRefusedError(
            APPROVED,
            "APPROVAL_EXPIRED",
            f"{what} has expired",
            f"sign again; this executor takes it for at most {max_seconds} seconds",
        )


def used_up(document_id: str) -> GateRefusedError:
    """Return the refusal of a word that was taken before."""
    return GateRefusedError(
        APPROVED,
        "NOT_APPROVED",
        f"{document_id[:100]!r}, or another document with its nonce, was used already",
        "sign anew; every approval and every word about an effect is good once",
    )


def _check(document: StepApproval | Reconciliation, awaited: Awaited, checks: Sequence[Check], what: str) -> None:
    for name, reason, words in checks:
        said, wanted = getattr(document, name), getattr(awaited, name)
        if said != wanted:
            raise GateRefusedError(
                APPROVED,
                reason,
                f"{what} is about another {words}: {str(said)[:100]!r}, not {wanted!r}",
                "look at how the execution waits now, and sign just that",
            )
