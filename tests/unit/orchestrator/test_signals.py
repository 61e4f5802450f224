"""The arithmetic of signals, against values worked out by hand or by another formula."""

import math
import random

import pytest

from orchestrator.domain.signals import (
    WHOLE,
    Confidence,
    DayCount,
    Rate,
    Stated,
    bin_of,
    bucket_of,
    calibration_of,
    confidence_of,
    normalised_path,
    quantile,
    rate_of,
    tool_of,
)


def a_rate(success: int, samples: int = 20, high: int = WHOLE) -> Rate:
    return Rate(samples=samples, insufficient=False, success_rate=success, low=0, high=high, weight=1)


@pytest.mark.parametrize("outcomes", range(5))
def test_fewer_than_five_outcomes_say_nothing(outcomes: int) -> None:
    """No rate is given, however clear the few outcomes are."""
    rate = rate_of([DayCount(day=1, succeeded=outcomes, failed=0)], 1)

    assert rate == Rate(samples=outcomes, insufficient=True)


def test_outcomes_weigh_as_their_places_say() -> None:
    """Weights of one day sum to the geometric series, and mean and interval follow from their effective number."""
    fading = 2 ** (-1 / 40)
    weights = [fading**place for place in range(30)]
    effective = sum(weights) ** 2 / sum(weight * weight for weight in weights)
    share = 24 / 30
    center = (share + 1.96**2 / (2 * effective)) / (1 + 1.96**2 / effective)

    rate = rate_of([DayCount(day=7, succeeded=24, failed=6)], 7)

    assert rate.samples == 30
    assert rate.weight == round(100 * sum(weights))
    assert abs(rate.success_rate - WHOLE * (share * effective + 0.5) / (effective + 1)) <= 1
    assert abs((rate.low + rate.high) / 2 - WHOLE * center) <= 2


def test_newer_outcomes_weigh_more_than_older_ones() -> None:
    """The same hundred outcomes give a lower rate when the failures are the newer half."""
    good, bad = DayCount(day=1, succeeded=50, failed=0), DayCount(day=2, succeeded=0, failed=50)
    worse = rate_of([bad, good], 2)
    better = rate_of([DayCount(day=2, succeeded=50, failed=0), DayCount(day=1, succeeded=0, failed=50)], 2)

    assert worse.success_rate < 3500
    assert better.success_rate > 6500


def test_what_nobody_used_for_long_becomes_uncertain_and_then_unknown() -> None:
    """The interval widens with the days, until nothing is said any more."""
    days = [DayCount(day=0, succeeded=30, failed=10)]
    widths = [rate.high - rate.low for rate in (rate_of(days, today) for today in (0, 90, 180, 360))]

    assert widths == sorted(widths)
    assert widths[0] < widths[-1]
    assert rate_of(days, 1000).insufficient


def test_a_day_of_the_future_counts_as_today() -> None:
    """A clock that was set back makes no outcome weigh more than one."""
    days = [DayCount(day=9, succeeded=8, failed=2)]

    assert rate_of(days, 3) == rate_of(days, 9)


def test_a_plan_with_an_unknown_step_has_no_confidence() -> None:
    """Nothing is stated of what was hardly ever seen."""
    unknown = Rate(samples=3, insufficient=True)

    assert confidence_of([a_rate(9000), unknown]) == Confidence()
    assert confidence_of([]) == Confidence()


def test_a_confidence_lies_between_the_product_and_the_smallest_rate() -> None:
    """It is their geometric mean, and the samples are those of the step that was seen least."""
    stated = confidence_of([a_rate(9000, samples=50), a_rate(8000, samples=12)])

    assert stated == Confidence(stated=round(WHOLE * math.sqrt(0.9 * 0.8 * 0.8)), samples=12)
    assert confidence_of([a_rate(7000)]).stated == 7000


def test_a_step_that_fails_more_often_than_not_makes_a_plan_doubtful() -> None:
    """It is doubtful when the interval's upper end is below one half, not when the mean is."""
    assert confidence_of([a_rate(9000), a_rate(3000, high=4999)]).doubtful
    assert not confidence_of([a_rate(4000, high=5000)]).doubtful


