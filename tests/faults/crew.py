"""Plays many points on a few workers at once, and counts what they came to."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

from tests.faults.calls import Call
from tests.faults.worker import Outcome, Point, remove

WORKERS = 2
HOUSE = Path(__file__).resolve().parents[2]
NOBODY = 65534


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One point and what came of it."""

    point: Point
    outcome: Outcome

    def __str__(self) -> str:
        one = self.outcome
        told = "; ".join(text for details in one.details for text in details)
        return f"{self.point.faults}: {one.states} {one.said} left over {one.leftovers} {told} {one.broken}"


@dataclass(slots=True, kw_only=True)
class Figures:
    """One row of the table at the end."""

    title: str
    points: int
    fired: int
    before: Counter[str]
    after: Counter[str]
    seconds: float


@dataclass
class Crew:
    """Workers that play the points of one scenario.

    Args:
        scenario: its name.
        user: who the workers are.
    """

    scenario: str
    user: int
    table: list[Figures]
    _workers: list["subprocess.Popen[str]"] = field(default_factory=list)

    def list_calls(self, *faults: str, threads: bool = False) -> tuple[Call, ...]:
        """Return the calls at which the act, or the recovery after some faults, can be cut."""
        [result] = self.play([Point(faults=faults, threads=threads, list_next=True)])
        assert not result.outcome.broken, result
        return result.outcome.calls

    def play(self, points: Sequence[Point], title: str = "") -> list[Result]:
        """Play points, and put what came of them into the table under a title."""
        began = time.monotonic()
        waiting: SimpleQueue[tuple[int, Point]] = SimpleQueue()
        for numbered in enumerate(points):
            waiting.put(numbered)
        results: dict[int, Result] = {}
        threads = [threading.Thread(target=self._feed, args=(one, waiting, results)) for one in self._workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == len(points), "a worker died"
        found = [results[number] for number in range(len(points))]
        if title:
            self.table.append(_figures(f"{title}{self._who()}", found, time.monotonic() - began))
        return found

    def _feed(
        self, worker: "subprocess.Popen[str]", waiting: "SimpleQueue[tuple[int, Point]]", results: dict[int, Result]
    ) -> None:
        assert worker.stdin is not None
        assert worker.stdout is not None
        while True:
            try:
                number, point = waiting.get_nowait()
            except Empty:
                return
            worker.stdin.write(json.dumps(dataclasses.asdict(point)) + "\n")
            worker.stdin.flush()
            line = worker.stdout.readline()
            if not line:
                return
            results[number] = Result(point=point, outcome=_outcome(json.loads(line)))

    def _who(self) -> str:
        return "" if self.user == os.getuid() else ", as an ordinary user"


@contextmanager
def crew(scenario: str, user: int, table: list[Figures]) -> Iterator[Crew]:
    """Start the workers, each in a folder that belongs to the user."""
    made = Crew(scenario, user, table)
    folders = []
    try:
        for _ in range(WORKERS):
            folder = Path(tempfile.mkdtemp(prefix="gonogo-faults-"))
            folders.append(folder)
            os.chown(folder, user, -1)
            made._workers.append(_worker(scenario, folder, user))
        yield made
    finally:
        for one in made._workers:
            assert one.stdin is not None
            one.stdin.close()
            one.wait()
            assert one.stdout is not None
            one.stdout.close()
        for folder in folders:
            remove(folder)
            shutil.rmtree(folder, ignore_errors=True)


def _worker(scenario: str, folder: Path, user: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.worker", scenario, str(folder), str(user)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=HOUSE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(HOUSE), str(HOUSE / "protos")))},
    )


def _outcome(value: dict[str, object]) -> Outcome:
    calls = tuple(Call(**call) for call in value.pop("calls"))  # type: ignore[attr-defined]  # what a worker wrote
    kept = {name: tuple(one) if isinstance(one, list) else one for name, one in value.items()}
    return Outcome(calls=calls, **kept)  # type: ignore[arg-type]  # what a worker wrote


def _figures(title: str, results: Sequence[Result], seconds: float) -> Figures:
    outcomes = [result.outcome for result in results]
    return Figures(
        title=title,
        points=len(results),
        fired=sum(all(one.fired) for one in outcomes),
        before=Counter(one.states[-2] for one in outcomes if len(one.states) > 1),
        after=Counter(one.states[-1] for one in outcomes if one.states),
        seconds=seconds,
    )
