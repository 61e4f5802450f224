"""What can be said about an execution whose process died: which steps may have been done, and nothing more.

A mission that was claimed is never run again by itself. Without a journal of the commits nobody can tell a step that
was done from one that was not, so the outcome is `unknown` and the workspace is left as it is.
"""

from collections.abc import Sequence

from executor.domain.changes import net_states
from executor.domain.events import StepCompleted, StepStarted
from executor.domain.receipt import ExecutionResult, Outcome
from executor.domain.report import Report, StepReport
from executor.runner.ports import Claim, Event

REASON = "INTERNAL"


class AssumeUnknown:
    """Recovery by what the ledger alone can prove."""

    def assess(self, claim: Claim, report: Report, events: Sequence[Event]) -> ExecutionResult:
        """Say of each step whether it was done or may have been done."""
        payloads = [event.payload for event in events]
        completed = {one.step_id for one in payloads if isinstance(one, StepCompleted) and one.success}
        started = {one.step_id for one in payloads if isinstance(one, StepStarted)}
        before, _ = net_states([step.changes for step in report.steps])
        return ExecutionResult(
            outcome=Outcome.UNKNOWN,
            steps=(),
            before=tuple(sorted(before.items())),
            after=(),
            after_fingerprint="",
            divergence_details=(),
            abort_reason=REASON,
            errors=(
                f"the executor's process ended during execution {claim.execution_id}; it was not run again",
                *(_told(step, started=started, completed=completed) for step in report.steps),
            ),
        )


def _told(step: StepReport, *, started: set[str], completed: set[str]) -> str:
    name = f"step {step.step_id} ({step.kind})"
    if step.step_id in completed:
        return f"{name} was done"
    if step.step_id in started:
        return f"{name} had begun and may have been done"
    return f"{name} may have been done: nothing about it was recorded before the end"
