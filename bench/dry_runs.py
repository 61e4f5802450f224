"""Dry runs by a real executor process, from the call to the signed report, on workspaces of 1,000 to 100,000 files.

The floor of a command's dry run is what it can not do without: a bare sandbox on the same overlay that runs the same
command, and two walks of the workspace by find, which tell whether anybody else changed something meanwhile.
"""

import subprocess
import tempfile
from itertools import count
from pathlib import Path

from bench.executor import BenchedExecutor, running_executor
from bench.measure import Compared, interleaved, note, seconds, tell_ratio
from bench.trees import a_file, make_tree
from gonogo.v1 import plan_pb2

SIZES = {1_000: 15, 10_000: 11, 100_000: 5}
MARK = 2.0
FLAT_ROUNDS = 25
FLAT_MARK = 1.3
# $1 workspace: an overlay with its upper layer on a tmpfs, and bubblewrap on it.
BARE = """
mount -t tmpfs tmpfs /mnt && mkdir /mnt/upper /mnt/work /mnt/merged &&
mount -t overlay -o "lowerdir=$1,upperdir=/mnt/upper,workdir=/mnt/work,userxattr" overlay /mnt/merged &&
exec bwrap --unshare-all --die-with-parent --ro-bind / / --dev /dev --proc /proc --bind /mnt/merged "$1" true
"""
FACTS = r"%P %y %m %i %s %T@ %C@\n"


def main() -> None:
    """Measure commands on all sizes, and typed steps on the largest against the smallest."""
    with tempfile.TemporaryDirectory(prefix="gonogo-bench-") as made:
        folder = Path(made).resolve()
        roots = {}
        for size in SIZES:
            note(f"making {size} files")
            roots[f"w{size}"] = make_tree(folder / f"w{size}", size)
        with running_executor(folder, roots) as executor:
            for size, rounds in SIZES.items():
                name = f"w{size}"
                tell_ratio(f"command_dry_run_{size}_files", _command(executor, name, roots[name], rounds), MARK)
            large, small = max(SIZES), min(SIZES)
            typed = _typed(executor, f"w{large}", f"w{small}")
            tell_ratio(f"typed_dry_run_{large}_against_{small}_files", typed, FLAT_MARK)


def _command(executor: BenchedExecutor, name: str, root: Path, rounds: int) -> Compared:
    step = plan_pb2.Step(step_id="run", stage=plan_pb2.STAGE_EDIT, run_command=plan_pb2.RunCommand(argv=["true"]))
    return interleaved(lambda: executor.seconds_of_dry_run(name, step), lambda: seconds(lambda: _bare(root)), rounds)


def _bare(root: Path) -> None:
    find = ["find", str(root), "-printf", FACTS]
    subprocess.run(find, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", BARE, "sh", str(root)], check=True)
    subprocess.run(find, check=True, stdout=subprocess.DEVNULL)


def _typed(executor: BenchedExecutor, large: str, small: str) -> Compared:
    numbers = count()

    def steps() -> list[plan_pb2.Step]:
        number = next(numbers)
        return [
            plan_pb2.Step(step_id="s1", stage=plan_pb2.STAGE_RETRIEVE, read_file=plan_pb2.ReadFile(path=a_file(7))),
            plan_pb2.Step(
                step_id="s2",
                stage=plan_pb2.STAGE_EDIT,
                write_file=plan_pb2.WriteFile(path=a_file(number), content=f"{number}\n"),
            ),
            plan_pb2.Step(
                step_id="s3",
                stage=plan_pb2.STAGE_EDIT,
                create_file=plan_pb2.CreateFile(path=f"new-{number}", content=f"{number}\n"),
            ),
        ]

    return interleaved(
        lambda: executor.seconds_of_dry_run(large, *steps()),
        lambda: executor.seconds_of_dry_run(small, *steps()),
        FLAT_ROUNDS,
    )


if __name__ == "__main__":
    main()
