"""Every kind of step, as one suite that each ladder level runs: what it does there, or how it is refused.

A level is given by its sandbox and by whether the workspace has a staging directory. What a level can not do must be a
`blocked` report that changes nothing, never a part of the work done.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from executor.domain.ladder import LadderLevel
from executor.domain.plan import (
    Action,
    AppendText,
    CreateDirectory,
    CreateFile,
    DeletePath,
    Edit,
    ListDirectory,
    MovePath,
    PatchFile,
    ReadFile,
    ReplaceText,
    Retrieval,
    SearchFiles,
    SetMode,
    WriteFile,
)
from executor.domain.receipt import Outcome
from executor.domain.report import ReportStatus
from executor.sandbox.sandbox import Sandbox
from tests.unit.executor.plan_house import PlanHouse, shell, suite

Changes = tuple[tuple[bytes, str], ...]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of step and what it comes to in the suite's workspace."""

    action: Action
    changes: Changes = ()

    @property
    def needs(self) -> LadderLevel:
        """The lowest level that does it."""
        if isinstance(self.action, Retrieval):
            return LadderLevel.L0
        return LadderLevel.L1 if isinstance(self.action, Edit) else LadderLevel.L2


KINDS: dict[str, Kind] = {
    "read_file": Kind(action=ReadFile(path="guide.md")),
    "list_directory": Kind(action=ListDirectory(path="docs")),
    "search_files": Kind(action=SearchFiles(pattern="colou?r", path=".", literal=False)),
    "create_file": Kind(
        action=CreateFile(path="docs/new.md", content=b"new\n", mode=0o640), changes=((b"docs/new.md", "create"),)
    ),
    "create_directory": Kind(action=CreateDirectory(path="made", mode=0o750), changes=((b"made", "create"),)),
    "write_file": Kind(
        action=WriteFile(path="guide.md", content=b"other\n", mode=None), changes=((b"guide.md", "modify"),)
    ),
    "patch_file": Kind(
        action=PatchFile(path="guide.md", patch="@@ -1 +1 @@\n-colour\n+color\n"), changes=((b"guide.md", "modify"),)
    ),
    "replace_text": Kind(
        action=ReplaceText(path="guide.md", old="colour", new="color", expected_count=1),
        changes=((b"guide.md", "modify"),),
    ),
    "append_text": Kind(action=AppendText(path="guide.md", content="more\n"), changes=((b"guide.md", "modify"),)),
    "move_path": Kind(
        action=MovePath(path="docs", to="pages"), changes=((b"pages", "move"), (b"pages/page.md", "move"))
    ),
    "delete_path": Kind(
        action=DeletePath(path="docs", recursive=True), changes=((b"docs", "delete"), (b"docs/page.md", "delete"))
    ),
    "set_mode": Kind(action=SetMode(path="guide.md", mode=0o600), changes=((b"guide.md", "metadata"),)),
    "run_command": Kind(
        action=shell("echo made > out && rm docs/page.md && chmod 600 guide.md"),
        changes=((b"docs/page.md", "delete"), (b"guide.md", "metadata"), (b"out", "create")),
    ),
    "run_tests": Kind(action=suite("grep -q colour guide.md && touch thrown-away")),
}


class StepKindSuite:
    """The suite; a subclass says which level it is."""

    level: ClassVar[LadderLevel]
    staged: ClassVar[bool] = True

    @pytest.fixture
    def sandbox(self) -> Sandbox | None:
        """The level's sandbox; none where it has none."""
        return None

    @pytest.fixture
    def house(self, tmp_path: Path, sandbox: Sandbox | None) -> Iterator[PlanHouse]:
        """A workspace of two files and a directory, at this level."""
        house = PlanHouse(tmp_path, sandbox, level=self.level)
        if not self.staged:
            house.workspace.staging = None
        (house.root / "docs").mkdir()
        (house.root / "docs/page.md").write_text("page\n")
        (house.root / "guide.md").write_text("colour\n")
        (house.root / "guide.md").chmod(0o644)
        yield house
        house.workspace.close()

    @pytest.fixture(params=sorted(KINDS))
    def kind(self, request: pytest.FixtureRequest) -> Kind:
        return KINDS[request.param]

    def test_a_kind_does_what_its_level_allows(self, house: PlanHouse, kind: Kind) -> None:
        """The dry run finds the exact changes and touches nothing; the execution makes them, and nothing else."""
        before = house.tree()
        plan = house.plan(kind.action)
        found = house.simulate(plan)
        assert house.tree() == before
        assert found.ladder_level is self.level
        if self.level < kind.needs:
            assert found.status is ReportStatus.BLOCKED
            assert found.problems[0].remedy
            assert found.steps == ()
            return
        assert (found.status, found.problems) == (ReportStatus.SUCCESS, ())
        assert tuple((one.path, one.kind.value) for one in found.steps[0].changes) == kind.changes
        if self.level is LadderLevel.L0:
            return  # it reads, and nothing is ever committed there
        assert house.drift(plan, found) == ()
        result = house.execute(plan, found)
        assert (result.outcome, result.errors) == (Outcome.SUCCESS, ())
        assert result.after_fingerprint == found.after_fingerprint
        assert (house.tree() == before) == (not kind.changes)

    def test_a_plan_is_done_whole_or_not_at_all(self, house: PlanHouse) -> None:
        """A plan with one step above the level is blocked as a whole, even where its other steps could be done."""
        edit, run = KINDS["append_text"], KINDS["run_command"]
        before = house.tree()
        found = house.simulate(house.plan(edit.action, run.action))
        possible = self.level >= run.needs
        assert found.status is (ReportStatus.SUCCESS if possible else ReportStatus.BLOCKED)
        assert house.tree() == before
