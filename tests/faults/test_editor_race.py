"""An editor in another process saves files while commits and undos run; it asks nobody and takes no lock."""

import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from executor.domain.changes import Change
from executor.domain.errors import DriftError
from executor.domain.plan import CreateFile, DeletePath, Edit, MovePath, WriteFile
from executor.steps.edit import EditLimits, apply_edit
from executor.workspace.commit import CommitConflictError, Committer
from executor.workspace.objects import Batch, ObjectStore
from executor.workspace.paths import Directory
from executor.workspace.tree import Tree
from tests.faults.crew import HOUSE, Figures
from tests.faults.editor import HOWS
from tests.faults.scenarios import no_small_objects

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

ROUNDS = 300
MOST_ROUNDS = 3000
PADDING = tuple(f"sub/{number}" for number in range(12))
EDITED = ("one", "two", "three", "new", "sub/7", "moved")
OLD = {"one": b"old one", "two": b"old two", "three": b"old three", **dict.fromkeys(PADDING, b"old")}
NEW = {"one": b"new one", "moved": b"old three", "new": b"new", **dict.fromkeys(PADDING, b"new")}
MOVED = {"three", "moved"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Save:
    """What the editor was told to save."""

    name: str
    how: str
    text: str
    wait: float


class Site:
    """A workspace that is made anew for each round, and an editor beside it."""

    def __init__(self, place: Path, seed: int) -> None:
        self.place = place
        self.root = place / "site"
        (self.root / "sub").mkdir(parents=True)
        self.staging = place / "staging"
        self.dice = random.Random(seed)
        self.directory = Directory.open(self.root)
        self.batch: Batch = ObjectStore(place / "objects", no_small_objects).batch()
        self.committer = Committer(self.directory, self.staging, self.batch)
        self.took = 0.005
        self.counted: Counter[str] = Counter()
        self.editor = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.editor", str(place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=HOUSE,
        )

    def close(self) -> None:
        assert self.editor.stdin is not None
        assert self.editor.stdout is not None
        self.editor.stdin.close()
        self.editor.wait()
        self.editor.stdout.close()
        self.committer.close()
        self.directory.close()

    def reset(self) -> tuple[Change, ...]:
        """Make the old tree again, and return the change set to the new one."""
        for path in [*self.root.iterdir(), *(self.root / "sub").iterdir()]:
            if not path.is_dir():
                path.unlink()
        for name, data in OLD.items():
            (self.root / name).write_bytes(data)
        tree = Tree(self.directory, self.batch)
        edits: list[Edit] = [WriteFile(path=name, content=NEW[name], mode=None) for name in ("one", *PADDING)]
        moves: list[Edit] = [DeletePath(path="two", recursive=False), MovePath(path="three", to="moved")]
        for edit in (*edits, *moves, CreateFile(path="new", content=NEW["new"], mode=0o644)):
            apply_edit(tree, edit, EditLimits())
        return tree.changes_since(0)

    def save(self, number: int) -> Save:
        """Think of something to save."""
        name, how = self.dice.choice(EDITED), self.dice.choice(list(HOWS))
        # As long as anything it may overwrite in place, and unlike all else.
        text = f"edit {number:09d}"
        return Save(name=name, how=how, text=text, wait=self.dice.random() * 1.2 * self.took)

    def while_saving(self, save: Save, act: Callable[[], None]) -> bool:
        """Do something while the editor saves; returns whether it could."""
        assert self.editor.stdin is not None
        assert self.editor.stdout is not None
        told = {"name": save.name, "how": save.how, "text": save.text, "wait": save.wait}
        answers: list[str] = []
        reader = threading.Thread(target=lambda: answers.append(self.editor.stdout.readline()))  # type: ignore[union-attr]  # asserted above
        reader.start()
        self.editor.stdin.write(json.dumps(told) + "\n")
        self.editor.stdin.flush()
        began = time.monotonic()
        act()
        self.took = 0.9 * self.took + 0.1 * (time.monotonic() - began)
        reader.join()
        return bool(json.loads(answers[0]))

    def files(self) -> dict[str, bytes]:
        return {str(path.relative_to(self.root)): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}

    def is_kept(self, save: Save) -> bool:
        """Tell whether what was saved is in the staging directory."""
        return any(save.text.encode() in path.read_bytes() for path in self.staging.iterdir() if path.is_file())


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # noqa: T201 - shown where the test fails
    made = Site(tmp_path, seed)
    yield made
    made.close()


