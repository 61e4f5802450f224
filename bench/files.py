"""The floor of every commit: each file written, synced and renamed to its place, and nothing else."""

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path

from bench.measure import seconds

CONTENT = b"x" * 4096


def files_floor(folder: Path, files: int) -> Callable[[], float]:
    """Return what writes that many new files of 4 KiB at each call and returns how long it took."""
    staging, target = folder / f"floor-staging-{files}", folder / f"floor-{files}"
    staging.mkdir()
    target.mkdir()
    rounds = count()

    def write(number: int) -> None:
        for index in range(files):
            name = f"{number}-{index}"
            fd = os.open(staging / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            os.write(fd, CONTENT)
            os.fsync(fd)
            os.close(fd)
            (staging / name).rename(target / name)

    return lambda: seconds(lambda: write(next(rounds)))
