"""Facts of risk of the steps that reach outside of the workspace, where no change set tells what they come to."""

from collections.abc import Iterable, Iterator, Sequence

from executor.domain.plan import CallTool, FetchUrl, HttpRequest, RunLive, RunSql, Step
from executor.domain.plan_paths import target_of
from executor.domain.report import Evidence, RiskFact, RiskLevel, SqlEvidence, StepReport


def changes_something(evidence: Evidence | None) -> bool:
    """Tell whether a live step's effect would have to be taken back; of a query that was tried nothing remains.

    One that was not tried may call what changes something. A tool that says of itself that it only reads is not
    believed.
    """
    return not (isinstance(evidence, SqlEvidence) and evidence.simulated and evidence.statement_kind == "select")


def outside_facts(steps: Sequence[Step], reports: Iterable[StepReport]) -> tuple[RiskFact, ...]:
    """Return the facts of the steps that a dry run has looked at, in the plan's order."""
    by_id = {step.step_id: step for step in steps}
    return tuple(fact for report in reports for fact in _facts_of(by_id[report.step_id], report))


def _facts_of(step: Step, report: StepReport) -> Iterator[RiskFact]:
    target = f"{step.step_id}: {target_of(step.action)}"
    match step.action:
        case FetchUrl():
            yield _fact("network_read", f"{target}: what is asked for can carry something out", RiskLevel.LOW)
        case HttpRequest() | RunLive() | CallTool() | RunSql() if changes_something(report.evidence):
            yield _fact("live_effect", f"{target}: has an effect outside of the workspace", RiskLevel.MEDIUM)
            if report.irreversible:
                yield _fact("irreversible", f"{target}: nothing takes its effect back", RiskLevel.HIGH)
            if isinstance(step.action, RunLive) and step.action.keep_running is not None:
                yield _fact("keeps_running", f"{target}: goes on after the mission has ended", RiskLevel.MEDIUM)
        case _:
            pass


def _fact(kind: str, detail: str, level: RiskLevel) -> RiskFact:
    return RiskFact(kind=kind, path="", detail=detail, level=level)
