"""What is cut: a commit, its undoing, and the recovery from either, on a workspace with everything in it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from executor.domain.changes import Change
from executor.domain.errors import ExecutorError
from executor.workspace.commit import Committer
from executor.workspace.objects import ObjectStore
from executor.workspace.paths import Directory
from tests.faults.rich_tree import build_old, rich_changes
from tests.faults.snapshot import Snapshot, Tree, differences, look, without_links
from tests.faults.traced import Act, GetReady, run

OLD, NEW, MIXED = "old", "new", "mixed"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a workspace is: one of the states that it may be in, or mixed."""

    name: str
    details: tuple[str, ...] = ()


class Scenario(Protocol):
    """Something that is done to a workspace, and what sets it right when it was cut off."""

    def build(self, place: Path) -> Tree:
        """Make everything that the act starts from, and return what the workspace is then."""

    def act(self, place: Path) -> GetReady:
        """Return what is to be cut."""

    def recover(self, place: Path) -> GetReady:
        """Return what a new process does first of all."""

    def state(self, place: Path, start: Tree) -> State:
        """Return what the workspace is now."""

    def leftovers(self, place: Path) -> tuple[str, ...]:
        """Return what the executor has left lying about for good."""


def no_small_objects(digest: str) -> bytes | None:
    """Stands for a ledger that holds none."""
    del digest
    return None


def whole_state(site: Path, start: Tree, states: Mapping[str, Snapshot]) -> State:
    """Return which of some states a tree is in. The old one is so only with every old inode in its place."""
    found = look(os.fsencode(site))
    # A deleted file that has another name in the workspace is linked from the slot, for as long as that is kept.
    unlinked = without_links(found.entries)
    unlike = {name: differences(unlinked, without_links(expected)) for name, expected in states.items()}
    unlike[OLD] = differences(found.entries, start.entries)
    nearest = min(unlike, key=lambda name: len(unlike[name]))
    if unlike[nearest]:
        return State(name=MIXED, details=(f"nearest to {nearest}", *unlike[nearest]))
    if nearest != OLD:
        return State(name=nearest)
    moved = tuple(f"{path!r} is another inode" for path, inode in start.inodes.items() if found.inodes[path] != inode)
    return State(name=MIXED, details=moved) if moved else State(name=OLD)


@dataclass
class CommitScenario:
    """The commit of the rich change set.

    Args:
        home: a folder of its own, for the contents and for what the new tree looks like.
        keep_whole: whether recovery lets a commit stand that was made in full, or undoes that one too.
    """

    home: Path
    keep_whole: bool = True
    changes: tuple[Change, ...] = field(init=False)
    new: Snapshot = field(init=False)

    def __post_init__(self) -> None:
        self.home.mkdir()
        self.store = ObjectStore(self.home / "objects", no_small_objects)
        self.objects = self.store.batch()
        (self.home / "trees").mkdir()
        self.changes = rich_changes(self.home / "trees", self.objects)
        place = self.home / "reference"
        self.build(place)
        said = run(lambda: self.committing(place), self.home / "log").said
        assert said == "applied", said
        self.new = look(os.fsencode(place / "site")).entries

    def build(self, place: Path) -> Tree:
        place.mkdir()
        build_old(place / "site")
        return look(os.fsencode(place / "site"))

    def open(self, place: Path) -> Committer:
        return Committer(Directory.open(place / "site"), place / "staging", self.objects)

    def committing(self, place: Path) -> Act:
        """Open the committer, and return the commit."""
        committer = self.open(place)

        def apply() -> str:
            try:
                committer.apply("x-1", self.changes)
            except ExecutorError as error:
                return f"refused {type(error).__name__} {error.fault.reason}: {error.fault.message}"
            return "applied"

        return apply

    def act(self, place: Path) -> GetReady:
        return lambda: self.committing(place)

    def recover(self, place: Path) -> GetReady:
        return lambda: lambda: self.settle(place)

    def settle(self, place: Path) -> str:
        """Do what an executor does at its start; on a disk that fails it may refuse to."""
        try:
            return self._settled(self.open(place))
        except ExecutorError as error:
            return f"refused {type(error).__name__} {error.fault.reason}: {error.fault.message}"

    def _settled(self, committer: Committer) -> str:
        told = []
        for applied in reversed(committer.pending()):
            if self.keep_whole and applied.complete:
                committer.discard(applied)
                told.append("kept")
                continue
            undone = committer.undo(applied)
            told.append("undone" if undone.success else f"not undone: {'; '.join(undone.differences)}")
            if undone.success:
                committer.discard(applied)
        return ", ".join(told)

    def state(self, place: Path, start: Tree) -> State:
        return whole_state(place / "site", start, {NEW: self.new})

    def leftovers(self, place: Path) -> tuple[str, ...]:
        staging = place / "staging"
        names = sorted(path.name for path in staging.iterdir()) if staging.exists() else []
        return tuple(name for name in names if not name.startswith("journal."))


@dataclass
class SecondCommitScenario(CommitScenario):
    """The same after another commit, which was undone and let go of: its record is what the journal is written over."""

    def act(self, place: Path) -> GetReady:
        def get_ready() -> Act:
            committer = self.open(place)
            applied = committer.apply("x-0", self.changes)
            assert committer.undo(applied).success
            committer.discard(applied)
            committer.close()
            return self.committing(place)

        return get_ready


@dataclass
class UndoScenario(CommitScenario):
    """The undoing of a commit that was made in full."""

    keep_whole: bool = False

    def act(self, place: Path) -> GetReady:
        def get_ready() -> Act:
            committer = self.open(place)
            applied = committer.apply("x-1", self.changes)

            def undo() -> str:
                undone = committer.undo(applied)
                return "undone" if undone.success else f"not undone: {'; '.join(undone.differences)}"

            return undo

        return get_ready
