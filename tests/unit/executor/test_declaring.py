"""Dry runs of steps that reach outside of the workspace: what the report says of them, and what it counts as risk."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from executor.domain.errors import StepBlockedError, StepFailedError
from executor.domain.events import StepCompleted, StepStarted
from executor.domain.plan import (
    Compensation,
    FetchUrl,
    HttpRequest,
    LiveAccess,
    ReadinessCheck,
    RunLive,
    RunSql,
    SearchBodies,
    WriteFile,
)
from executor.domain.plan import Live as LiveAction
from executor.domain.report import (
    CompensationReport,
    FetchEvidence,
    LiveEvidence,
    ReportStatus,
    RiskLevel,
    SearchEvidence,
    SqlEvidence,
)
from executor.runner.outside import Declared, NothingOutside, Setting
from executor.workspace.objects import Batch
from tests.unit.executor.plan_house import PlanHouse, plan_house

PAGE = FetchUrl(url="https://example.org/a", head=False, extract_text=True, max_bytes=None)
ORDER = HttpRequest(
    method="POST",
    url="https://shop.example.org/orders",
    headers=(),
    content=b"x",
    success_codes=(),
    idempotency_header="",
)
CANCEL = replace(ORDER, method="DELETE")
SERVER = RunLive(
    argv=("serve",),
    cwd="",
    env={},
    success_codes=(),
    access=LiveAccess.HOST,
    keep_running=ReadinessCheck(port=8080, output="", seconds=5),
)
QUERY = RunSql(database="shop", statement="select 1", parameters=())
WRITE = WriteFile(path="a.txt", content=b"a", mode=None)


@dataclass
class Declaring(NothingOutside):
    """Declares everything and does nothing; a page is read where its address may be."""

    may_fetch: bool = True
    asked: list[str] = field(default_factory=list)

    def fetch(self, action: FetchUrl, setting: Setting, _batch: Batch) -> FetchEvidence:
        self.asked.append(setting.step_id)
        return FetchEvidence(url=action.url, fetched=self.may_fetch, status_code=200 if self.may_fetch else 0)

    def search(self, action: SearchBodies, setting: Setting) -> SearchEvidence:
        self.asked.append(f"{setting.step_id} {action.query}")
        return SearchEvidence(count=0, matches=(), digest="sha256:none")

    def declare(self, action: LiveAction, setting: Setting) -> Declared:
        if action == replace(ORDER, method="PUT"):
            raise StepBlockedError("NETWORK_REFUSED", "not in the scope", "add the domain")
        if action == replace(ORDER, method="PATCH"):
            raise StepFailedError("FETCH_FAILED", "no answer", "try again")
        self.asked.append(setting.step_id)
        if isinstance(action, RunSql):
            found = SqlEvidence(database="shop", engine="sqlite", statement_kind="select", simulated=True)
            return Declared(evidence=found, not_simulated="", digest="sha256:q")
        evidence = LiveEvidence(target="there", digest="sha256:d", not_simulated="it has an effect")
        return Declared(evidence=evidence, not_simulated="it has an effect", digest="sha256:d")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[PlanHouse]:
    with plan_house(tmp_path) as opened:
        opened.far_sides = Declaring()
        yield opened


def test_a_live_step_is_told_as_not_simulated_and_irreversible(house: PlanHouse) -> None:
    """Nobody has seen what it comes to, and nothing takes it back; both are facts of risk."""
    found = house.simulate(house.plan(WRITE, ORDER))

    assert found.status is ReportStatus.SUCCESS
    edit, live = found.steps
    assert (edit.not_simulated, edit.irreversible) == (False, False)
    assert (live.not_simulated, live.irreversible, live.changes) == (True, True, ())
    assert isinstance(live.evidence, LiveEvidence)
    assert found.risk_level is RiskLevel.HIGH
    told = {fact.kind: fact.detail for fact in found.risk_facts if fact.detail.startswith("s2: ")}
    assert told.keys() == {"live_effect", "irreversible"}
    assert "POST https://shop.example.org/orders" in told["irreversible"]


def test_a_compensation_is_declared_with_the_step_and_makes_it_reversible(house: PlanHouse) -> None:
    """It is checked as strictly as the step, and shown."""
    plan = house.plan(ORDER)
    step = replace(plan.steps[0], compensation=Compensation(description="take the order back", action=CANCEL))

    found = house.simulate(replace(plan, steps=(step,)))

    [report] = found.steps
    assert not report.irreversible
    assert report.compensation == CompensationReport(
        kind="http_request",
        target="DELETE https://shop.example.org/orders",
        description="take the order back",
        not_simulated="it has an effect",
    )
    assert {fact.kind for fact in found.risk_facts} == {"live_effect"}


def test_a_compensation_that_may_not_be_keeps_the_plan_from_success(house: PlanHouse) -> None:
    """What could not be done in need is no way back."""
    plan = house.plan(ORDER)
    back = Compensation(description="", action=replace(ORDER, method="PUT"))

    found = house.simulate(replace(plan, steps=(replace(plan.steps[0], compensation=back),)))

    assert found.status is ReportStatus.BLOCKED
    assert found.problems[0].reason == "NETWORK_REFUSED"


@pytest.mark.parametrize(("may_fetch", "not_simulated"), [(True, False), (False, True)])
def test_a_page_that_is_read_only_after_approval_is_not_simulated(
    house: PlanHouse, may_fetch: bool, not_simulated: bool
) -> None:
    """What comes of reading it nobody has seen; that it is asked for is a fact of risk either way."""
    house.far_sides = Declaring(may_fetch=may_fetch)

    found = house.simulate(house.plan(PAGE, SearchBodies(query="prices", limit=5)))

    assert [step.not_simulated for step in found.steps] == [not_simulated, False]
    assert [fact.kind for fact in found.risk_facts] == ["network_read"]


def test_a_query_leaves_nothing_behind_that_would_have_to_be_taken_back(house: PlanHouse) -> None:
    """A statement that only reads is simulated, and is no live effect."""
    found = house.simulate(house.plan(QUERY))

    assert (found.steps[0].not_simulated, found.steps[0].irreversible) == (False, False)
    assert found.risk_facts == ()


def test_a_program_that_keeps_running_says_so(house: PlanHouse) -> None:
    """It goes on after the mission has ended, which whoever approves should know."""
    found = house.simulate(house.plan(SERVER))

    assert "keeps_running" in {fact.kind for fact in found.risk_facts}


@pytest.mark.parametrize(
    ("method", "status", "reason"),
    [("PUT", ReportStatus.BLOCKED, "NETWORK_REFUSED"), ("PATCH", ReportStatus.FAILED, "FETCH_FAILED")],
)
def test_what_is_refused_or_fails_ends_the_dry_run_at_that_step(
    house: PlanHouse, method: str, status: ReportStatus, reason: str
) -> None:
    """No later step is even declared."""
    far_sides = Declaring()
    house.far_sides = far_sides

    found = house.simulate(house.plan(replace(ORDER, method=method), ORDER))

    assert (found.status, found.problems[0].reason, found.problems[0].step_id) == (status, reason, "s1")
    assert far_sides.asked == []


def test_the_beginning_and_the_end_of_an_outside_step_are_events(house: PlanHouse) -> None:
    """It takes its time, and somebody watches."""
    house.simulate(house.plan(PAGE))

    kinds = [type(event) for event in house.events]
    assert kinds == [StepStarted, StepCompleted]


def test_a_step_that_asks_for_its_own_approval_is_marked(house: PlanHouse) -> None:
    """The report says which steps wait for a signature."""
    plan = house.plan(WRITE, ORDER)
    steps = (replace(plan.steps[0], needs_approval=True), plan.steps[1])

    found = house.simulate(replace(plan, steps=steps))

    assert [step.needs_approval for step in found.steps] == [True, False]


def test_without_far_sides_every_such_step_is_refused_by_name(house: PlanHouse) -> None:
    """An executor that can reach nothing says so, and what to do."""
    house.far_sides = NothingOutside()

    for action in (PAGE, ORDER, SERVER, QUERY, SearchBodies(query="x", limit=1)):
        found = house.simulate(house.plan(action))
        assert (found.status, found.problems[0].reason) == (ReportStatus.BLOCKED, "UNSUPPORTED")
