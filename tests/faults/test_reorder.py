"""Power loss by the book: whatever was not synced may be on the disk or not, in any combination.

See `disk_model` for what the book says. This is a model and no power switch: it tells that the order of syncs is
enough, not that a disk and its file system keep their word.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.crew import HOUSE, WORKERS, Figures
from tests.faults.reorder import Found
from tests.faults.scenarios import MIXED, NEW, OLD
from tests.faults.worker import remove

pytestmark = [pytest.mark.faults, pytest.mark.usefixtures("strace"), pytest.mark.timeout(600)]

SEED = int(os.environ.get("GONOGO_FAULT_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)


def in_memory() -> str | None:
    """Return a file system in memory where there is one that keeps attributes: the model says what is on the disk."""
    try:
        with tempfile.NamedTemporaryFile(dir="/dev/shm") as file:
            os.setxattr(file.fileno(), "user.gonogo", b"1")
    except OSError:
        return None
    return "/dev/shm"


class Share(threading.Thread):
    """Every so many-th crash of a scenario, played by a process of its own."""

    def __init__(self, scenario: str, number: int) -> None:
        super().__init__()
        self.deeds = 0
        self.found: list[Found] = []
        self.folder = Path(tempfile.mkdtemp(prefix="gonogo-faults-", dir=in_memory()))
        told = (scenario, str(self.folder), os.getuid(), SEED, number, WORKERS)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.reorder", *map(str, told)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=HOUSE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(HOUSE), str(HOUSE / "protos")))},
        )

    def run(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            self.deeds = int(lines.readline() or 0)
            for line in lines:
                value = json.loads(line)
                self.found.append(Found(**{**value, "lost": tuple(value["lost"])}))
        self.process.wait()
        remove(self.folder)


def play(scenario: str) -> tuple[int, list[Found]]:
    """Play all crashes of a scenario; returns how many deeds it has, and what was found."""
    shares = [Share(scenario, number) for number in range(WORKERS)]
    for share in shares:
        share.start()
    for share in shares:
        share.join()
    assert [share.process.returncode for share in shares] == [0] * WORKERS
    [deeds] = {share.deeds for share in shares}
    return deeds, [one for share in shares for one in share.found]


@pytest.mark.parametrize(("scenario", "ends_in"), [("commit", NEW), ("second commit", NEW), ("undo", OLD)])
def test_no_loss_of_what_was_not_synced_leaves_a_mixture(scenario: str, ends_in: str, table: list[Figures]) -> None:
    """At every moment and whatever of the unsynced is lost, recovery leaves one whole tree, and what was told stays."""
    began = time.monotonic()
    deeds, found = play(scenario)
    table.append(
        Figures(
            title=f"{scenario}, power lost (seed {SEED})",
            points=len(found),
            fired=sum(bool(one.lost) for one in found),
            before=Counter(one.before for one in found),
            after=Counter(one.after for one in found),
            seconds=time.monotonic() - began,
        )
    )
    wrong = [one for one in found if one.after not in {OLD, NEW}]
    assert wrong[:5] == [], f"{len(wrong)} of {len(found)}, seed {SEED}"
    assert {one.after for one in found if one.moment == deeds} == {ends_in}
    assert sum(one.before == MIXED for one in found) > 100
