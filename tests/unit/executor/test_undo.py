"""Undoing: every kind of change comes back exactly, times included, and what drifted is named instead."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from executor.domain.errors import RequestMalformedError
from gonogo.v1 import evidence_pb2, plan_pb2
from tests.unit.executor.undo_house import UndoHouse, delete, move, shell, undo_house, undo_step, write

MIB = 1 << 20
LONG_AGO = 1_500_000_000_123_456_789


@pytest.fixture
def house(tmp_path: Path) -> Iterator[UndoHouse]:
    """A house with a sandbox, over a tree of everything a workspace can hold, all of it old."""
    with undo_house(tmp_path, sandboxed=True, hidden='[".env"]') as house:
        furnish(house.site)
        yield house


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[UndoHouse]:
    """A house without a sandbox, over an empty workspace."""
    with undo_house(tmp_path) as house:
        yield house


def furnish(site: Path) -> None:
    """Make files, directories, links, attributes, holes and odd names, each with a time of its own."""
    (site / "docs" / "deep" / "deeper").mkdir(parents=True)
    (site / "docs" / "empty").mkdir(mode=0o700)
    (site / "docs" / "guide.md").write_text("one\ntwo\n")
    (site / "docs" / "deep" / "page.md").write_bytes(b"page\n" * 20_000)
    (site / "docs" / "link").symlink_to("guide.md")
    (site / "tool.sh").write_text("#!/bin/sh\n")
    (site / "tool.sh").chmod(0o755)
    (site / "tagged").write_text("tagged\n")
    os.setxattr(site / "tagged", "user.colour", b"re\x00d")
    os.setxattr(site / "docs", "user.owner", b"docs")
    (site / os.fsdecode(b"odd-\xff name")).write_text("odd\n")
    for name, size in (("sparse", 3 * MIB), ("small-sparse", 24 * 1024)):
        with (site / name).open("wb") as file:
            file.truncate(size)
            file.seek(size - 4096)
            file.write(b"end" * 100)
    for number, path in enumerate([site, *sorted(site.rglob("*"))]):
        os.utime(path, ns=(LONG_AGO, LONG_AGO + number * 1_000_000_007), follow_symlinks=False)


def become_a_link(site: Path) -> None:
    """Put a link in the place of a directory."""
    (site / "docs").rename(site / "elsewhere")
    (site / "docs").symlink_to("elsewhere")


KINDS = {
    "create_file": plan_pb2.Step(create_file=plan_pb2.CreateFile(path="docs/new.md", content="new\n")),
    "create_directory": plan_pb2.Step(create_directory=plan_pb2.CreateDirectory(path="docs/new")),
    "write_file over another": write("docs/guide.md", "three\n"),
    "write_file over attributes": write("tagged", "changed\n"),
    "replace_text": plan_pb2.Step(replace_text=plan_pb2.ReplaceText(path="docs/guide.md", old="two", new="2")),
    "append_text": plan_pb2.Step(append_text=plan_pb2.AppendText(path="tool.sh", content="true\n")),
    "delete a file": delete("tagged"),
    "delete a link": delete("docs/link"),
    "delete a tree": delete("docs"),
    "delete holes": delete("sparse"),
    "delete small holes": delete("small-sparse"),
    "move a file": move("docs/guide.md", "guide.md"),
    "move a tree": move("docs/deep", "shallow"),
    "set the mode of a file": plan_pb2.Step(set_mode=plan_pb2.SetMode(path="tool.sh", mode="0600")),
    "set the mode of a directory": plan_pb2.Step(set_mode=plan_pb2.SetMode(path="docs", mode="0711")),
    "a command that writes": shell("echo more >> docs/guide.md; echo new > docs/deep/deeper/new"),
    "a command that fills holes": shell("printf x | dd of=sparse bs=1 seek=1000 conv=notrunc 2>/dev/null"),
    "a command that retargets a link": shell("ln -sfn ../tool.sh docs/link"),
    "a file becomes a directory": shell("rm docs/guide.md; mkdir docs/guide.md; echo in > docs/guide.md/in"),
    "a tree becomes a file": shell("rm -r docs; echo docs > docs"),
    "a link becomes a file": shell("rm docs/link; echo link > docs/link"),
    "a tree becomes a link": shell("mv docs/deep d; ln -s ../d docs/deep"),
    "a command that only sets times": shell("touch -d @1000000000 tool.sh docs/empty"),
    "a command that sets a time besides": shell("echo x > tagged; touch -d @1000000000.5 tagged"),
    "a command that empties and makes directories": shell("rm -r docs/deep; mkdir -p a/b/c; rmdir docs/empty"),
    "a command that moves within what it moves": shell("mv docs/deep/page.md docs/deep/sheet.md; mv docs pages"),
    "a command that replaces what it moved away": shell("mv docs old; mkdir docs; echo fresh > docs/guide.md"),
    "a name that is not text": shell('for f in odd*; do echo x > "$f"; mv "$f" renamed; done'),
    "modes of what is written": shell("chmod 640 tool.sh; echo x >> tool.sh; chmod 500 docs/deep"),
}


@pytest.mark.parametrize("step", KINDS.values(), ids=KINDS)
def test_every_kind_of_change_comes_back(house: UndoHouse, step: plan_pb2.Step) -> None:
    """After an undo the workspace is what it was: bytes, modes, times, attributes, links and holes."""
    before = house.tree()
    house.run(house.steps("m-1", step))
    after = house.tree()
    assert after != before
    house.undone("m-1", "s1")
    assert house.tree() == before
    house.undone("undo", "s1", name="redo")
    assert house.tree() == after


def test_a_mission_of_many_steps(house: UndoHouse) -> None:
    """Steps that build on each other are taken back newest first, each to the state before it."""
    before = house.tree()
    plan = house.steps(
        "m-1",
        write("docs/guide.md", "first\n"),
        move("docs/guide.md", "docs/deep/guide.md"),
        shell("echo second > docs/deep/guide.md; mkdir made; touch made/file"),
        write("docs/deep/guide.md", "third\n"),
        delete("docs/deep"),
        write("docs/guide.md", "fourth\n"),
    )
    house.run(plan)
    house.undone("m-1", "s6", "s5", "s4", "s3", "s2", "s1")
    assert house.tree() == before


def test_what_an_earlier_step_of_the_plan_restored(house: UndoHouse) -> None:
    """A step comes back into a directory that the one before it brought back in the place of a link."""
    before = house.tree()
    house.run(house.steps("m-1", delete("docs/deep/deeper"), shell("rm -r docs/deep; ln -s ../tagged docs/deep")))
    house.undone("m-1", "s2", "s1")
    assert house.tree() == before


def test_times_move_along(house: UndoHouse) -> None:
    """What a step set a time of, and another one moved, is known to have that time when it is back in its place."""
    before = house.tree()
    times = shell("touch -d @1000000000 tool.sh docs/deep docs/deep/deeper docs/guide.md")
    house.run(house.steps("m-1", times, move("docs/deep", "moved"), move("tool.sh", "docs/tool.sh"), move("docs", "d")))
    after = house.tree()
    house.undone("m-1", "s4", "s3", "s2", "s1")
    assert house.tree() == before
    house.undone("undo", "s4", "s3", "s2", "s1", name="redo")
    assert house.tree() == after


def test_back_to_a_step(house: UndoHouse) -> None:
    """Taking back the later steps leaves exactly what the earlier ones left."""
    house.run(house.steps("m-1", write("docs/guide.md", "first\n")))
    after_first = house.tree()
    house.run(house.steps("m-2", shell("rm -r docs"), write("docs", "second\n")))
    house.undone("m-2", "s2", "s1")
    assert house.tree() == after_first


def test_steps_in_the_wrong_order_are_drift(plain: UndoHouse) -> None:
    """An older step can not be taken back under a newer one that changed the same file."""
    plain.run(plain.steps("m-1", write("a", "1"), write("a", "2")))
    assert plain.refused(plain.undoing("m-1", "s1", "s2")) == ("failed", "BASE_DRIFTED", ["a"])


def test_a_partial_mission(plain: UndoHouse) -> None:
    """What a mission left that went on after a failure is taken back; the step that failed has nothing to undo."""
    (plain.site / "there").write_text("there\n")
    before = plain.tree()
    plan = plain.steps(
        "m-1", write("a", "1"), delete("there"), write("b", "2"), policy=plan_pb2.FAILURE_POLICY_CONTINUE
    )
    sealed = plain.dry_run(plan)
    request = plain.request(plan, sealed, plain.approve(plan, sealed))
    info = (plain.site / "there").stat()
    plain.during = lambda: (plain.site / "there").write_text("other\n")
    progress = plain.execute(request)
    assert progress.record.outcome is not None
    assert progress.record.outcome.value == "partial"
    assert plain.refused(plain.undoing("m-1", "s2"))[1] == "CHECKPOINT_GONE"
    plain.undone("m-1", "s3", "s1")
    (plain.site / "there").write_text("there\n")
    os.utime(plain.site / "there", ns=(info.st_atime_ns, info.st_mtime_ns))
    assert plain.tree() == before


class TestDrift:
    def test_every_path_that_differs_is_named(self, house: UndoHouse) -> None:
        """A file changed, one gone, one come, and one in a directory that would go: all are named, none is touched."""
        house.run(
            house.steps("m-1", shell("echo 1 > tool.sh; echo 2 > tagged; rm docs/guide.md; mkdir made; echo > made/f"))
        )
        (house.site / "tool.sh").write_text("mine\n")
        (house.site / "tagged").unlink()
        (house.site / "docs" / "guide.md").write_text("new\n")
        (house.site / "made" / "mine").write_text("mine\n")
        before = house.tree()
        status, reason, paths = house.refused(house.undoing("m-1", "s1"))
        assert (status, reason) == ("failed", "BASE_DRIFTED")
        assert paths == ["docs/guide.md", "made/mine", "tagged", "tool.sh"]
        assert house.tree() == before

    @pytest.mark.parametrize(
        ("step", "change", "paths"),
        [
            ("s1", lambda site: (site / "tagged").chmod(0o600), ["tagged"]),
            ("s1", lambda site: os.setxattr(site / "tagged", "user.colour", b"blue"), ["tagged"]),
            ("s1", lambda site: os.link(site / "tagged", site.parent / "other"), ["tagged"]),
            ("s2", lambda site: (site / "docs").rename(site / "elsewhere"), ["docs"]),
            ("s2", become_a_link, ["docs"]),
        ],
        ids=["mode", "attribute", "hard link", "no parent", "parent is a link"],
    )
    def test_what_counts_as_drift(
        self, house: UndoHouse, step: str, change: Callable[[Path], object], paths: list[str]
    ) -> None:
        """Bits, attributes, further names, and the directory that something has to come back into count."""
        house.run(house.steps("m-1", write("tagged", "x"), delete("docs/deep")))
        change(house.site)
        assert house.refused(house.undoing("m-1", step)) == ("failed", "BASE_DRIFTED", paths)

    def test_a_time_is_drift_where_it_is_all_that_changed(self, house: UndoHouse) -> None:
        """A step that set a time can not be taken back once the time is another; elsewhere times do not matter."""
        house.run(house.steps("m-1", shell("touch -d @1000000000 tool.sh"), write("tagged", "x")))
        for name in ("tool.sh", "tagged"):
            os.utime(house.site / name, (5, 5))
        assert house.refused(house.undoing("m-1", "s1")) == ("failed", "BASE_DRIFTED", ["tool.sh"])
        house.undone("m-1", "s2", name="undo-2")
        assert (house.site / "tagged").stat().st_mtime_ns > LONG_AGO
        assert (house.site / "tagged").read_text() == "tagged\n"

    def test_a_directory_that_somebody_else_used_keeps_its_time(self, house: UndoHouse) -> None:
        """Its former time would hide that the other name came."""
        house.run(house.steps("m-1", delete("docs/guide.md")))
        (house.site / "docs" / "mine").write_text("mine\n")
        used = (house.site / "docs").stat().st_mtime_ns
        house.undone("m-1", "s1")
        assert (house.site / "docs").stat().st_mtime_ns >= used

    def test_drift_between_dry_run_and_execution(self, house: UndoHouse) -> None:
        """An undo passes the gates as every mission does."""
        house.run(house.steps("m-1", write("tagged", "x")))
        plan = house.undoing("m-1", "s1")
        report = house.dry_run(plan)
        (house.site / "tagged").write_text("mine\n")
        request = house.request(plan, report, house.approve(plan, report))
        with pytest.raises(Exception, match="changed after the dry run"):
            house.execute(request)


class TestWhatCanNotBeUndone:
    @pytest.mark.parametrize(("mission", "step"), [("", "s1"), ("m-1", ""), ("m\x1b[31m", "s1"), ("m-1", "s" * 65)])
    def test_what_names_nothing(self, plain: UndoHouse, mission: str, step: str) -> None:
        """A plan that names no mission and step is none that could run."""
        with pytest.raises(RequestMalformedError) as caught:
            plain.tried(plain.undoing(mission, step))
        assert caught.value.fault.reason == "PLAN_INVALID"

    def test_a_mission_that_was_never_here(self, plain: UndoHouse) -> None:
        """The plan's word counts for nothing: the executor looks into its own ledger."""
        assert plain.refused(plain.undoing("m-none", "s1"))[:2] == ("failed", "NOT_FOUND")

    def test_a_step_that_is_not_there(self, plain: UndoHouse) -> None:
        """A step without a checkpoint has nothing to come back to."""
        plain.run(plain.steps("m-1", write("a", "1")))
        assert plain.refused(plain.undoing("m-1", "s2"))[:2] == ("failed", "CHECKPOINT_GONE")

    def test_a_hidden_path(self, house: UndoHouse) -> None:
        """What the policy hides by now is not read from a checkpoint either."""
        house.run(house.steps("m-1", write("tagged", "x")))
        house.with_limits(hidden=("tagged",))
        assert house.refused(house.undoing("m-1", "s1")) == ("blocked", "PATH_OUTSIDE_SCOPE", ["tagged"])

    def test_a_path_outside_the_scope(self, house: UndoHouse) -> None:
        """The undoing plan's own scope holds; times of directories around it are restored all the same."""
        before = house.tree()
        house.run(house.steps("m-1", shell("echo > tagged; rm docs/guide.md")))
        assert house.refused(house.undoing("m-1", "s1", paths=("docs/**",))) == (
            "blocked",
            "PATH_OUTSIDE_SCOPE",
            ["tagged"],
        )
        house.run(house.undoing("m-1", "s1", name="undo-2", paths=("docs/guide.md", "tagged")))
        assert house.tree() == before

    def test_one_name_of_several(self, house: UndoHouse) -> None:
        """A deleted hard link would come back as a file of its own, so it does not come back."""
        os.link(house.site / "tagged", house.site / "again")
        plan = house.steps("m-1", delete("again"))
        report = house.tried(plan)
        if report.status != evidence_pb2.REPORT_STATUS_SUCCESS:
            pytest.skip("such a file can not be deleted in the first place")
        house.run(house.steps("m-2", delete("again")))
        assert house.refused(house.undoing("m-2", "s1")) == ("unsafe", "UNSUPPORTED", ["again"])

    def test_a_link_that_leaves_the_workspace(self, house: UndoHouse) -> None:
        """What a mission may not make does not come back by an undo either; a person can still restore it."""
        (house.site / "out").symlink_to("/etc/hostname")
        house.run(house.steps("m-1", delete("out")))
        assert house.refused(house.undoing("m-1", "s1"))[::2] == ("unsafe", ["out"])

    def test_a_checkpoint_whose_content_was_changed(self, plain: UndoHouse) -> None:
        """What the checkpoint holds is checked against the digest of what was there."""
        (plain.site / "a").write_text("old\n")
        plain.run(plain.steps("m-1", write("a", "new\n")))
        [entry] = [path for path in plain.slots.iterdir() if path.name.startswith("x-")]
        info = entry.stat()
        entry.write_text("OLD\n")
        os.utime(entry, ns=(info.st_atime_ns, info.st_mtime_ns))
        assert plain.refused(plain.undoing("m-1", "s1"))[:2] == ("failed", "CHECKPOINT_GONE")
        entry.unlink()
        assert plain.refused(plain.undoing("m-1", "s1", name="undo-2"))[:2] == ("failed", "CHECKPOINT_GONE")

    def test_a_mission_that_was_rolled_back(self, plain: UndoHouse) -> None:
        """It left nothing behind."""
        (plain.site / "there").write_text("there\n")
        plan = plain.steps("m-1", write("a", "1"), delete("there"))
        sealed = plain.dry_run(plan)
        request = plain.request(plan, sealed, plain.approve(plan, sealed))
        plain.during = lambda: (plain.site / "there").write_text("other\n")
        plain.execute(request)
        assert plain.refused(plain.undoing("m-1", "s1"))[:2] == ("failed", "STATE_FORBIDS")


def test_an_undo_among_other_steps(house: UndoHouse) -> None:
    """What an undo restores is what the steps after it read, write and run on."""
    house.run(house.steps("m-1", delete("docs")))
    house.run(
        house.steps(
            "m-2",
            undo_step("m-1", "s1"),
            plan_pb2.Step(append_text=plan_pb2.AppendText(path="docs/guide.md", content="three\n")),
            shell("wc -l < docs/guide.md > count; test -L docs/link; cat docs/deep/page.md > copy"),
        )
    )
    assert (house.site / "docs" / "guide.md").read_text() == "one\ntwo\nthree\n"
    assert (house.site / "count").read_text().strip() == "3"
    assert (house.site / "copy").stat().st_size == 100_000
    assert (house.site / "docs" / "deep" / "page.md").stat().st_mtime_ns < LONG_AGO + 60 * 10**9


def test_nothing_is_restored_twice(plain: UndoHouse) -> None:
    """Once undone, a step is no longer what stands, unless somebody makes it so again."""
    plain.run(plain.steps("m-1", write("a", "1")))
    plain.undone("m-1", "s1")
    assert plain.refused(plain.undoing("m-1", "s1", name="undo-2")) == ("failed", "BASE_DRIFTED", ["a"])
