"""A simulated year of outcomes with known rates: what the signals say against what is true.

Eleven tools keep their rates and one gets worse from March to October. Every day, before its outcomes come in, each
tool's interval is compared with the rate that it really has, and its mean with the outcomes that come. The same is done
with estimators of other half-lives, and with one that never forgets. Plans of several steps are simulated with a share
of failures that take everything back, to see which rule states the confidence that comes true. Run it with `-s` to
read the tables.
"""

import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from unittest.mock import patch

import pytest

from orchestrator.domain import signals
from orchestrator.domain.signals import WHOLE, DayCount, Rate, Stated, bin_of, calibration_of, confidence_of, rate_of

pytestmark = pytest.mark.long

DAYS = 365
SEEDS = range(6)
STEADY = (
    (0.55, 4.0), (0.7, 2.0), (0.8, 8.0), (0.9, 3.0), (0.95, 10.0), (0.97, 1.0), (0.99, 6.0), (0.85, 0.5), (0.6, 1.0),
    (0.92, 20.0), (0.75, 0.25),
)  # fmt: skip
"""True rate, and outcomes per day."""
DRIFTING = 5.0
KINDS = (0.99, 0.97, 0.95, 0.9, 0.85, 0.8, 0.7, 0.98)
"""True rates of the steps that plans are made of."""
NEVER = 1_000_000_000
HALF_LIVES = ((NEVER, NEVER), (400, 180), (100, 180), (70, 180), (40, 180), (25, 180), (40, NEVER), (NEVER, 30))


def drifted(day: int) -> float:
    """Return the drifting tool's rate: 95 percent until March, 50 percent from November."""
    return 0.95 - 0.45 * min(1.0, max(0.0, (day - 60) / 240))


@dataclass(slots=True)
class Score:
    """What was stated of some tools, against what came."""

    covered: int = 0
    intervals: int = 0
    bins: dict[int, list[int]] = field(default_factory=dict)

    def look(self, rate: Rate, true: float) -> None:
        self.intervals += 1
        self.covered += rate.low <= true * WHOLE <= rate.high

    def came(self, stated: int, *, good: bool) -> None:
        sums = self.bins.setdefault(bin_of(stated), [0, 0, 0, 0, 0])
        for place, value in enumerate((1, stated, stated * stated, int(good), stated * good)):
            sums[place] += value

    @property
    def coverage(self) -> float:
        return self.covered / self.intervals

    @property
    def calibration(self) -> signals.Calibration:
        names = ("samples", "stated", "stated_squared", "realised", "stated_realised")
        return calibration_of(
            Stated(bin=number, **dict(zip(names, sums, strict=True))) for number, sums in self.bins.items()
        )


def outcomes(chance: random.Random, true: float, volume: float) -> list[bool]:
    count = int(volume) + (chance.random() < volume % 1)
    return [chance.random() < true for _ in range(count)]


def year(seed: int, steady: Score, drifting: Score) -> None:
    """Live through one year with the half-lives that are set now."""
    chance = random.Random(seed)
    history: list[list[DayCount]] = [[] for _ in range(len(STEADY) + 1)]
    for day in range(DAYS):
        tools = (*STEADY, (drifted(day), DRIFTING))
        for (true, volume), days in zip(tools, history, strict=True):
            score = drifting if days is history[-1] else steady
            rate = rate_of(days, day)
            came = outcomes(chance, true, volume)
            if not rate.insufficient:
                score.look(rate, true)
                for good in came:
                    score.came(rate.success_rate, good=good)
            if came:
                days.insert(0, DayCount(day=day, succeeded=sum(came), failed=len(came) - sum(came)))


def lived(outcomes_half: int, days_half: int) -> tuple[Score, Score]:
    steady, drifting = Score(), Score()
    with (
        patch.object(signals, "HALF_LIFE_OUTCOMES", outcomes_half),
        patch.object(signals, "HALF_LIFE_DAYS", days_half),
    ):
        for seed in SEEDS:
            year(seed, steady, drifting)
    return steady, drifting


