"""The commit of files in one step and its rollback, against writing, fsyncing and renaming the same files."""

import tempfile
from itertools import count
from pathlib import Path

from bench.files import CONTENT, files_floor
from bench.measure import Compared, interleaved, note, seconds, tell_ratio
from executor.domain.changes import Change, ChangeKind, Node, NodeType
from executor.workspace.commit import Applied, Committer
from executor.workspace.objects import ObjectStore
from executor.workspace.paths import Directory

SIZES = {100: 15, 1000: 5}
MARK = 1.5
ROLLBACK_MARK = 1.0


class Commits:
    """Commits of new files to one workspace, and their rollbacks."""

    def __init__(self, folder: Path, files: int) -> None:
        workspace, staging = folder / f"work-{files}", folder / f"staging-{files}"
        workspace.mkdir()
        staging.mkdir()
        batch = ObjectStore(folder / "objects", lambda _: None).batch()
        self._node = Node(type=NodeType.FILE, mode=0o644, digest=batch.put_bytes(CONTENT), size=len(CONTENT))
        self._committer = Committer(Directory.open(workspace), staging, batch)
        self._files = files
        self._rounds = count()
        self._last: Applied | None = None

    def commit(self) -> float:
        """Commit files that were not there; return the seconds."""
        number = next(self._rounds)
        changes = tuple(
            Change(path=f"{number}-{index:04}".encode(), kind=ChangeKind.CREATE, old=None, new=self._node)
            for index in range(self._files)
        )

        def apply() -> None:
            self._last = self._committer.apply(f"slot-{number}", changes)

        return seconds(apply)

    def roll_back(self) -> float:
        """Undo the last commit; return the seconds."""
        applied = self._last
        if applied is None:
            message = "there is no commit to undo"
            raise RuntimeError(message)
        self._last = None
        return seconds(lambda: self._committer.undo(applied))


def main() -> None:
    """Measure both sizes."""
    for files, rounds in SIZES.items():
        note(f"commit of {files} files")
        with tempfile.TemporaryDirectory(prefix="gonogo-bench-") as made:
            folder = Path(made)
            commits = Commits(folder, files)
            tell_ratio(f"commit_{files}_files", interleaved(commits.commit, files_floor(folder, files), rounds), MARK)
            tell_ratio(f"rollback_{files}_files", _rollbacks(commits, rounds), ROLLBACK_MARK)


def _rollbacks(commits: Commits, rounds: int) -> Compared:
    """The floor of a rollback is the very commit that it undoes."""
    pairs = [(commits.commit(), commits.roll_back()) for _ in range(rounds)]
    return Compared(subject=[undo for _, undo in pairs], floor=[commit for commit, _ in pairs])


if __name__ == "__main__":
    main()
