"""Nothing in a plan reaches outside its workspace: not by a path, a link, a hard link or a working directory."""

import os
from pathlib import Path

import pytest

from executor.domain.errors import RequestMalformedError
from executor.runner.executions import RefusedError
from gonogo.v1 import evidence_pb2, plan_pb2
from tests.cases.case import case
from tests.cases.case_house import (
    BLOCKED,
    SUCCESS,
    UNSAFE,
    CaseHouse,
    Step,
    appended,
    case_house,
    command,
    created,
    deleted,
    listed,
    made,
    moded,
    moved,
    names_in,
    read,
    searched,
    shell,
    tree_of,
    written,
)

OUTSIDE = (
    "../outside/file",
    "a/../../outside/file",
    "a/b/../../../outside/file",
    "/etc/passwd",
    "//etc/passwd",
    "..",
    "./..",
    "a/..",
    "../site/a",
    "/proc/self/cwd/a",
)


def steps_on(path: str) -> list[Step]:
    """Every kind of typed step on one path."""
    patch = f"--- a/{path}\n+++ b/{path}\n@@ -1 +1 @@\n-base\n+new\n"
    return [
        read(path),
        listed(path),
        searched("x", path),
        created(path),
        made(path),
        written(path),
        appended(path),
        moved(path, "free"),
        moved("file", path),
        deleted(path),
        moded(path, "0600"),
        Step(patch_file=plan_pb2.PatchFile(path=path, patch=patch)),
        Step(replace_text=plan_pb2.ReplaceText(path=path, old="base", new="new")),
    ]


def programs_in(cwd: str) -> list[Step]:
    tests = (plan_pb2.RunTests(argv=["true"], cwd=cwd), plan_pb2.RunTests(argv=["true"], junit=cwd))
    return [command("true", cwd=cwd), *(Step(run_tests=one, stage=plan_pb2.STAGE_TEST) for one in tests)]


@pytest.fixture
def filled(house: CaseHouse) -> CaseHouse:
    """A workspace with a file and folders, and a file outside that nothing may touch."""
    (house.site / "file").write_text("base\n")
    (house.site / "a" / "b").mkdir(parents=True)
    (house.outside / "file").write_text("base\n")
    return house


@case("S01")
@pytest.mark.parametrize("path", OUTSIDE)
def test_a_path_that_leads_out_is_refused_before_anything_runs(filled: CaseHouse, path: str) -> None:
    """Whatever the kind of step, the plan is refused as such: there is no report that could be approved."""
    before, outside = tree_of(filled.site), tree_of(filled.outside)
    for step in (*steps_on(path), *programs_in(path)):
        with pytest.raises(RequestMalformedError) as caught:
            filled.tried(created("first"), step)
        assert (caught.value.fault.reason, bool(caught.value.fault.remedy)) == ("PATH_INVALID", True)
    assert (tree_of(filled.site), tree_of(filled.outside)) == (before, outside)


@case("X01")
@pytest.mark.parametrize("path", ["", "a//b", "a\0b", "a\nb", "x" * 256, "d/" * 2100 + "f"])
def test_a_path_that_is_no_path_is_refused(filled: CaseHouse, path: str) -> None:
    """Empty parts, NUL, control characters, names over 255 bytes and paths over 4096 bytes name nothing."""
    before = tree_of(filled.site)
    for step in steps_on(path):
        with pytest.raises(RequestMalformedError) as caught:
            filled.tried(step)
        assert caught.value.fault.reason in {"PATH_INVALID", "PLAN_INVALID"}
    assert tree_of(filled.site) == before


@case("X02")
@pytest.mark.parametrize(
    "path", ["out/file", "chain/file", "inner/../../outside/file", "up/outside/file", "self/file", "root/etc/passwd"]
)
def test_a_link_on_the_way_is_never_followed(filled: CaseHouse, path: str) -> None:
    """Links to a directory outside, chains of them, `..` behind a link, /proc links, and links that stay inside."""
    links = {"out": "../outside", "chain": "chain2", "chain2": "out", "inner": "a/b", "up": "..", "self": "."}
    for name, target in {**links, "root": "/proc/self/root"}.items():
        (filled.site / name).symlink_to(target)
    before, outside = tree_of(filled.site), tree_of(filled.outside)
    for step in steps_on(path):
        assert filled.why_not(step) in {"PATH_INVALID", "PATH_OUTSIDE_WORKSPACE"}
    assert (tree_of(filled.site), tree_of(filled.outside)) == (before, outside)


@case("X03")
def test_a_link_itself_is_not_written_through(filled: CaseHouse) -> None:
    """A typed write to a link's own name is refused; deleting or moving the link is about the link alone."""
    (filled.site / "link").symlink_to("../outside/file")
    outside = tree_of(filled.outside)
    for step in (written("link"), appended("link"), moded("link", "0600"), created("link")):
        assert filled.tried(step).report.status != SUCCESS
    assert filled.tried(read("link")).report.status != SUCCESS
    filled.mission(deleted("link"))
    assert not os.path.lexists(filled.site / "link")
    assert tree_of(filled.outside) == outside


