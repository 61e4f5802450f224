"""Taking missions back, with the real services and the real command."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.installation import Installation, installed, tree_of

LONG_AGO = 1_500_000_000
NAMES = ("w1", "w2", "w3", "w4", "w5")
PLAN = """\
objective: Tidy the site up
workspace: site
steps:
  - step_id: greet
    write_file: {path: docs/hello.txt, content: "hello\\n"}
  - step_id: drop
    delete_path: {path: old, recursive: true}
  - step_id: look
    read_file: {path: docs/hello.txt}
  - step_id: build
    run_command: {argv: [sh, -ec, "mkdir build; cat docs/hello.txt > build/out; chmod 600 docs/hello.txt"]}
"""


@dataclass(frozen=True, slots=True)
class Place:
    """One workspace of the installation, for one test."""

    installation: Installation
    name: str

    @property
    def site(self) -> Path:
        return self.installation.workspaces[self.name]

    @property
    def plan(self) -> str:
        return PLAN.replace("workspace: site", f"workspace: {self.name}")

    def execute(self, mission: str) -> Any:
        """Take a proposed mission to its receipt."""
        report = self.installation.json("dry-run", mission)
        assert report["status"] == "success", report
        self.installation.json("approve", mission, "--yes")
        return self.installation.json("execute", mission)

    def done(self) -> str:
        """Propose and execute the plan, and return its mission."""
        mission: str = self.installation.json("propose", "-f", "-", text=self.plan)["mission_id"]
        assert self.execute(mission)["outcome"] == "success"
        return mission


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One installation, with a workspace for each test."""
    with installed(tmp_path_factory.mktemp("undo"), *NAMES) as installation:
        yield installation


@pytest.fixture
def place(running: Installation) -> Place:
    """The next workspace, with old files in it."""
    return furnished(running, next(name for name in NAMES if not any(running.workspaces[name].iterdir())))


def furnished(installation: Installation, name: str) -> Place:
    """Put old files into a workspace."""
    site = installation.workspaces[name]
    (site / "docs").mkdir()
    (site / "docs" / "hello.txt").write_text("good morning\n")
    (site / "old" / "empty").mkdir(parents=True)
    (site / "old" / "page").write_text("page\n")
    (site / "old" / "link").symlink_to("page")
    for number, path in enumerate([*sorted(site.rglob("*")), site]):
        os.utime(path, (LONG_AGO, LONG_AGO + number), follow_symlinks=False)
    return Place(installation, name)


def test_a_mission_is_taken_back_and_brought_back(place: Place) -> None:
    """Undo proposes what propose would: a mission of its own, through the same gates, and itself to be undone."""
    before, times = tree_of(place.site), place.site.stat().st_mtime_ns
    mission = place.done()
    after = tree_of(place.site)
    proposed = place.installation.json("undo", mission)
    assert proposed["status"] == "proposed"
    assert proposed["objective"] == f"Undo Tidy the site up (mission {mission})"
    assert proposed.keys() == place.installation.json("clone", mission).keys()
    assert tree_of(place.site) == after
    undo = proposed["mission_id"]
    assert [step["undo_step"]["step_id"] for step in place.installation.json("show", undo)["plan"]["steps"]] == [
        *("build", "drop", "greet")
    ]
    receipt = place.execute(undo)
    assert receipt["outcome"] == "success"
    assert tree_of(place.site) == before
    assert place.site.stat().st_mtime_ns == times
    place.installation.json("verify", undo)
    redo = place.installation.json("undo", undo)["mission_id"]
    assert place.execute(redo)["outcome"] == "success"
    assert tree_of(place.site) == after


def test_what_the_approver_sees(place: Place) -> None:
    """The text names the mission and the step that are taken back, and the changes that it comes to."""
    mission = place.done()
    undo = place.installation.json("undo", mission, "--to", "drop")["mission_id"]
    assert place.installation.run("dry-run", undo).code == 0
    shown = place.installation.run("show", undo).out
    assert "undo_step" in shown
    assert f"mission_id: {mission}" in shown
    assert "step_id: build" in shown
    assert "Take back build (run_command)" in shown
    assert "build/out" in shown


def test_back_to_a_step(place: Place) -> None:
    """The named step and those before it stay; who asks for that can sign the plan as its proposer."""
    mission = place.done()
    key = str(place.installation.state / "keys" / "approver")
    undo = place.installation.json("undo", mission, "--to", "greet", "--sign", key)["mission_id"]
    assert place.execute(undo)["outcome"] == "success"
    assert (place.site / "docs" / "hello.txt").read_text() == "hello\n"
    assert (place.site / "old" / "page").read_text() == "page\n"
    assert not (place.site / "build").exists()


def test_what_drifted_is_named(place: Place) -> None:
    """A path that somebody changed since is refused by name, and nothing happens to it."""
    mission = place.done()
    (place.site / "docs" / "hello.txt").write_text("mine\n")
    undo = place.installation.json("undo", mission)["mission_id"]
    ran = place.installation.run("dry-run", undo, "-o", "json")
    assert ran.code == 6
    assert [(one["reason"], one["path"]) for one in ran.json["problems"]] == [("BASE_DRIFTED", "docs/hello.txt")]
    assert (place.site / "docs" / "hello.txt").read_text() == "mine\n"


def test_where_there_is_nothing_to_undo(place: Place) -> None:
    """A mission that was never executed, one that is not there, a step that is not in it: each with its reason."""
    proposed = place.installation.json("propose", "-f", "-", text=place.plan)["mission_id"]
    assert place.installation.json("undo", proposed, code=7)["reason"] == "STATE_FORBIDS"
    assert place.installation.json("undo", "m-00000000000000000000", code=1)["reason"] == "NOT_FOUND"
    mission = place.done()
    assert place.installation.json("undo", mission, "--to", "s9", code=1)["reason"] == "NOT_FOUND"
    assert place.installation.json("undo", mission, "--to", "build", code=7)["reason"] == "STATE_FORBIDS"


@pytest.mark.long
def test_after_its_time(tmp_path: Path) -> None:
    """A checkpoint is kept for as long as the trust file says, over a restart too; doctor tells for how long."""
    with installed(tmp_path) as installation:
        installation.stop()
        trust = installation.state / "trust.toml"
        text = trust.read_text().replace("checkpoint_seconds = 604800", "checkpoint_seconds = 3")
        trust.write_text(text.replace("version = 1\n", "version = 2\n"))
        installation.start()
        undo = installation.json("undo", furnished(installation, "site").done())["mission_id"]
        installation.stop()
        installation.start()
        findings = {one["name"]: one["detail"] for one in installation.json("doctor")["findings"]}
        assert findings["checkpoints"] == "an ended mission can be undone for 3s"
        assert findings["reports"] == "can be executed for 7d"
        while (ran := installation.run("dry-run", undo, "-o", "json")).code == 0:
            pass
        assert ran.code == 6
        assert {one["reason"] for one in ran.json["problems"]} == {"CHECKPOINT_GONE"}
