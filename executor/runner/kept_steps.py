"""Looks committed steps up in the executor's own ledger; the port `executor.steps.undo.KeptSteps`.

A plan names a mission and a step and nothing more. Whether that mission ended, in which workspace, and what the step
changed is read from what the executor itself wrote down.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from executor.domain.errors import StepBlockedError, StepFailedError
from executor.domain.plan import UndoStep
from executor.domain.receipt import Outcome
from executor.runner.ports import Checkpoint, ExecutionRecord, Ledger
from executor.steps.undo import KeptStep, checkpoint_gone
from executor.workspace.objects import ObjectStore
from executor.workspace.record import Applied
from executor.workspace.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerSteps:
    """The committed steps of the ledger's executions."""

    ledger: Ledger
    objects: ObjectStore
    lifetime: Callable[[], timedelta]
    """How long a checkpoint counts, whether a sweep has removed it yet or not."""
    now: Callable[[], datetime]

    def find(self, action: UndoStep, workspace: Workspace) -> KeptStep:
        """Return what is kept of a step, from its newest checkpoint."""
        self._check_ended(self.ledger.execution(mission_id=action.mission_id), action)
        found = [one for one in self.ledger.checkpoints(action.mission_id) if one.step_id == action.step_id]
        if not found:
            raise checkpoint_gone(
                f"no checkpoint is kept of step {action.step_id} of mission {action.mission_id}: "
                "it changed nothing, was undone by itself, or is too long ago"
            )
        return self._kept(found[-1], workspace)

    def _check_ended(self, record: ExecutionRecord | None, action: UndoStep) -> None:
        if record is None:
            message = f"this executor never executed mission {action.mission_id}"
            raise StepFailedError("NOT_FOUND", message, "name a mission that was executed here")
        if not record.ended:
            message = f"mission {action.mission_id} has not ended"
            raise StepFailedError("STATE_FORBIDS", message, "wait for its end, then make the dry run again")
        if record.outcome in {Outcome.ROLLED_BACK, Outcome.ABORTED}:
            message = f"mission {action.mission_id} left nothing behind that could be undone"
            raise StepFailedError("STATE_FORBIDS", message, "look at its receipt")

    def _kept(self, checkpoint: Checkpoint, workspace: Workspace) -> KeptStep:
        if checkpoint.workspace_id != workspace.workspace_id:
            raise StepBlockedError(
                "WORKSPACE_MISMATCH",
                f"mission {checkpoint.mission_id} changed workspace {checkpoint.workspace_id!r}, "
                f"not {workspace.workspace_id!r}",
                f"propose the plan for workspace {checkpoint.workspace_id!r}",
            )
        lifetime = self.lifetime()
        if self.now() - checkpoint.kept_at > lifetime:
            raise checkpoint_gone(
                f"the checkpoint of step {checkpoint.step_id} of mission {checkpoint.mission_id} "
                f"is older than {int(lifetime.total_seconds())} seconds"
            )
        applied = Applied.decode(checkpoint.record)
        committer = workspace.committer(self.objects)

        def former(path: bytes) -> os.stat_result | None:
            return committer.former(applied, path)

        def open_former(path: bytes) -> int:
            return committer.old_file(applied, path)

        return KeptStep(changes=applied.changes, directory_times=applied.times, former=former, open_former=open_former)
