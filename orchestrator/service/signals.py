"""What outcomes taught, read from the counters that missions add to when they end.

What is stated of a plan is a few rows, read at once. All that is known may be hundreds of thousands of rows: whoever
asks for that waits for a thread with a connection of its own, and nobody else does.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from orchestrator.domain.lessons import FailureLesson, Lesson, StageLesson, StepLesson, day_of
from orchestrator.domain.plan import Stage
from orchestrator.domain.signals import (
    HALF_LIFE_OUTCOMES,
    Calibration,
    Confidence,
    DayCount,
    Rate,
    Stated,
    calibration_of,
    confidence_of,
    quantile,
    rate_of,
)
from orchestrator.service.event_log import Count, CounterReader
from orchestrator.service.ports import Clock

MAX_RATES: Final = 500
MAX_FAILURES: Final = 50
LOOKED_AT: Final = 10 * HALF_LIFE_OUTCOMES
"""Outcomes that a confidence looks back on at least; older ones would weigh less than a thousandth."""
DAYS: Final = 64
"""Days of outcomes that are read at a time."""
FRESH: Final = timedelta(seconds=1)
"""How long a rate that was read goes on being stated: a dry run pays for a look at the counters once a second."""
MAX_FRESH: Final = 4096

_NEVER: Final = 1 << 40
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalRate:
    """How often one step kind and tool worked in a workspace, and how long it took."""

    kind: str
    tool: str
    workspace_id: str
    samples: int
    insufficient: bool
    success_rate: int
    low: int
    high: int
    censored: int
    median_duration_ms: int
    p95_duration_ms: int
    drifts: int
    divergences: int
    rollbacks: int
    rated_good: int
    rated_bad: int
    weight: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurringFailure:
    kind: str
    reason: str
    path: str
    count: int
    last_mission_id: str
    last_time: datetime
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageDuration:
    stage: Stage
    samples: int
    median_ms: int
    p95_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """All that outcomes taught."""

    rates: tuple[SignalRate, ...]
    calibration: Calibration
    failures: tuple[RecurringFailure, ...]
    stages: tuple[StageDuration, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """Answers what is known. It decides nothing, and a mission never waits for it."""

    reader: CounterReader
    clock: Clock
    beside: Callable[[], AbstractContextManager[CounterReader]]
    """Opens another reader of the same counters."""
    _teller: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "signals"))
    _fresh: dict[tuple[str, str, str], tuple[datetime, Rate]] = field(default_factory=dict)

    def confidence(self, workspace_id: str, uses: Iterable[tuple[str, str]]) -> Confidence:
        """Return what is stated of a plan.

        Args:
            workspace_id: where it is to run.
            uses: kind and tool of each of its steps.
        """
        now = self.clock.now()
        return confidence_of([self._rate(kind, tool, workspace_id, now) for kind, tool in uses])

    def learnt(self, *, kind: str = "", tool: str = "", workspace_id: str = "") -> Learnt:
        """Return rates, calibration, recurring failures and slow stages; an empty text stands for all."""
        return _learnt(self.reader, self.clock.now(), kind, tool, workspace_id)

    async def told(self, *, kind: str = "", tool: str = "", workspace_id: str = "") -> Learnt:
        """Return what `learnt` does of all that is known, while everybody else goes on; one question at a time."""

        def read() -> Learnt:
            with self.beside() as reader:
                return _learnt(reader, self.clock.now(), kind, tool, workspace_id)

        return await asyncio.get_running_loop().run_in_executor(self._teller, read)

    def _rate(self, kind: str, tool: str, workspace_id: str, now: datetime) -> Rate:
        key = (kind, tool, workspace_id)
        known = self._fresh.get(key)
        if known is not None and abs(now - known[0]) < FRESH:
            return known[1]
        rate = rate_of(_newest(self.reader, *key), day_of(now))
        if len(self._fresh) >= MAX_FRESH:
            self._fresh.clear()
        self._fresh[key] = (now, rate)
        return rate


def _learnt(reader: CounterReader, now: datetime, kind: str, tool: str, workspace_id: str) -> Learnt:
    return Learnt(
        rates=_rates(reader, day_of(now), kind, tool, workspace_id),
        calibration=calibration_of(
            Stated(bin=row[0], samples=row[1], stated=row[2], stated_squared=row[3], realised=row[4],
                   stated_realised=row[5])
            for row in reader.counted("stated")
        ),
        failures=tuple(_failure(row) for row in reader.counted("failures", kind, MAX_FAILURES)),
        stages=_stages(reader),
    )  # fmt: skip


def _newest(reader: CounterReader, *key: str) -> list[DayCount]:
    """Return as many of the newest days as matter."""
    found: list[DayCount] = []
    outcomes, before = 0, _NEVER
    while page := reader.counted("days_of", *key, before, DAYS):
        found += map(_day, page)
        outcomes += sum(row[1] + row[2] for row in page)
        before = found[-1].day
        if len(page) < DAYS or outcomes >= LOOKED_AT:
            break
    return found


def _rates(reader: CounterReader, today: int, *wanted: str) -> tuple[SignalRate, ...]:
    buckets: dict[Sequence[str], dict[int, int]] = {}
    for row in reader.counted("durations", *wanted):
        buckets.setdefault(tuple(row[:3]), {})[row[3]] = row[4]
    return tuple(
        _signal_rate(row, rate_of(_newest(reader, *row[:3]), today), buckets.get(tuple(row[:3]), {}))
        for row in reader.counted("totals", *wanted, MAX_RATES)
    )


def _stages(reader: CounterReader) -> tuple[StageDuration, ...]:
    buckets: dict[str, dict[int, int]] = {}
    for stage, bucket, samples in reader.counted("stages"):
        buckets.setdefault(stage, {})[bucket] = samples
    found = [
        StageDuration(
            stage=Stage(stage),
            samples=sum(held.values()),
            median_ms=quantile(held, 0.5),
            p95_ms=quantile(held, 0.95),
        )
        for stage, held in buckets.items()
    ]
    return tuple(sorted(found, key=lambda one: (-one.p95_ms, -one.median_ms, one.stage)))


def count_of(lesson: Lesson) -> Count:
    """Return the row of counters that a lesson adds to, and what it adds."""
    return _COUNTS[type(lesson)](lesson)


def _failure_count(lesson: FailureLesson) -> Count:
    at = (lesson.time - _EPOCH) // _MICROSECOND
    row = (lesson.kind, lesson.reason, lesson.path, 1, at, lesson.mission_id, lesson.message)
    return Count("failures", row)


_COUNTS: Final[Mapping[type[Lesson], Callable[[Any], Count]]] = {
    StepLesson: lambda lesson: Count("steps", lesson),
    FailureLesson: _failure_count,
    StageLesson: lambda lesson: Count("stages", (lesson.stage.value, lesson.bucket, 1)),
    Stated: lambda lesson: Count("stated", lesson),
}
"""Two of them are rows already, field by field."""


def _day(row: Sequence[Any]) -> DayCount:
    return DayCount(day=row[0], succeeded=row[1], failed=row[2])


def _signal_rate(row: Sequence[Any], rate: Rate, buckets: dict[int, int]) -> SignalRate:
    return SignalRate(
        kind=row[0],
        tool=row[1],
        workspace_id=row[2],
        samples=row[9],
        insufficient=rate.insufficient,
        success_rate=rate.success_rate,
        low=rate.low,
        high=rate.high,
        censored=row[3],
        median_duration_ms=quantile(buckets, 0.5),
        p95_duration_ms=quantile(buckets, 0.95),
        drifts=row[4],
        divergences=row[5],
        rollbacks=row[6],
        rated_good=row[7],
        rated_bad=row[8],
        weight=rate.weight,
    )


def _failure(row: Sequence[Any]) -> RecurringFailure:
    return RecurringFailure(
        kind=row[0],
        reason=row[1],
        path=row[2],
        count=row[3],
        last_time=_EPOCH + row[4] * _MICROSECOND,
        last_mission_id=row[5],
        message=row[6],
    )