def table() -> Iterator[str]:
    yield "half-life in outcomes, days | coverage steady, drifting | Brier steady, drifting | error steady, drifting"
    for outcomes_half, days_half in HALF_LIVES:
        steady, drifting = lived(outcomes_half, days_half)
        first, second = steady.calibration, drifting.calibration
        names = [("never" if half == NEVER else str(half)) for half in (outcomes_half, days_half)]
        yield (
            f"{names[0]:>6} {names[1]:>6} | {steady.coverage:.3f} {drifting.coverage:.3f}"
            f" | {first.brier / WHOLE:.4f} {second.brier / WHOLE:.4f}"
            f" | {first.calibration_error / WHOLE:.4f} {second.calibration_error / WHOLE:.4f}"
        )


def show(*lines: str) -> None:
    sys.stdout.write("".join(f"\n{line}" for line in lines))


def test_intervals_hold_what_they_say_while_a_tool_drifts() -> None:
    """95 percent intervals hold the true rate in 93 to 97 percent of the days, for tools that stay and one that drifts.

    Against never forgetting, the drifting tool's scores are better by far, and all tools' together are no worse.
    """
    show(*table())
    steady, drifting = lived(signals.HALF_LIFE_OUTCOMES, signals.HALF_LIFE_DAYS)
    _, never_drifting = lived(NEVER, NEVER)

    everything = (steady.covered + drifting.covered) / (steady.intervals + drifting.intervals)
    assert abs(steady.coverage - 0.95) < 0.02
    assert abs(drifting.coverage - 0.95) < 0.02
    assert abs(everything - 0.95) < 0.02
    assert never_drifting.coverage < 0.5
    now, never = drifting.calibration, never_drifting.calibration
    assert now.brier < never.brier - 200
    assert now.calibration_error < never.calibration_error / 4
    assert now.brier < now.brier_of_mean


def plans(seed: int, undone: float, scores: dict[str, Score]) -> None:
    """Live through a year of twelve plans a day; a share of those that fail are taken back whole."""
    chance = random.Random(seed)
    history: list[list[DayCount]] = [[] for _ in KINDS]
    for day in range(DAYS):
        rates = [rate_of(days, day) for days in history]
        today = [[0, 0] for _ in KINDS]
        for _ in range(12):
            steps = [chance.randrange(len(KINDS)) for _ in range(chance.choice((1, 1, 2, 2, 3, 4)))]
            done = _done(chance, steps)
            good = len(done) == len(steps) and all(done)
            _state(scores, [rates[step] for step in steps], good=good)
            back = not good and chance.random() < undone
            for step, worked in zip(steps, done, strict=False):
                today[step][0 if worked and not back else 1] += 1
        for days, (succeeded, failed) in zip(history, today, strict=True):
            if succeeded + failed:
                days.insert(0, DayCount(day=day, succeeded=succeeded, failed=failed))


def _done(chance: random.Random, steps: list[int]) -> list[bool]:
    done: list[bool] = []
    for step in steps:
        done.append(chance.random() < KINDS[step])
        if not done[-1]:
            break
    return done


def _state(scores: dict[str, Score], rates: list[Rate], *, good: bool) -> None:
    if any(rate.insufficient for rate in rates):
        return
    product = 1.0
    for rate in rates:
        product *= rate.success_rate / WHOLE
    scores["product"].came(round(WHOLE * product), good=good)
    scores["minimum"].came(min(rate.success_rate for rate in rates), good=good)
    scores["between"].came(confidence_of(rates).stated, good=good)


def test_the_stated_confidence_comes_true_however_plans_end() -> None:
    """Between product and minimum is the rule whose error stays small whether failures take all back, or nothing."""
    worst = dict.fromkeys(("product", "minimum", "between"), 0)
    show("undone | Brier and calibration error of product, minimum, between them")
    for undone in (0.0, 0.25, 0.5):
        scores = {rule: Score() for rule in worst}
        for seed in SEEDS:
            plans(seed, undone, scores)
        found = {rule: score.calibration for rule, score in scores.items()}
        shown = (f"{one.brier / WHOLE:.4f} {one.calibration_error / WHOLE:.4f}" for one in found.values())
        show(f"{undone:6.2f} | {' | '.join(shown)}")
        worst = {rule: max(error, found[rule].calibration_error) for rule, error in worst.items()}
        assert found["between"].brier < found["between"].brier_of_mean
    assert worst["between"] < worst["product"]
    assert worst["between"] < worst["minimum"]
    assert worst["between"] < 400