def test_calibration_is_what_the_definitions_say() -> None:
    """Brier score, that of the mean, error and bins equal those that are computed pair by pair."""
    chance = random.Random(5)
    pairs = [(chance.randrange(1, WHOLE + 1), chance.random() < 0.7) for _ in range(500)]
    stated = [
        Stated(bin=bin_of(p), samples=1, stated=p, stated_squared=p * p, realised=int(y), stated_realised=p * y)
        for p, y in pairs
    ]
    bins = [[pair for pair in pairs if bin_of(pair[0]) == number] for number in range(10)]
    merged = [
        Stated(
            bin=number,
            samples=len(held),
            stated=sum(p for p, _ in held),
            stated_squared=sum(p * p for p, _ in held),
            realised=sum(y for _, y in held),
            stated_realised=sum(p * y for p, y in held),
        )
        for number, held in enumerate(bins)
    ]

    found = calibration_of(merged)

    mean = sum(y for _, y in pairs) / len(pairs)
    apart = sum(abs(sum(p / WHOLE - y for p, y in held)) for held in bins) / len(pairs)
    assert found.samples == len(stated) == 500
    assert abs(found.brier - WHOLE * sum((p / WHOLE - y) ** 2 for p, y in pairs) / len(pairs)) <= 1
    assert abs(found.brier_of_mean - WHOLE * sum((mean - y) ** 2 for _, y in pairs) / len(pairs)) <= 1
    assert abs(found.calibration_error - WHOLE * apart) <= 1
    assert [(one.low, one.high, one.samples) for one in found.bins] == [
        (number * 1000, (number + 1) * 1000, len(held)) for number, held in enumerate(bins) if held
    ]


def test_nothing_stated_is_nothing_to_calibrate() -> None:
    """Without a single pair all is zero."""
    assert calibration_of([]).samples == 0


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_quantile_is_right_to_within_a_tenth(share: float) -> None:
    """Counting in buckets loses less than a tenth of a duration, from milliseconds to hours."""
    chance = random.Random(8)
    durations = sorted(int(math.exp(chance.uniform(0, 16))) for _ in range(2000))
    buckets: dict[int, int] = {}
    for duration in durations:
        buckets[bucket_of(duration)] = buckets.get(bucket_of(duration), 0) + 1

    exact = durations[math.ceil(share * len(durations)) - 1]

    assert abs(quantile(buckets, share) - exact) <= max(1, 0.1 * exact)


def test_no_durations_have_no_quantile() -> None:
    """Nothing is 0, and so is what took no time."""
    assert quantile({}, 0.5) == 0
    assert quantile({bucket_of(0): 3}, 0.95) == 0


@pytest.mark.parametrize(
    ("kind", "target", "tool"),
    [
        ("run_command", '["/usr/bin/make","-j4"]', "make"),
        ("run_tests", '["python","-m","pytest"]', "python"),
        ("run_live", '["kubectl","apply","-f","' + "x" * 170 + "…", "kubectl"),
        ("run_command", "[]", ""),
        ("run_command", '["' + "x" * 198 + "…", ""),
        ("fetch_url", "https://user@Docs.example.org:8443/a?b", "docs.example.org"),
        ("http_request", "POST https://api.example.org/v1", "api.example.org"),
        ("http_request", "POST http://[::bad", ""),
        ("call_tool", "list of files of github", "github/list of files"),
        ("run_sql", "orders: SELECT ': '", "orders"),
        ("write_file", "notes.txt", ""),
    ],
)
def test_the_tool_of_a_step_is_what_it_uses(kind: str, target: str, tool: str) -> None:
    """Program, host, server and tool, or database, read from the target that the plan's event has."""
    assert tool_of(kind, target) == tool


@pytest.mark.parametrize(
    ("path", "normalised"),
    [
        ("src/app.py", "src/app.py"),
        ("build/2024-05-17/log.12", "build/*-*-*/log.*"),
        ("objects/9f86d081884c7d65/data", "objects/*/data"),
        ("x" * 500, "x" * 200),
    ],
)
def test_paths_that_differ_in_numbers_are_one(path: str, normalised: str) -> None:
    """Numbers and long hexadecimal names are a star, so that like failures come together."""
    assert normalised_path(path) == normalised
