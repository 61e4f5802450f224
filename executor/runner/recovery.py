"""Brings to its end what a dead process, or a thread that broke off, has left of an execution.

Nothing is run again. What was committed is told by the workspace's journal and the disk, what was read or tested by the
events that were durable. A commit that was cut off in the middle is undone, whatever the policy. What waited for a
person, whose effect outside is unknown, or whose plan has people asked, waits (`executor.runner.restored`). Of the rest
it is as if the execution had failed where it broke off:

    every step is done, and the workspace is what the report said    success
    roll_back                                                         all commits undone, the newest first: rolled_back
    stop, continue                                                    what was committed stays: partial
    nothing was committed                                             aborted
    somebody else's change is in the way                              unknown: both versions are kept, and named

It may be cut off itself: each call starts from what the disk shows, and comes to the same end.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from executor.domain.changes import net_states
from executor.domain.errors import ExecutorError
from executor.domain.events import ExecutionCompleted
from executor.domain.receipt import ExecutionResult, Outcome
from executor.runner.control_records import records_of
from executor.runner.letting_go import Commits, execution_of
from executor.runner.orders import Left
from executor.runner.ports import Emit, Ended, Ledger
from executor.runner.position import Restored
from executor.runner.recovered import Recovered
from executor.runner.restored import Restoring
from executor.workspace.commit import Applied, Committer
from executor.workspace.objects import ObjectStore
from executor.workspace.staging import StagingUnavailableError
from executor.workspace.workspace import Workspace

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalRecovery:
    """The port `executor.runner.orders.Recovery` over the workspaces' journals."""

    workspaces: Mapping[str, Workspace]
    objects: ObjectStore
    ledger: Ledger

    def recover(self, left: Left, emit: Emit) -> Ended | Restored:
        """Find out how far an execution came, and bring it to its end, or to where it waits for a person."""
        claim = left.claim
        workspace = self.workspaces.get(claim.workspace_id)
        if workspace is None:
            return _out_of_reach(left, emit, "the workspace is not served any more")
        try:
            root, committer = workspace.open(), self._committer(workspace)
        except ExecutorError as error:
            return _out_of_reach(left, emit, error.fault.message)
        commits = Commits(execution_id=claim.execution_id, mission_id=claim.mission_id, workspace_id=claim.workspace_id)
        recovered = Recovered(left=left, emit=emit, root=root, committer=committer, commits=commits)
        segments = left.segments
        if segments is None or recovered.ends_by_itself():
            return recovered.ended()
        return Restoring(
            left=left, segments=segments, emit=emit, root=root, committer=committer, commits=commits
        ).restored()

    def tidy(self, workspace: Workspace) -> None:
        """Let go of what ended executions have left: their receipts are durable, and nobody needs the way back there.

        A commit of an execution that the ledger does not know is no step of anything: cut off in the middle it is
        undone, made in full it is left to a person.
        """
        committer = self._committer(workspace)
        if committer is None:
            return
        for applied in reversed(committer.pending()):
            if self.ledger.has_checkpoint(applied.slot):
                committer.release([applied])
            elif not self._is_unfinished(applied):
                _settle(committer, applied)

    def _committer(self, workspace: Workspace) -> Committer | None:
        """Return a workspace's committer; without a staging directory nothing was ever committed to it."""
        try:
            return workspace.committer(self.objects)
        except StagingUnavailableError:
            return None

    def _is_unfinished(self, applied: Applied) -> bool:
        record = self.ledger.execution(execution_id=execution_of(applied.slot)[0])
        return record is not None and not record.ended


def _settle(committer: Committer, applied: Applied) -> None:
    if applied.complete:
        log.warning("commit %s belongs to no step that could be undone; its old objects are kept", applied.slot)
        committer.keep(applied)
        return
    undone = committer.undo(applied)
    if undone.success:
        committer.discard(applied)
        return
    log.error("commit %s could not be undone in full: %s", applied.slot, "; ".join(undone.differences))
    committer.keep(applied)


def _out_of_reach(left: Left, emit: Emit, why: str) -> Ended:
    """Say that nobody can tell: the workspace is not here to be looked at."""
    claim = left.claim
    before, _ = net_states([step.changes for report in left.reports for step in report.steps])
    result = ExecutionResult(
        outcome=Outcome.UNKNOWN,
        steps=(),
        before=tuple(sorted(before.items())),
        after=(),
        after_fingerprint="",
        divergence_details=(),
        abort_reason="INTERNAL",
        errors=(
            f"execution {claim.execution_id} broke off",
            f"workspace {claim.workspace_id!r} can not be looked at: {why}",
            f"what was committed there stays: look at it, then give this mission up: gonogo cancel {claim.mission_id}",
        ),
        controls=records_of(left.controls, left.claims),
    )
    if not left.completed:
        emit(ExecutionCompleted(execution_id=claim.execution_id, outcome=result.outcome))
    return Ended(result=result)
