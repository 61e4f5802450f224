"""What becomes of an execution's commits once its receipt is durable, and not before.

Until then every commit of an execution stays in the journal with its slot, so that whoever comes after a crash finds
all of them.
"""

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime

from executor.runner.ports import Checkpoint
from executor.workspace.commit import Applied, Committer, Undone

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Commits:
    """The commits of one execution, by what became of them."""

    execution_id: str
    mission_id: str
    workspace_id: str
    standing: dict[str, Applied] = field(default_factory=dict)
    """Made and not undone, by step, in the order of the commits."""
    undone: list[Applied] = field(default_factory=list)
    conflicts: list[Applied] = field(default_factory=list)
    """Not undone in full: both versions are kept."""

    def slot(self, number: int, attempt: int = 1) -> str:
        """Return the slot of one of the execution's steps, counted from 1 through all segments, for one attempt."""
        return f"{self.execution_id}-{number}" + (f"_{attempt}" if attempt > 1 else "")

    def has(self, applied: Applied) -> bool:
        """Tell whether a commit is one of this execution's steps."""
        return execution_of(applied.slot)[0] == self.execution_id

    def took_back(self, step_id: str, applied: Applied, undone: Undone) -> None:
        """Take note that a step was undone, or could not be in full."""
        self.standing.pop(step_id, None)
        (self.undone if undone.success else self.conflicts).append(applied)

    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Return what can still be undone."""
        kept_at = datetime.now(UTC)
        return tuple(
            Checkpoint(
                slot=applied.slot,
                execution_id=self.execution_id,
                mission_id=self.mission_id,
                step_id=step_id,
                workspace_id=self.workspace_id,
                kept_at=kept_at,
                size=applied.kept_bytes,
                record=applied.encode(),
            )
            for step_id, applied in self.standing.items()
        )

    def let_go(self, committer: Committer) -> None:
        """Release what stays, remove what was undone, and put aside what a person must look at."""
        try:
            committer.release(self.standing.values())
            for applied in self.undone:
                committer.discard(applied)
            for applied in self.conflicts:
                committer.keep(applied)
        except Exception:  # the receipt is durable; the next start finds what is left
            log.exception("the slots of %s could not be let go of", self.execution_id)


def attempt_of(slot: str) -> int:
    """Return which attempt at its step a slot belongs to, counted from 1."""
    attempt = slot.rpartition("-")[2].partition("_")[2]
    return int(attempt) if attempt.isdecimal() else 1


def execution_of(slot: str) -> tuple[str, int]:
    """Return the execution and the number of the step that a slot belongs to; 0 where it names none."""
    execution_id, _, place = slot.rpartition("-")
    number = place.partition("_")[0]
    return execution_id, int(number) if number.isdecimal() else 0
