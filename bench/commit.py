"""The commit of 100 new files in one step, against writing, fsyncing and renaming the same files."""

import os
import shutil
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path

from bench.measure import interleaved, seconds, tell
from executor.domain.changes import Change, ChangeKind, Node, NodeType
from executor.workspace.commit import Committer
from executor.workspace.objects import ObjectStore
from executor.workspace.paths import Directory

FILES = 100
CONTENT = b"x" * 4096
ROUNDS = 15


def main() -> None:
    """Measure the commit of 100 files."""
    folder = Path(tempfile.mkdtemp(prefix="gonogo-bench-"))
    try:
        compared = interleaved(_ours(folder), _floor(folder), ROUNDS)
    finally:
        shutil.rmtree(folder)
    tell(
        "commit_100_files",
        seconds=sorted(compared.subject)[ROUNDS // 2],
        floor_seconds=sorted(compared.floor)[ROUNDS // 2],
        times_the_floor=compared.times_the_floor,
    )


def _floor(folder: Path) -> Callable[[], float]:
    staging, target = folder / "floor-staging", folder / "floor"
    staging.mkdir()
    target.mkdir()
    rounds = count()

    def write(number: int) -> None:
        for index in range(FILES):
            name = f"{number}-{index}"
            fd = os.open(staging / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            os.write(fd, CONTENT)
            os.fsync(fd)
            os.close(fd)
            (staging / name).rename(target / name)

    return lambda: seconds(lambda: write(next(rounds)))


def _ours(folder: Path) -> Callable[[], float]:
    workspace, staging = folder / "work", folder / "staging"
    workspace.mkdir()
    staging.mkdir()
    store = ObjectStore(folder / "objects", lambda _: None)
    batch = store.batch()
    digest = batch.put_bytes(CONTENT)
    committer = Committer(Directory.open(workspace), staging, batch)
    rounds = count()

    def commit(number: int) -> None:
        changes = tuple(
            Change(
                path=f"{number}-{index:03}".encode(),
                kind=ChangeKind.CREATE,
                old=None,
                new=Node(type=NodeType.FILE, mode=0o644, digest=digest, size=len(CONTENT)),
            )
            for index in range(FILES)
        )
        committer.apply(f"slot-{number}", changes)

    return lambda: seconds(lambda: commit(next(rounds)))


if __name__ == "__main__":
    main()