def check(site: Site, expected: dict[str, bytes], save: Save, *, saved: bool, named: str) -> None:
    """Assert that every path is as expected but what the editor saved, and that this is to be found."""
    found = site.files()
    excused = {save.name} | {name for name in {*OLD, *NEW} if name in named}
    if excused & MOVED:
        excused |= MOVED
    mixed = {name for name in {*found, *expected} - excused if found.get(name) != expected.get(name)}
    assert mixed == set(), (save, named, {name: (found.get(name), expected.get(name)) for name in mixed})
    if not saved:
        site.counted["not saved"] += 1
    elif any(data.startswith(save.text.encode()) for data in found.values()):
        site.counted["in the workspace"] += 1
    else:
        # It was written into a file that was open before the rename: that file is the one in the slot.
        assert save.how != "beside"
        assert site.is_kept(save), (save, named, found)
        site.counted["in the slot"] += 1


def one_commit(site: Site, number: int) -> None:
    """Commit and undo once, with a save during each."""
    changes = site.reset()
    applied, told = None, ""

    def apply() -> None:
        nonlocal applied, told
        try:
            applied = site.committer.apply(f"x-{number}", changes)
        except (DriftError, CommitConflictError) as error:
            told = f"{type(error).__name__}: {error.fault.message}"

    save = site.save(2 * number)
    saved = site.while_saving(save, apply)
    if applied is None:
        site.counted["drift midway" if "while it was committed" in told else "drift"] += 1
        assert any(name in told for name in ({save.name} | MOVED if save.name in MOVED else {save.name})), (save, told)
        check(site, OLD, save, saved=saved, named=told if "Conflict" in told else "")
        return
    check(site, NEW, save, saved=saved, named="")
    before, in_slot, undone = site.files(), site.is_kept(save), None

    def undo() -> None:
        nonlocal undone
        undone = site.committer.undo(applied)

    second = site.save(2 * number + 1)
    saved = site.while_saving(second, undo)
    assert undone is not None
    site.counted["undone" if undone.success else "undone but for what was saved"] += 1
    named = " ".join(undone.differences)
    if before.get(save.name) != NEW.get(save.name) or in_slot:
        named += f" {save.name}"  # the save during the commit came after it, or went into the old file in the slot
    check(site, OLD, second, saved=saved, named=named)
    site.committer.discard(applied)


def test_no_save_is_lost_and_nothing_is_mixed(site: Site, table: list[Figures]) -> None:
    """Wherever a save falls into a commit or an undo, it is in the workspace or in the slot, and the rest is whole."""
    began = time.monotonic()
    number = 0
    wanted = ("drift midway", "undone but for what was saved", "undone", "in the workspace", "in the slot")
    while number < ROUNDS or not all(site.counted[one] for one in wanted):
        assert number < MOST_ROUNDS, f"the race never fell everywhere: {site.counted}"
        number += 1
        one_commit(site, number)
    row = Figures(
        title="an editor saves meanwhile",
        points=2 * number,
        fired=2 * number - site.counted["not saved"],
        before=Counter({one: site.counted[one] for one in ("drift", "drift midway", "undone but for what was saved")}),
        after=Counter({one: site.counted[one] for one in ("in the workspace", "in the slot")}),
        seconds=time.monotonic() - began,
    )
    table.append(row)
