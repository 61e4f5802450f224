"""Which steps of a broken-off execution were done though nothing tells of them."""

from dataclasses import replace

from executor.domain.plan import Stage
from executor.domain.report import Evidence, LiveEvidence, SearchEvidence, SqlEvidence, StepReport
from executor.runner.recovered_steps import KnownStep, passed_silently
from executor.workspace.commit import Applied

SEARCH = SearchEvidence(count=0, matches=(), digest="sha256:none")
LIVE = LiveEvidence(target="POST there", digest="sha256:sent", not_simulated="it has an effect")
QUERY = SqlEvidence(database="shop", engine="sqlite", statement_kind="update", simulated=True)


def steps(*evidence: Evidence) -> list[KnownStep]:
    """Return steps without a trace, and one behind them that the journal holds."""
    report = StepReport(
        step_id="last", kind="write_file", stage=Stage.EDIT, success=True, changes=(), evidence=None, duration_ms=0
    )
    silent = [replace(report, step_id=f"s{at}", evidence=one) for at, one in enumerate(evidence, 1)]
    known = [KnownStep(number=at, report=one, target="") for at, one in enumerate((*silent, report), 1)]
    known[-1].commit = Applied(slot="x-1", changes=(), operations=(), seen={}, made={}, times={})
    return known


def test_a_read_before_a_step_that_was_begun_was_done() -> None:
    """Steps are begun in their order, each after the one before it was done."""
    assert passed_silently(steps(SEARCH), frozenset()) == {"s1"}


def test_of_a_live_step_without_its_row_nobody_knows() -> None:
    """A ledger that was put back may lack the row of an effect that happened."""
    assert passed_silently(steps(LIVE, QUERY, SEARCH), frozenset()) == {"s3"}
