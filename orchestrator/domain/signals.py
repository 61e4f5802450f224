"""What outcomes teach: rates, confidence, calibration, durations. Arithmetic on whole numbers that were counted.

A signal can only ever ask for more approval. Nothing here leads to less, and the executor does not know of signals.

**A rate.** Outcomes are counted by day. An older outcome weighs less: it weighs half for every `HALF_LIFE_OUTCOMES`
outcomes that came after it, and half for every `HALF_LIFE_DAYS` days. The first clock makes a tool that is used a
hundred times a day remember a day, and one that is used weekly remember a year; the second one has what nobody used for
long fade. The rate is the mean of a Beta distribution over the weighed outcomes, from Jeffreys' prior. The interval is
Wilson's, at the number of equal outcomes that would tell as much as the weighed ones do (Kish's effective number,
times the weight of the newest). The half-lives are those with which a simulated year came out best: see
`tests/long/test_signals_year.py`.

**A plan's confidence.** If steps fail independently and what was done stays, the chances multiply. If a failure takes
all steps back, each of them counts as failed, and the smallest chance is the whole plan's. Plans end in both ways, so
the geometric mean of the two is stated. Where one of the steps is seen too seldom, nothing is.

**What counts.** A step that failed, or was undone later, failed. A step that nobody let run (denied, cancelled,
expired, never begun, stopped by a person) is censored: it counts neither way.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import urlsplit

HALF_LIFE_OUTCOMES: Final = 40
HALF_LIFE_DAYS: Final = 180
ENOUGH: Final = 5
"""Fewer outcomes say nothing."""
ENOUGH_EFFECTIVE: Final = 4.0
"""Nor do outcomes that have faded so far that they tell as much as fewer than these."""
WHOLE: Final = 10_000
"""Rates are in hundredths of a percent."""
BINS: Final = 10

_Z: Final = 1.959963984540054
"""Two-sided, 95 percent."""
_PRIOR: Final = 0.5
_LOG_GAMMA: Final = math.log(1.1)
"""Durations are counted in buckets that are a tenth wide."""
NO_BUCKET: Final = -1
_MAX_TOOL: Final = 128
_MAX_PATH: Final = 200
_NUMBERS: Final = re.compile(r"[0-9a-f]{8,}|[0-9]+")
_string: Final = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True, kw_only=True)
class DayCount:
    """What one day's outcomes were; days count from 1970."""

    day: int
    succeeded: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How often something worked, in hundredths of a percent; all zero where too few outcomes were seen."""

    samples: int
    insufficient: bool
    success_rate: int = 0
    low: int = 0
    high: int = 0
    weight: int = 0
    """Sum of the weights, in hundredths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """What is stated of a plan at its dry run; `stated` 0 with no samples where nothing can be."""

    stated: int = 0
    samples: int = 0
    doubtful: bool = False
    """One of its steps fails more often than not, as far as 95 percent go."""


class Stated(NamedTuple):
    """Missions whose confidence was stated within one tenth: sums over them, of whole numbers."""

    bin: int
    samples: int
    stated: int
    stated_squared: int
    realised: int
    """How many succeeded."""
    stated_realised: int
    """Sum of what was stated of those that succeeded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    low: int
    high: int
    samples: int
    stated: int
    realised: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What was stated against what came; scores times 10,000."""

    samples: int
    brier: int
    brier_of_mean: int
    calibration_error: int
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, slots=True)
class _Weighed:
    share: float
    effective: float
    weight: float
    samples: int


def rate_of(days: Iterable[DayCount], today: int) -> Rate:
    """Return the rate that counted outcomes speak for.

    Args:
        days: outcomes by day, the newest day first.
        today: the day it is; days after it (a clock that was set back) count as today.
    """
    weighed = _weigh(days, today)
    if weighed is None or weighed.samples < ENOUGH or weighed.effective < ENOUGH_EFFECTIVE:
        return Rate(samples=weighed.samples if weighed else 0, insufficient=True)
    low, high = _wilson(weighed.share, weighed.effective)
    return Rate(
        samples=weighed.samples,
        insufficient=False,
        success_rate=round(WHOLE * (weighed.share * weighed.effective + _PRIOR) / (weighed.effective + 2 * _PRIOR)),
        low=round(WHOLE * low),
        high=round(WHOLE * high),
        weight=round(100 * weighed.weight),
    )


def _weigh(days: Iterable[DayCount], today: int) -> _Weighed | None:
    """Weigh outcomes; those of one day have no order, and share the weights of their places."""
    fading = 2.0 ** (-1 / HALF_LIFE_OUTCOMES)
    weight = squares = successes = 0.0
    newer = 0
    freshest = 1.0
    for one in days:
        outcomes = one.succeeded + one.failed
        if not outcomes:
            continue
        aged = 2.0 ** (-max(0, today - one.day) / HALF_LIFE_DAYS)
        freshest = freshest if newer else aged
        first = aged * fading**newer
        share = first * (1 - fading**outcomes) / (1 - fading)
        weight += share
        squares += first * first * (1 - fading ** (2 * outcomes)) / (1 - fading * fading)
        successes += share * one.succeeded / outcomes
        newer += outcomes
    if not newer or not squares:
        return None
    return _Weighed(successes / weight, weight * weight / squares * freshest, weight, newer)


