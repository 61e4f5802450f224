"""The port between an execution's thread and the people who have it pause, go on, or end."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from executor.domain.cancel import NEVER, Cancel
from executor.domain.control import Pause
from executor.domain.plan import PauseDefault
from executor.domain.receipt import ApprovalRecord, ControlRecord, ReconciliationRecord
from executor.domain.revocation import RevocationRecord
from executor.runner.segments import Segment

DEADLINE_ACTOR: Final = "deadline"


@dataclass(frozen=True, slots=True, kw_only=True)
class GoOn:
    """Somebody had it go on as it stood."""

    action: str
    actor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved:
    """The step has enough signatures of its own."""

    step_id: str
    actor: str
    approvals: tuple[ApprovalRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """A person says whether the effect of the step happened."""

    record: ReconciliationRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Somebody, or a deadline, ends it."""

    actor: str
    reason: str
    roll_back: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """A repair plan goes on in place of the rest."""

    segment: Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseWish:
    """Somebody wants it to begin no further step."""

    actor: str
    reason: str


Decision = GoOn | Approved | Reconciled | Stop | Repair
"""What ends a pause."""


class Desk(Protocol):
    """Where an execution's thread asks what people want, and waits for them."""

    @property
    def wish(self) -> PauseWish | Stop | None:
        """What somebody wants of it while it runs; asked for before each step, in well under a microsecond."""
        ...

    @property
    def cancel(self) -> Cancel:
        """Ends what runs for a step."""
        ...

    def revoked(self) -> RevocationRecord | None:
        """Return what was taken back of what the execution stands on now; as fast as `wish`."""
        ...

    def wait(self, pause: Pause, *, told: bool) -> Decision:
        """Tell that it waits, durably, and then wait for whatever ends that.

        Args:
            pause: what it waits for.
            told: the event is durable already, from before a restart.

        Raises:
            LeftError: the process ends; the execution stays as it is.
        """
        ...

    def holds(self, approvals: Sequence[ApprovalRecord]) -> bool:
        """Tell whether a step's own approvals still hold after a wait.

        None has run out, nobody took one back, and by the trust file in force they are enough.
        """
        ...

    def goes_on(self) -> None:
        """Make durable that it waits no more, before anything is done: no restart finds steps of one that waited.

        Raises:
            LeftError: the process ends, and it could not be stored.
        """
        ...

    def closes(self) -> Stop | None:
        """Take no more controls, since no step begins any more; return the last stop that was taken before.

        What was recorded until then takes effect, and the receipt tells of it; what comes later is refused. Should the
        execution wait once more after all, controls are taken again.
        """
        ...

    def controls(self) -> tuple[ControlRecord, ...]:
        """Return what people had it do, for the receipt."""
        ...


class LeftError(Exception):
    """The process ends while an execution waits: its thread goes, and nothing of it is changed."""


class Undisturbed:
    """The desk of an execution that nobody watches: a pause ends at once, as its deadline would."""

    wish: PauseWish | Stop | None = None
    cancel: Cancel = NEVER

    def revoked(self) -> None:
        """Return None: nobody takes anything back."""

    def wait(self, pause: Pause, *, told: bool) -> Decision:
        """Stop by the pause's default."""
        del told
        roll_back = pause.default_action is PauseDefault.ROLL_BACK
        return Stop(actor=DEADLINE_ACTOR, reason="nobody is there to decide", roll_back=roll_back)

    def holds(self, approvals: Sequence[ApprovalRecord]) -> bool:
        """Return true: it never waits."""
        del approvals
        return True

    def goes_on(self) -> None:
        """Nothing of it is durable."""

    def closes(self) -> None:
        """Return None: nobody stops it."""

    def controls(self) -> tuple[ControlRecord, ...]:
        """Return nothing."""
        return ()
