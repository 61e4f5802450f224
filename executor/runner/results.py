"""What an execution has done so far, as one digest: what a repair plan, a step's approval or a reconciliation names.

It stands for everything that can be found again after a crash and for nothing else, so that a restart does not change
it: the approved plans, and of each step that was begun how often, how it ended, what it left and what it did outside.
"""

from collections.abc import Iterator

from executor.domain.changes import states_after, states_fingerprint
from executor.domain.receipt import StepReceipt
from executor.runner.position import Position
from gonogo.digests import framed_digest


def results_digest(position: Position) -> str:
    """Return the digest of what was done so far."""
    parts = [position.commits.execution_id]
    for segment in position.segments:
        parts += ("segment", str(segment.number), segment.claim.plan_digest, segment.claim.report_digest)
    for receipt in position.receipts.values():
        parts += _step(position, receipt)
    return framed_digest(part.encode() for part in parts)


def _step(position: Position, receipt: StepReceipt) -> Iterator[str]:
    applied = position.commits.standing.get(receipt.step_id)
    yield from ("step", receipt.step_id, str(receipt.segment), str(receipt.attempts))
    yield "done" if receipt.success else "failed"
    yield "" if applied is None else states_fingerprint(states_after(applied.changes))
    if receipt.effect is None:
        yield from ("", "")
    else:
        yield from (receipt.effect.state.value, receipt.effect.answer_digest)
