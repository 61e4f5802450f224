"""What is tried where mounts are this process's own: `BODY FOLDER`; prints `done` when all of it holds."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from gonogo.v1 import evidence_pb2
from tests.cases.case_house import (
    BLOCKED,
    SUCCESS,
    appended,
    case_house,
    created,
    deleted,
    listed,
    moved,
    names_in,
    read,
    shell,
    tree_of,
    written,
)

NOT_DONE = {evidence_pb2.OUTCOME_ABORTED, evidence_pb2.OUTCOME_ROLLED_BACK}


def mount(*words: str | Path) -> None:
    subprocess.run(["mount", *words], check=True)


def nested_mount(folder: Path) -> None:
    """A tmpfs inside the workspace, in a folder whose name has a blank."""
    inside = folder / "site" / "in side"
    inside.mkdir(parents=True)
    mount("-t", "tmpfs", "tmpfs", inside)
    _refused_by_name(folder, inside)


def nested_bind_mount(folder: Path) -> None:
    """A folder of the same file system, bound inside the workspace."""
    inside, other = folder / "site" / "in side", folder / "other"
    inside.mkdir(parents=True)
    other.mkdir()
    mount("--bind", other, inside)
    _refused_by_name(folder, inside)


def _refused_by_name(folder: Path, inside: Path) -> None:
    (inside / "file").write_text("mounted\n")
    with case_house(folder) as house:
        found = house.tried(shell("ls -R . ; echo x > 'in side/file'"))
        assert found.report.status == BLOCKED, found.report
        assert "in side" in found.complaint, found.complaint
        for step in (
            read("in side/file"),
            written("in side/file"),
            appended("in side/file"),
            created("in side/new"),
            deleted("in side/file"),
            deleted("in side"),
            moved("in side/file", "out"),
            moved("in side", "out"),
            listed("in side"),
        ):
            tried = house.tried(step)
            if tried.report.status == SUCCESS:  # a whole mount is seen as a name only; the commit then finds it busy
                receipt = house.execute(tried)
                assert receipt.execution_status in NOT_DONE, (step, receipt)
        house.mission(created("typed"))
    assert (inside / "file").read_text() == "mounted\n"


def full_disk(folder: Path) -> None:
    """A workspace and its staging on a tiny file system that fills up between dry run and execution."""
    disk = folder / "disk"
    disk.mkdir()
    mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", disk)
    with case_house(folder, site=disk / "site", staging=disk / "staging") as house:
        (house.site / "a").write_text("old\n")
        found = house.tried(shell("head -c 200000 /dev/urandom > big; echo x >> a"), created("b"))
        assert found.report.status == SUCCESS, found.complaint
        with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            while filler.write(bytes(4096)):
                pass
        before = tree_of(house.site)
        receipt = house.execute(found)
        assert receipt.execution_status in NOT_DONE, receipt
        assert receipt.abort_reason == "STORE_FULL", receipt.abort_reason
        assert tree_of(house.site) == before
        assert [name for name in names_in(disk / "staging") if name.startswith("x-")] == []
        (disk / "filler").unlink()
        house.mission(created("c"))


def on_overlay(folder: Path) -> None:
    """A workspace and its staging on an overlay of the machine, some of whose files come from below."""
    for name in ("low/site/d", "up", "work", "disk"):
        (folder / name).mkdir(parents=True)
    for name in ("low/site/a", "low/site/b", "low/site/d/e"):
        (folder / name).write_text("old\n")
    layers = f"lowerdir={folder}/low,upperdir={folder}/up,workdir={folder}/work"
    options = layers if os.geteuid() == 0 else f"{layers},userxattr"
    mount("-t", "overlay", "overlay", "-o", options, folder / "disk")
    disk = folder / "disk"
    with case_house(folder, site=disk / "site", staging=disk / "staging") as house:
        (standing,) = house.core.describe().capabilities.workspaces
        if standing.ladder_level.name in {"L0", "L1"}:
            assert standing.limitation, standing
            return
        house.mission(appended("a"), shell("rm b; rm -r d; mkdir d; echo new > d/f"), created("c"), moved("c", "d/c"))
        assert (house.site / "a").read_text() == "old\nmore\n"
        names = sorted(str(path.relative_to(house.site)) for path in house.site.rglob("*"))
        assert names == ["a", "d", "d/c", "d/f"], names


BODIES = {one.__name__: one for one in (nested_mount, nested_bind_mount, full_disk, on_overlay)}

if __name__ == "__main__":
    BODIES[sys.argv[1]](Path(sys.argv[2]))
    print("done")  # noqa: T201 - the parent reads it
