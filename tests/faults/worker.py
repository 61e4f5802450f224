"""Plays points, one after the other: cut the act, look, recover, look again.

A point is a line of JSON on standard input, its result one on standard output; see `Point` and `Outcome`.
"""

import ctypes
import dataclasses
import json
import logging
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.faults.calls import Call, cuts, read_trace, was_fired
from tests.faults.catalogue import make_scenario
from tests.faults.scenarios import Scenario
from tests.faults.traced import BrokenActError, Ended, run

_PR_SET_DUMPABLE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Where to cut: the act, the first recovery, the second one and so on; an empty fault lets it run through.

    After the last of them the workspace is recovered once more, undisturbed.
    """

    faults: tuple[str, ...]
    threads: bool = False
    list_next: bool = False
    """List the calls of the act that comes after the faults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a point. The states are one for each fault, then one after the recovery that nobody disturbed."""

    fired: tuple[bool, ...]
    said: tuple[str, ...]
    states: tuple[str, ...]
    details: tuple[tuple[str, ...], ...]
    leftovers: tuple[str, ...]
    calls: tuple[Call, ...]
    broken: str = ""
    seconds: float = 0.0


class Player:
    """Plays the points of one scenario in one folder."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self._scenario = scenario
        self._folder = folder
        self._count = 0

    def play(self, point: Point) -> Outcome:
        """Play one point in a place of its own."""
        self._count += 1
        began = time.monotonic()
        place = self._folder / f"p{self._count}"
        try:
            outcome = self._played(place, point)
        finally:
            remove(place)
        return dataclasses.replace(outcome, seconds=time.monotonic() - began)

    def _played(self, place: Path, point: Point) -> Outcome:
        start = self._scenario.build(place)
        fired, said, states, details = [], [], [], []
        calls: tuple[Call, ...] = ()
        broken = ""
        for number, fault in enumerate((*point.faults, "")):
            last = number == len(point.faults)
            try:
                ended = self._stage(place, number, fault, point, traced=last and point.list_next)
            except BrokenActError as error:
                broken = f"stage {number}: {error}"
                break
            state = self._scenario.state(place, start)
            states.append(state.name)
            details.append(state.details[:20])
            said.append("killed" if ended.killed else ended.said)
            if not last:
                fired.append(not fault or was_fired(ended.trace))
            elif point.list_next:
                calls = tuple(
                    dataclasses.replace(c, text=c.text[:300]) for c in cuts(read_trace(ended.trace), str(place))
                )
        return Outcome(
            fired=tuple(fired),
            said=tuple(said),
            states=tuple(states),
            details=tuple(details),
            leftovers=() if broken else self._scenario.leftovers(place),
            calls=calls,
            broken=broken,
        )

    def _stage(self, place: Path, number: int, fault: str, point: Point, *, traced: bool) -> Ended:
        get_ready = self._scenario.recover(place) if number else self._scenario.act(place)
        log = self._folder / "strace.log"
        return run(get_ready, log, fault=fault, traced=traced, threads=point.threads)


def remove(place: Path) -> None:
    """Remove a tree whatever its bits."""
    for folder, _, _ in os.walk(place):
        Path(folder).chmod(0o700)
    shutil.rmtree(place, ignore_errors=True)


def become(user: int) -> None:
    """Go on as an ordinary user."""
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    # Whoever was somebody else may not be traced any more, until it says that it may.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)


def main(name: str, folder: Path, user: int) -> None:
    """Play what comes in until nothing more does."""
    if user != os.getuid():
        become(user)
    os.umask(0o022)
    logging.disable()  # each recovery warns, and there are thousands
    player = Player(make_scenario(name, folder / "home"), folder)
    for line in sys.stdin:
        value = json.loads(line)
        outcome = player.play(Point(**{**value, "faults": tuple(value["faults"])}))
        print(json.dumps(dataclasses.asdict(outcome)), flush=True)  # noqa: T201 - the answer
    remove(folder / "home")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
