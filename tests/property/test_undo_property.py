"""Random trees and random missions: taken back by undo steps, everything is as it was; and brought back, as it became.

Against the way back of a failed mission this one makes everything anew, from a plan and a report like any other's. So
identities differ, and nothing else may: bytes, bits, times, attributes and links. A hole is a hole again; where one
content was there with and without holes, it may come back with them in both places.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given

from executor.domain.changes import Change
from executor.domain.ladder import LadderLevel
from executor.domain.plan import Action, UndoStep
from executor.domain.report import ReportStatus
from executor.runner.simulate import Simulator
from executor.steps.edit import EditLimits
from executor.steps.undo import KeptStep
from executor.workspace.objects import data_ranges
from executor.workspace.record import Applied
from executor.workspace.workspace import Workspace
from tests.property import programs
from tests.property.bounds import bounded
from tests.property.test_dry_run_property import STEPS, TREES, Recipe, Trial, trial
from tests.property.trees import TreeOf, contents, times
from tests.unit.executor.plan_house import LIMITS, TOOLS

pytestmark = pytest.mark.sandbox


class Kept:
    """The steps of one mission after another, by mission; what a ledger keeps of them."""

    def __init__(self, here: Trial) -> None:
        self.here = here
        self.missions: dict[str, list[Applied]] = {}

    def commit(self, mission: str, change_sets: Sequence[tuple[Change, ...]]) -> None:
        """Commit a mission's steps for good."""
        committer = self.here.committer
        applied = [
            committer.apply(f"{mission}-{number}", changes) for number, changes in enumerate(change_sets) if changes
        ]
        committer.release(applied)
        self.missions[mission] = [Applied.decode(one.encode()) for one in applied]

    def undoing(self, mission: str) -> list[Action]:
        """Return the steps that take a mission back."""
        count = len(self.missions[mission])
        return [UndoStep(mission_id=mission, step_id=str(number)) for number in reversed(range(count))]

    def find(self, action: UndoStep, workspace: Workspace) -> KeptStep:
        """Look a step up, as the ledger's own look-up does."""
        del workspace
        applied, committer = self.missions[action.mission_id][int(action.step_id)], self.here.committer
        return KeptStep(
            changes=applied.changes,
            directory_times=applied.times,
            former=lambda path: committer.former(applied, path),
            open_former=lambda path: committer.old_file(applied, path),
        )

    def dry_run(self, actions: list[Action]) -> list[tuple[Change, ...]]:
        """Dry-run a plan of undo steps."""
        house = self.here.house
        simulator = Simulator(
            sandbox=house.sandbox,
            ladder_level=LadderLevel.L3,
            objects=house.objects,
            edit_limits=EditLimits(),
            copy_limits=LIMITS,
            tools=TOOLS,
            kept_steps=self,
        )
        found = simulator.run(house.plan(*actions), house.workspace, house.events.append)
        assert (found.status, found.problems) == (ReportStatus.SUCCESS, ())
        house.small.update(found.small_objects)
        return [step.changes for step in found.steps]


def everything(root: Path) -> tuple[object, ...]:
    """All that an undo restores."""
    return contents(root), times(root)


def data(root: Path) -> dict[Path, int]:
    """How many bytes of each file are no holes."""
    found = {}
    for path in root.rglob("*"):
        info = path.lstat()
        if stat.S_ISREG(info.st_mode):
            fd = os.open(path, os.O_RDONLY)
            found[path] = sum(end - start for start, end in data_ranges(fd, info.st_size))
            os.close(fd)
    return found


@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # some files are to be large
@given(tree=TREES, steps=STEPS)
@bounded(80)
def test_a_mission_taken_back_and_brought_back(
    tmp_path_factory: pytest.TempPathFactory, tree: TreeOf, steps: list[Recipe | programs.Program]
) -> None:
    """Whatever a mission did: undone, the tree is the one before; the undo undone, the one after."""
    with trial(tmp_path_factory.mktemp("undo"), tree) as here:
        actions = here.carry_out(steps)
        if not actions:
            return
        root, kept = here.house.root, Kept(here)
        before = everything(root), data(root)
        kept.commit("m", here.dry_run(actions))
        after = everything(root), data(root)
        for mission, undo, (expected, most) in (("m", "undo", before), ("undo", "redo", after)):
            steps_back = kept.undoing(mission)
            if not steps_back:
                return
            kept.commit(undo, kept.dry_run(steps_back))
            assert everything(root) == expected
            assert all(size <= most[path] for path, size in data(root).items())
