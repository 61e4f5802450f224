"""Measuring on a noisy machine: a subject and its floor take turns, and what counts is the median of their ratios."""

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Seconds that a subject and its floor took in the same rounds."""

    subject: list[float]
    floor: list[float]

    @property
    def times_the_floor(self) -> float:
        """How many times the floor's time the subject took; the median over the rounds."""
        return statistics.median(mine / base for mine, base in zip(self.subject, self.floor, strict=True))

    @property
    def share_of_floor_rate(self) -> float:
        """What share of the floor's rate the subject reached; the median over the rounds."""
        return statistics.median(base / mine for mine, base in zip(self.subject, self.floor, strict=True))


def median(values: list[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def seconds(work: Callable[[], object]) -> float:
    """Return how long some work took."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def interleaved(subject: Callable[[], float], floor: Callable[[], float], rounds: int) -> Compared:
    """Let both take turns; each call returns the seconds that count. One round before does not count."""
    subject()
    floor()
    mine, base = [], []
    for _ in range(rounds):
        base.append(floor())
        mine.append(subject())
    return Compared(subject=mine, floor=base)


told: list[dict[str, object]] = []
"""All figures of this run, in the order in which they were printed."""


def tell(name: str, **figures: object) -> None:
    """Print one figure as a JSON line."""
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}
    told.append({"bench": name, **rounded})
    print(json.dumps(told[-1]), flush=True)


def tell_ratio(name: str, compared: Compared, asked: float) -> None:
    """Print a subject's time, its floor's, how many times that it is, and how many times it may be."""
    tell(
        name,
        seconds=median(compared.subject),
        floor_seconds=median(compared.floor),
        times_the_floor=compared.times_the_floor,
        asked=asked,
    )


def note(text: str) -> None:
    """Say what is going on, beside the figures."""
    print(text, file=sys.stderr, flush=True)
