"""What the ledger keeps of an execution that people control: what they had it do, and what live steps did outside."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, Protocol

from executor.domain.control import ControlAction, PauseKind
from executor.domain.receipt import EffectRecord
from executor.domain.sealed import SealedBytes

DEADLINE: Final = "deadline"
"""Stands where an action does for what nobody asked for: a pause came to its end."""
DENY_STEP: Final = "deny_step"
"""Stands there for a signature under a step that says no."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlEntry:
    """One thing that somebody, or a deadline, had an execution do."""

    request_id: str
    body_digest: str
    execution_id: str
    mission_id: str
    action: ControlAction | Literal["deadline", "deny_step"]
    actor: str
    """As the orchestrator says; for a signed document the person who signed."""
    reason: str
    roll_back: bool
    step_id: str
    document: SealedBytes | None
    """The signed word that came with it: a step approval or a reconciliation."""
    recorded_at: datetime
    document_id: str = ""
    nonce: str = ""
    """The document's id and nonce: both are used up with the entry."""

    def __post_init__(self) -> None:
        """Refuse an entry whose document could be used twice."""
        if (self.document is not None) != bool(self.document_id and self.nonce):
            raise ValueError("a control carries a document with its id and nonce, or none of the three")

    @property
    def action_name(self) -> str:
        """The action as receipts and the audit log name it."""
        return self.action if isinstance(self.action, str) else self.action.value


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectClaim:
    """That a live step, or its compensation, is about to have its effect: in the ledger before it."""

    effect_id: str
    execution_id: str
    mission_id: str
    segment: int
    step_id: str
    attempt: int
    compensates: bool
    kind: str
    target: str
    digest: str
    """Over everything that will be sent or run, secrets by reference."""
    idempotency_key: str
    claimed_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectEntry:
    """What is known of an effect. One that is claimed and not settled may have happened."""

    claim: EffectClaim
    settled_at: datetime | None = None
    record: EffectRecord | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PausedState:
    """An execution that waits, as far as a repair plan must fit to it."""

    execution_id: str
    segment: int
    """The segment that it is in."""
    kind: PauseKind
    results_digest: str
    """As the last `execution_paused` said."""
    repairable: bool
    """The pause is of a kind that takes a repair plan."""
    step_ids: frozenset[str]
    """Of all plans of the execution so far."""


class Paused(Protocol):
    """Knows the executions that wait. Cheap, and without a side effect."""

    def of(self, mission_id: str) -> PausedState | None:
        """Return how a mission's execution waits; None where it runs, has ended, or never was.

        The pause may end at any moment, but not while a claim of its next segment is being taken: whoever implements
        this keeps it standing from before `Gates.claim` until that has returned.
        """
        ...


class NothingPaused:
    """Of nothing that waits: every mission runs to its end at once."""

    def of(self, mission_id: str) -> None:
        """Return None."""
        del mission_id


def effect_id_of(execution_id: str, step_id: str, attempt: int, *, compensates: bool = False) -> str:
    """Name an effect: the same step of the same execution begun once more is another."""
    return f"{execution_id}-{step_id}-{attempt}{'-c' if compensates else ''}"