@case("S05", "X04")
@pytest.mark.parametrize(
    "target", ["../outside/file", "/etc/passwd", "sub/../../outside", "..", "/", "../../../../../../x"]
)
def test_a_link_that_leaves_the_workspace_is_unsafe(filled: CaseHouse, target: str) -> None:
    """A command that leaves a symbolic link to the outside makes the report unsafe, by path; nothing is committed."""
    before = tree_of(filled.site)
    found = filled.tried(command("ln", "-s", target, "link"))
    assert (found.report.status, [one.path for one in found.report.problems]) == (UNSAFE, ["link"])
    with pytest.raises(RefusedError) as caught:
        filled.execute(found)
    assert caught.value.fault.reason == "SIMULATION_UNSAFE"
    assert tree_of(filled.site) == before


@case("S05")
def test_a_name_outside_can_not_be_linked_to_what_is_inside(filled: CaseHouse) -> None:
    """Neither a symbolic nor a hard link can be given a name outside the workspace, nor one from outside inside."""
    outside = tree_of(filled.outside)
    for words in (("-s", f"{filled.site}/file"), ("-s", "file"), ("file",)):
        found = filled.tried(command("ln", *words, f"{filled.outside}/link"))
        assert (found.report.status, found.reasons) == (evidence_pb2.REPORT_STATUS_FAILED, ["COMMAND_FAILED"])
    for source in ("/etc/passwd", "/usr/bin/env", f"{filled.outside}/file"):
        assert filled.tried(command("ln", source, "stolen")).report.status != SUCCESS
    assert tree_of(filled.outside) == outside


@case("X04")
def test_links_that_stay_inside_are_ordinary(filled: CaseHouse) -> None:
    """Also a link to nothing, one that climbs within the workspace, and one whose target is long."""
    targets = {"one": "file", "a/two": "../file", "a/b/three": "../../a", "none": "nowhere", "long": "n" * 4000}
    script = "import os\n" + "\n".join(f"os.symlink({target!r}, {name!r})" for name, target in targets.items())
    filled.mission(command("python3", "-IS", "-c", script))
    assert {name: str((filled.site / name).readlink()) for name in targets} == targets


@case("S07")
@pytest.mark.parametrize(
    "step", [written("file"), appended("file"), moded("file", "0600"), shell("echo x >> file"), shell("chmod 600 file")]
)
def test_a_file_with_a_name_outside_is_not_changed(filled: CaseHouse, step: Step) -> None:
    """A file whose other hard link is elsewhere is refused, and keeps bytes, bits and identity under both names."""
    (filled.outside / "other").hardlink_to(filled.site / "file")
    before, outside = tree_of(filled.site), tree_of(filled.outside)
    found = filled.tried(step)
    assert found.report.status == UNSAFE
    assert "file" in found.complaint
    assert "hard link" in found.complaint
    with pytest.raises(RefusedError):
        filled.execute(found)
    assert (tree_of(filled.site), tree_of(filled.outside)) == (before, outside)
    assert (filled.site / "file").stat().st_ino == (filled.outside / "other").stat().st_ino


@case("X05")
@pytest.mark.parametrize("step", [deleted("file"), moved("file", "there"), shell("rm file"), shell("mv file there")])
def test_taking_one_of_several_names_leaves_the_others(filled: CaseHouse, step: Step) -> None:
    """Deleting or moving a hard-linked name changes no file: the other name keeps its bytes, bits and times."""
    (filled.outside / "other").hardlink_to(filled.site / "file")
    outside = tree_of(filled.outside)
    found = filled.tried(step)
    if found.report.status == SUCCESS:
        filled.execute(found)
        assert not (filled.site / "file").exists()
    else:
        assert "hard link" in found.complaint
    assert tree_of(filled.outside) == outside


@case("X05")
def test_hard_links_that_a_command_makes(filled: CaseHouse) -> None:
    """Two names for one new file are reported; what is committed under each is exactly what the report says."""
    found = filled.tried(shell("echo one > n1; ln n1 n2; ln file n3"))
    if found.report.status == SUCCESS:
        filled.execute(found)
        assert [(filled.site / name).read_text() for name in ("n1", "n2", "n3")] == ["one\n", "one\n", "base\n"]
    else:
        assert found.report.status == UNSAFE
        assert "hard link" in found.complaint


@case("S09")
def test_a_working_directory_gives_no_right(filled: CaseHouse) -> None:
    """A program starts where it was told, in the workspace; what it may write is the workspace all the same."""
    (filled.site / "out").symlink_to("../outside")
    outside = tree_of(filled.outside)
    places = f"../../outside {filled.outside} /usr /etc / ~/../.."
    found = filled.worked(shell(f"pwd; for d in {places}; do (: > $d/x) 2>/dev/null && echo open $d; done; true", "a"))
    assert found.said() == f"{filled.site}/a\n"
    for cwd in ("out", "out/.", "file", "none"):
        tried = filled.tried(command("touch", "x", cwd=cwd))
        assert (tried.report.status, bool(tried.complaint)) == (BLOCKED, True)
    assert tree_of(filled.outside) == outside