def _wilson(share: float, effective: float) -> tuple[float, float]:
    square = _Z * _Z / effective
    middle = (share + square / 2) / (1 + square)
    half = _Z / (1 + square) * math.sqrt(share * (1 - share) / effective + square / (4 * effective))
    return max(0.0, middle - half), min(1.0, middle + half)


def confidence_of(rates: Sequence[Rate]) -> Confidence:
    """Return what can be stated of a plan whose steps have these rates."""
    if not rates:
        return Confidence()
    doubtful = any(not rate.insufficient and rate.high * 2 < WHOLE for rate in rates)
    if any(rate.insufficient for rate in rates):
        return Confidence(doubtful=doubtful)
    chances = [rate.success_rate / WHOLE for rate in rates]
    stated = math.sqrt(math.prod(chances) * min(chances))
    return Confidence(
        stated=max(1, round(WHOLE * stated)), samples=min(rate.samples for rate in rates), doubtful=doubtful
    )


def bin_of(stated: int) -> int:
    """Return the tenth that a stated confidence is in; the last one holds certainty, too."""
    return min(stated * BINS // WHOLE, BINS - 1)


def calibration_of(counted: Iterable[Stated]) -> Calibration:
    """Compare what was stated with what came, tenth by tenth and in all.

    Scores come from whole sums: the Brier score is the mean of (stated - came)², of always stating the mean it would
    have been mean * (1 - mean), and the calibration error is the mean distance between what a bin stated and what came,
    weighed by how many are in it.
    """
    bins = sorted(counted, key=lambda one: one.bin)
    samples = sum(one.samples for one in bins)
    if not samples:
        return Calibration(samples=0, brier=0, brier_of_mean=0, calibration_error=0, bins=())
    squared = sum(one.stated_squared - 2 * WHOLE * one.stated_realised + WHOLE**2 * one.realised for one in bins)
    realised = sum(one.realised for one in bins) / samples
    apart = sum(abs(one.stated - WHOLE * one.realised) for one in bins)
    return Calibration(
        samples=samples,
        brier=round(squared / samples / WHOLE),
        brier_of_mean=round(WHOLE * realised * (1 - realised)),
        calibration_error=round(apart / samples),
        bins=tuple(_reliability(one) for one in bins if one.samples),
    )


def _reliability(one: Stated) -> ReliabilityBin:
    return ReliabilityBin(
        low=one.bin * WHOLE // BINS,
        high=(one.bin + 1) * WHOLE // BINS,
        samples=one.samples,
        stated=round(one.stated / one.samples),
        realised=round(WHOLE * one.realised / one.samples),
    )


def bucket_of(milliseconds: int) -> int:
    """Return the bucket that a duration is counted in."""
    return 0 if milliseconds < 1 else 1 + int(math.log(milliseconds) / _LOG_GAMMA)


def quantile(buckets: Mapping[int, int], share: float) -> int:
    """Return the duration in milliseconds that a share of the counted ones stays under, to within a twentieth."""
    wanted = max(1, math.ceil(share * sum(buckets.values())))
    for bucket in sorted(buckets):
        wanted -= buckets[bucket]
        if wanted <= 0:
            return round(math.exp((bucket - 0.5) * _LOG_GAMMA)) if bucket > 0 else 0
    return 0


def tool_of(kind: str, target: str) -> str:
    """Return what a step of a kind uses: a program, a server and its tool, a host, a database; empty for most kinds.

    Args:
        kind: the step's kind.
        target: what it acts on, as the sealed plan's event says it.
    """
    match kind:
        case "run_command" | "run_tests" | "run_live":
            tool = _program(target)
        case "fetch_url":
            tool = _host(target)
        case "http_request":
            tool = _host(target.partition(" ")[2])
        case "call_tool":
            name, _, server = target.rpartition(" of ")
            tool = f"{server}/{name}"
        case "run_sql":
            tool = target.partition(": ")[0]
        case _:
            return ""
    return tool[:_MAX_TOOL]


def _program(line: str) -> str:
    """Return the last part of the first word of a program's line, which is a JSON list that may be cut at its end."""
    try:
        first, _end = _string(line, 1)
    except (ValueError, IndexError):
        return ""
    return first.rpartition("/")[2] if isinstance(first, str) else ""


def _host(address: str) -> str:
    try:
        return (urlsplit(address).hostname or "").rstrip("…")
    except ValueError:
        return ""


def normalised_path(path: str) -> str:
    """Return a path in which numbers and long hexadecimal names are a star, so that like failures come together."""
    return _NUMBERS.sub("*", path)[:_MAX_PATH]
