"""How the copy that commands work on is opened: beside the walk of the workspace, and complete before any command."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from executor.domain.ladder import LadderLevel
from executor.domain.report import CommandEvidence, ReportStatus
from executor.sandbox.bubblewrap import Bubblewrap
from executor.sandbox.sandbox import (
    CommandSpec,
    Sandbox,
    SandboxRefusedError,
    SandboxSession,
    SandboxUnavailableError,
    SessionRequest,
)
from executor.sandbox.storage import Storage
from executor.workspace import manifest
from executor.workspace.manifest import Manifest, ManifestWalk
from tests.unit.executor import plan_house as houses
from tests.unit.executor.plan_house import PlanHouse, shell

pytestmark = pytest.mark.sandbox


@dataclass
class Watched:
    """A real sandbox that remembers in which order what happened."""

    sandbox: Sandbox
    happened: list[str] = field(default_factory=list)
    sessions: list[SandboxSession] = field(default_factory=list)

    @property
    def level(self) -> LadderLevel:
        return self.sandbox.level

    def open(self, request: SessionRequest) -> SandboxSession:
        self.happened.append(f"opened without {', '.join(map(bytes.decode, request.hidden)) or 'nothing'}")
        self.sessions.append(self.sandbox.open(request))
        return self.sessions[-1]


@pytest.fixture
def happened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The beginnings and ends of the walks."""
    found: list[str] = []
    begin, finish = ManifestWalk.__enter__, ManifestWalk.finish

    def begun(self: ManifestWalk) -> ManifestWalk:
        found.append("walk begun")
        return begin(self)

    def finished(self: ManifestWalk) -> Manifest:
        made = finish(self)
        found.append("walked")
        return made

    monkeypatch.setattr(ManifestWalk, "__enter__", begun)
    monkeypatch.setattr(ManifestWalk, "finish", finished)
    return found


@contextmanager
def house_over(folder: Path, sandbox: Sandbox) -> Iterator[PlanHouse]:
    house = PlanHouse(folder, sandbox, volatile=("modules/**",))
    (house.root / ".env").write_text("SECRET")
    (house.root / "file").touch()
    try:
        yield house
    finally:
        house.workspace.close()


@pytest.mark.parametrize(
    ("storage", "order"),
    [
        (Storage.TMPFS, ["walk begun", "opened without nothing", "walked"]),
        (Storage.DISK, ["walk begun", "opened without nothing", "walked"]),
        (Storage.COPY, ["walk begun", "walked", "opened without .env"]),
    ],
)
def test_the_session_opens_beside_the_walk_where_nothing_is_copied(
    tmp_path: Path, happened: list[str], storage: Storage, order: list[str]
) -> None:
    """What is hidden is known before the first command, and before anything is copied; the next walk comes last."""
    sandbox = Watched(Bubblewrap.on_this_machine(scratch=tmp_path / "scratch", storage=storage), happened)
    with house_over(tmp_path, sandbox) as house:
        found = house.simulate(house.plan(shell("cat .env; ls -A")))
    (step,) = found.steps
    assert isinstance(step.evidence, CommandEvidence)
    assert step.evidence.stdout.head == ".env\nfile\n"
    assert happened == [*order, "walk begun", "walked"]


def test_a_workspace_that_can_not_be_walked_leaves_no_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session that was opened meanwhile is closed at once, and the step is blocked for the walk's reason."""
    monkeypatch.setattr(manifest, "MAX_PATHS", 0)
    sandbox = Watched(Bubblewrap.on_this_machine())
    with house_over(tmp_path, sandbox) as house:
        found = house.simulate(house.plan(shell("true")))
    assert (found.status, [one.reason for one in found.problems]) == (ReportStatus.BLOCKED, ["TOO_LARGE"])
    (session,) = sandbox.sessions
    with pytest.raises(SandboxUnavailableError):
        session.run(CommandSpec(argv=("true",), timeout_seconds=1))


def test_what_is_wrong_with_the_workspace_is_said_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a sandbox refuses a workspace that can not be walked either, the reason is the walk's."""
    monkeypatch.setattr(manifest, "MAX_PATHS", 0)

    class Refusing(Watched):
        def open(self, request: SessionRequest) -> SandboxSession:
            raise SandboxRefusedError("PLAN_INVALID", f"{request.workspace} is refused", "none")

    with house_over(tmp_path, Refusing(Bubblewrap.on_this_machine())) as house:
        found = house.simulate(house.plan(shell("true")))
        assert [one.reason for one in found.problems] == ["TOO_LARGE"]
        monkeypatch.setattr(manifest, "MAX_PATHS", 100)
        found = house.simulate(house.plan(shell("true")))
    assert [one.reason for one in found.problems] == ["PLAN_INVALID"]


def test_a_volatile_tree_of_more_files_than_a_plan_may_change_is_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes directory by directory, so that the names which hide it never count all at once."""
    monkeypatch.setattr(houses, "LIMITS", replace(houses.LIMITS, change_count=200))
    with house_over(tmp_path, Bubblewrap.on_this_machine()) as house:
        for number in range(40):
            folder = house.root / "modules" / f"m{number % 5}" / f"n{number}"
            folder.mkdir(parents=True)
            for name in range(50):
                (folder / f"f{name}").touch()
        found = house.simulate(house.plan(shell("test ! -e modules")))
    assert (found.status, found.problems) == (ReportStatus.SUCCESS, ())
    assert [step.changes for step in found.steps] == [()]
