"""Whom files belong to when root serves another user's workspace, from the dry run to the commit and back."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from executor.domain.changes import Change
from executor.domain.ladder import LadderLevel
from executor.domain.plan import (
    Action,
    AppendText,
    CreateDirectory,
    CreateFile,
    FailurePolicy,
    MovePath,
    NetworkAccess,
    Plan,
    RunCommand,
    Scope,
    Stage,
    Step,
    WriteFile,
)
from executor.domain.report import ReportStatus
from executor.runner.ports import Simulation
from executor.runner.simulate import Simulator
from executor.runner.working_copy import CopyLimits
from executor.sandbox.bubblewrap import Bubblewrap
from executor.sandbox.storage import Storage
from executor.steps.edit import EditLimits
from executor.workspace.globs import Globs
from executor.workspace.objects import ObjectStore
from executor.workspace.workspace import Workspace
from tests.unit.executor.sandbox_scripts import NOBODY, root_only

pytestmark = [pytest.mark.sandbox, root_only]
GROUP = 65533


class House:
    """Root's executor with one workspace that is not root's; `theirs` in it is a third user's."""

    def __init__(self, place: Path, storage: Storage) -> None:
        self.root = place / "workspace"
        (self.root / "theirs").mkdir(parents=True)
        (self.root / "old").write_text("old\n")
        for path, uid in ((self.root, NOBODY), (self.root / "old", NOBODY), (self.root / "theirs", 1234)):
            os.chown(path, uid, GROUP)
        self.small: dict[str, bytes] = {}
        self.objects = ObjectStore(place / "objects", self.small.get)
        self.sandbox = Bubblewrap.on_this_machine(scratch=place / "scratch", storage=storage)
        self.workspace = Workspace(
            workspace_id="w",
            root=self.root,
            staging=place / "staging",
            locks=place / "locks",
            hidden=Globs([]),
            volatile=Globs([]),
        )

    def dry_run(self, *actions: Action) -> Simulation:
        simulator = Simulator(
            sandbox=self.sandbox,
            ladder_level=LadderLevel.L3,
            objects=self.objects,
            edit_limits=EditLimits(),
            copy_limits=CopyLimits(
                change_bytes=1 << 24, change_count=1000, output_bytes=1 << 16, processes=100, open_files=100
            ),
            tools=(),
        )
        found = simulator.run(a_plan(*actions), self.workspace, lambda _: None)
        self.small.update(found.small_objects)
        return found

    def owner(self, name: str) -> tuple[int, int]:
        status = (self.root / name).lstat()
        return status.st_uid, status.st_gid


def a_plan(*actions: Action) -> Plan:
    scope = Scope(
        paths=(), domains=(), network=NetworkAccess.NONE, max_pages=1, max_duration_seconds=20, max_bytes=None
    )
    return Plan(
        plan_id="p",
        mission_id="m",
        intent_id="i",
        message_id="",
        transcription_id="",
        objective="o",
        workspace_id="w",
        executor_id="e",
        proposer="owner",
        created_at=datetime.now(UTC),
        scope=scope,
        failure_policy=FailurePolicy.ROLL_BACK,
        steps=tuple(
            Step(step_id=f"s{number}", description="", stage=Stage.EDIT, action=action)
            for number, action in enumerate(actions)
        ),
    )


def a_shell(script: str) -> RunCommand:
    return RunCommand(argv=("sh", "-c", script), cwd="", env={}, success_codes=())


@pytest.fixture(params=list(Storage))
def house(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[House]:
    house = House(tmp_path, request.param)
    yield house
    house.workspace.close()


ACTIONS: tuple[Action, ...] = (
    CreateFile(path="new", content=b"typed\n", mode=0o644),
    CreateDirectory(path="made", mode=0o755),
    WriteFile(path="made/inner", content=b"typed\n", mode=None),
    AppendText(path="old", content="typed\n"),
    MovePath(path="theirs", to="moved"),
    CreateFile(path="moved/third", content=b"typed\n", mode=0o644),
    a_shell(
        "for name in new made/inner old; do echo more >> $name || exit 1; done; "
        "ln -s new made/link; echo x > own; test ! -w moved -a ! -w moved/third"
    ),
)
OWNERS = {
    **dict.fromkeys(("new", "made", "made/inner", "made/link", "old", "own"), (NOBODY, GROUP)),
    **dict.fromkeys(("moved", "moved/third"), (1234, GROUP)),
}


def test_what_root_commits_belongs_to_the_owner_of_its_directory(house: House) -> None:
    """A command of the owner can append to what a typed step made, and what is committed is the owner's, and undone."""
    found = house.dry_run(*ACTIONS)
    assert (found.status, found.problems) == (ReportStatus.SUCCESS, ())
    committer = house.workspace.committer(house.objects)
    applied = []
    for step in found.steps:
        applied.append(committer.apply(step.step_id, step.changes))
        assert committer.verify(step.changes) == ()
    assert (house.root / "new").read_text() == "typed\nmore\n"
    assert {name: house.owner(name) for name in OWNERS} == OWNERS
    assert all(committer.undo(one).success for one in reversed(applied))
    assert {path.name: house.owner(path.name) for path in house.root.iterdir()} == {
        "old": (NOBODY, GROUP),
        "theirs": (1234, GROUP),
    }


def test_a_whole_mission_in_one_change_set_is_owned_alike(house: House) -> None:
    """Directories that come or move in the same commit hand their owner down."""
    found = house.dry_run(*ACTIONS)
    net: tuple[Change, ...] = found.steps[1].changes + found.steps[2].changes
    net += found.steps[4].changes + found.steps[5].changes
    committer = house.workspace.committer(house.objects)
    committer.apply("all", net)
    assert committer.verify(net) == ()
    names = ("made", "made/inner", "moved", "moved/third")
    assert {name: house.owner(name) for name in names} == {name: OWNERS[name] for name in names}


def test_a_file_that_would_change_its_owner_is_refused(house: House) -> None:
    """By a command that replaces somebody else's file, or makes a name in a directory that is somebody else's."""
    os.chown(house.root / "old", 1234, GROUP)
    (house.root / "theirs").chmod(0o777)
    found = house.dry_run(a_shell("echo x > own; mv own old; echo x > theirs/new"))
    assert found.status is ReportStatus.UNSAFE
    assert {problem.path for problem in found.problems} == {"old", "theirs/new"}
    assert all("owner" in problem.message for problem in found.problems)
