"""Counters of signals: what is added does not depend on the order, and rates stay within their bounds."""

import asyncio
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.adapters.event_log_sqlite import SqliteEventLog
from orchestrator.domain.lessons import FailureLesson, Lesson, StageLesson, StepLesson
from orchestrator.domain.plan import Stage
from orchestrator.domain.signals import WHOLE, DayCount, Stated, bin_of, confidence_of, rate_of
from orchestrator.service.event_log import ANY, Append, NewEvent
from orchestrator.service.event_log_checks import state_digest
from orchestrator.service.signals import count_of

START = datetime(2026, 1, 1, tzinfo=UTC)
few = st.integers(0, 3)
steps = st.builds(
    StepLesson,
    kind=st.sampled_from(["write_file", "run_command"]),
    tool=st.sampled_from(["", "make"]),
    workspace_id=st.just("site"),
    day=st.integers(0, 2),
    bucket=st.integers(-1, 1),
    succeeded=few,
    failed=few,
    censored=few,
    drifts=few,
    divergences=few,
    rollbacks=few,
    rated_good=few,
    rated_bad=few,
)
failures = st.builds(
    FailureLesson,
    kind=st.just("write_file"),
    reason=st.sampled_from(["STEP_FAILED", "BASE_DRIFTED"]),
    path=st.sampled_from(["", "a"]),
    mission_id=st.sampled_from(["m-1", "m-2", "m-3"]),
    time=st.integers(0, 2).map(lambda hours: START + timedelta(hours=hours)),
    message=st.just("no"),
)
stages = st.builds(StageLesson, stage=st.sampled_from(Stage), bucket=st.integers(0, 2))
stated = st.builds(
    lambda said, came: Stated(
        bin=bin_of(said), samples=1, stated=said, stated_squared=said * said, realised=came, stated_realised=said * came
    ),
    st.integers(1, WHOLE),
    st.integers(0, 1),
)
days = st.lists(
    st.builds(DayCount, day=st.integers(0, 400), succeeded=st.integers(0, 50), failed=st.integers(0, 50)), max_size=8
).map(lambda found: sorted(found, key=lambda one: -one.day))


def written(lessons: Sequence[Lesson], folder: Path) -> str:
    """Write lessons, one append each, all at once; return the digest of what is counted then."""

    async def write() -> str:
        log = SqliteEventLog(folder / "events.db")
        event = NewEvent(type="told", schema_version=1, occurred_at_us=1, actor="x", data="{}")
        appends = (
            Append(stream_id=f"s/{number}", expected_version=ANY, events=(event,), counts=(count_of(lesson),))
            for number, lesson in enumerate(lessons)
        )
        await asyncio.gather(*(log.append(append) for append in appends))
        try:
            return state_digest(log)
        finally:
            log.close()

    return asyncio.run(write())


@settings(max_examples=15, deadline=None)
@given(lessons=st.lists(st.one_of(steps, failures, stages, stated), min_size=2, max_size=12), data=st.data())
def test_counters_do_not_depend_on_the_order(lessons: list[Lesson], data: st.DataObject) -> None:
    """Missions may end in any order: what was counted is the same, to the byte."""
    again = data.draw(st.permutations(lessons))
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        assert written(lessons, Path(first)) == written(again, Path(second))


@given(days, st.integers(0, 800))
def test_a_rate_lies_in_its_interval_and_that_between_never_and_always(found: list[DayCount], today: int) -> None:
    """Whatever was counted, in the past or in a future that a clock was set back from."""
    rate = rate_of(found, today)

    assert rate.samples == sum(day.succeeded + day.failed for day in found)
    assert 0 <= rate.low <= rate.high <= WHOLE
    assert rate.insufficient or rate.low - 100 <= rate.success_rate <= rate.high + 100
    assert rate.weight <= 100 * rate.samples


@given(days, st.integers(0, 400), st.integers(0, 20))
def test_one_more_success_never_lowers_a_rate(found: list[DayCount], today: int, more: int) -> None:
    """And one more failure never raises it; a plan with one more step is never more certain."""
    latest = max([today, *(day.day for day in found)])
    rates = [
        rate_of([DayCount(day=latest, succeeded=good, failed=bad), *found], latest)
        for good, bad in ((0, more + 1), (more, 1), (more + 1, 0))
    ]
    known = [rate for rate in rates if not rate.insufficient]

    assert [rate.success_rate for rate in known] == sorted(rate.success_rate for rate in known)
    if known:
        assert confidence_of([*known, known[0]]).stated <= confidence_of(known).stated
