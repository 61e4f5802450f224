"""What an execution came to, told from how far it had come when no step began any more."""

from executor.domain.changes import net_states, states_fingerprint
from executor.domain.receipt import ControlRecord, EffectState, ExecutionResult, Outcome
from executor.runner.position import Position

DIVERGED = "DIVERGED"


def compare_result(position: Position) -> None:
    """Take note where the whole result is not what the report said, though every step was."""
    if position.abort_reason or _fingerprint(position) == position.segment.report.after_fingerprint:
        return
    position.divergence.append("the after fingerprint is not the report's")
    position.notes.append("the result is not what the report said, though every step was")
    position.reason = DIVERGED


def outcome_of(position: Position) -> Outcome:
    """Return the outcome; whatever nobody can be sure of makes it unknown."""
    commits = position.commits
    if commits.conflicts or position.doubtful or position.has_effects(EffectState.UNKNOWN):
        return Outcome.UNKNOWN
    if not position.abort_reason:
        return Outcome.SUCCESS
    if commits.standing or position.has_effects(EffectState.DONE):
        return Outcome.PARTIAL
    undone = commits.undone or position.has_effects(EffectState.COMPENSATED)
    return Outcome.ROLLED_BACK if undone else Outcome.ABORTED


def result_of(position: Position, controls: tuple[ControlRecord, ...]) -> ExecutionResult:
    """Write the result down."""
    return ExecutionResult(
        outcome=outcome_of(position),
        steps=tuple(position.receipts.values()),
        before=tuple(sorted(position.before.items())),
        after=tuple(sorted(position.after.items())),
        after_fingerprint=states_fingerprint(position.after),
        divergence_details=tuple(position.divergence),
        abort_reason=position.abort_reason,
        errors=position.errors,
        controls=controls,
    )


def _fingerprint(position: Position) -> str:
    """Return the fingerprint of what the last plan's steps have left; earlier plans' paths are not in its report."""
    after = position.after
    if len(position.segments) == 1 and not position.commits.undone:
        return states_fingerprint(after)
    _, mine = net_states([step.changes for step in position.segment.report.steps])
    return states_fingerprint({path: after[path] for path in mine if path in after})