@case("S09")
@pytest.mark.parametrize("name", ["HOME", "OLDPWD", "TMPDIR", "XDG_CONFIG_HOME", "GIT_DIR", "GIT_WORK_TREE"])
def test_a_variable_does_not_move_the_root(filled: CaseHouse, name: str) -> None:
    """Variables of the plan that name an outside folder make nothing of it visible or writable."""
    script = f'ls "${name}" 2>/dev/null && echo seen; (: > "${name}/x") 2>/dev/null && echo open; true'
    found = filled.worked(shell(script, env={name: str(filled.outside)}))
    assert found.said() == ""
    assert names_in(filled.outside) == ["file"]


@case("S09")
def test_a_workspace_is_only_what_the_operator_named(filled: CaseHouse) -> None:
    """An id that is a path, or an unknown id, is refused; the root never comes from a plan."""
    for name in (str(filled.outside), "../outside", "outside", "", "."):
        with pytest.raises(RequestMalformedError) as caught:
            filled.dry_run(filled.plan(command("true"), workspace_id=name))
        assert caught.value.fault.reason == "WORKSPACE_UNKNOWN"


@case("X06")
def test_proc_is_no_way_out(filled: CaseHouse) -> None:
    """/proc links of any process inside lead to nothing outside of the view, and can not be written through."""
    script = f"""
    for p in /proc/self/root /proc/1/root /proc/self/cwd /proc/1/cwd /proc/[0-9]*/root /proc/self/task/*/root; do
        cat "$p{filled.outside}/file" 2>/dev/null && echo open $p
        cat "$p/etc/shadow" 2>/dev/null && echo open $p
        (: > "$p{filled.outside}/x") 2>/dev/null && echo open $p
    done
    for f in /proc/self/fd/* /proc/1/fd/*; do ls "$f/.." 2>/dev/null && echo open $f; done
    (: > /proc/self/exe) 2>/dev/null && echo open exe
    (: > /proc/1/mem) 2>/dev/null && echo open mem
    true
    """
    assert filled.worked(shell(script)).said() == ""
    assert names_in(filled.outside) == ["file"]


@case("X07")
def test_a_workspace_that_became_another_directory_is_refused(filled: CaseHouse) -> None:
    """A link or other directory in the workspace's place since the start is noticed before dry run and execution."""
    ready = filled.worked(created("new"))
    filled.site.rename(filled.folder / "away")
    filled.site.symlink_to(filled.outside)
    with pytest.raises(RefusedError) as caught:
        filled.execute(ready)
    assert caught.value.fault.reason in {"WORKSPACE_UNKNOWN", "BASE_DRIFTED"}
    with pytest.raises(Exception, match="another directory"):
        filled.tried(created("new"))
    assert names_in(filled.outside) == ["file"]


@case("X08")
def test_own_directories_can_not_lie_in_a_workspace(tmp_path: Path) -> None:
    """State in the workspace, the workspace in the state, and staging in the workspace are refused or read-only."""
    for site, state in ((tmp_path / "w", tmp_path / "w" / "state"), (tmp_path / "s" / "w", tmp_path / "s")):
        with pytest.raises(Exception, match="one inside the other"), case_house(tmp_path, site=site, state=state):
            pass
    with case_house(tmp_path / "h", staging=tmp_path / "h" / "site" / "staging") as house:
        (standing,) = house.core.describe().capabilities.workspaces
        assert (standing.ladder_level.name, "inside" in standing.limitation) == ("L0", True)
        assert names_in(house.site) == []


@case("X08")
def test_staging_on_another_file_system_makes_the_workspace_read_only(tmp_path: Path) -> None:
    """Nothing could be switched atomically then: changes are refused with the remedy, reading works."""
    elsewhere = Path(f"/dev/shm/gonogo-case-{os.getpid()}")
    if Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("this machine has no second file system to stage on")
    try:
        with case_house(tmp_path, staging=elsewhere) as house:
            (standing,) = house.core.describe().capabilities.workspaces
            assert standing.ladder_level.name == "L0"
            assert "file system" in standing.limitation
            with pytest.raises(Exception, match="only be read"):
                house.tried(created("new"))
            assert house.worked(listed(".")).report.ladder_level == plan_pb2.LADDER_LEVEL_L0
    finally:
        if elsewhere.exists():
            elsewhere.rmdir()


@case("X09")
@pytest.mark.parametrize("pattern", ["../**", "/etc/**", "a/../../**"])
def test_a_scope_can_not_be_widened(filled: CaseHouse, pattern: str) -> None:
    """Patterns that climb or are absolute are refused; they never match anything outside."""
    with pytest.raises(Exception, match="pattern") as caught:
        filled.tried(written("file"), scope=plan_pb2.Scope(paths=[pattern]))
    assert isinstance(caught.value, RequestMalformedError) or caught.value.fault.reason == "PATH_INVALID"  # type: ignore[attr-defined]  # an executor's error
