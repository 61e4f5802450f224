"""Missions of many steps: what a step costs must not grow with how many there were before it."""

import tempfile
from itertools import count
from pathlib import Path

from bench.executor import BenchedExecutor, running_executor
from bench.files import CONTENT, files_floor
from bench.measure import Compared, interleaved, median, note, tell_ratio
from bench.trees import make_tree
from gonogo.v1 import plan_pb2

TREE = 1_000
TYPED_STEPS = 100
TYPED_ROUNDS = 9
TYPED_MARK = 5.0
FEW, MANY = 10, 100
COMMAND_ROUNDS = 5
COMMAND_MARK = 1.0
CHANGES_MARK = 1.5
CHANGED = 1_000


def main() -> None:
    """Measure the execution of typed steps, and the dry run of commands."""
    with tempfile.TemporaryDirectory(prefix="gonogo-bench-") as made:
        folder = Path(made).resolve()
        roots = {"empty": folder / "empty", "tree": make_tree(folder / "tree", TREE)}
        roots["empty"].mkdir()
        with running_executor(folder, roots) as executor:
            note(f"{TYPED_STEPS} one-file steps")
            tell_ratio(f"execution_of_{TYPED_STEPS}_one_file_steps", _typed(executor, folder), TYPED_MARK)
            note(f"{MANY} commands against {FEW}")
            tell_ratio(f"command_step_of_{MANY}_against_{FEW}", _commands(executor), COMMAND_MARK)
            note(f"commands on {CHANGED} changed files")
            tell_ratio(f"command_step_on_{CHANGED}_changes_against_1", _on_changes(executor), CHANGES_MARK)


def _typed(executor: BenchedExecutor, folder: Path) -> Compared:
    rounds = count()

    def execute() -> float:
        number = next(rounds)
        return executor.seconds_of_execution("empty", *(_created(f"{number}-{one}") for one in range(TYPED_STEPS)))

    return interleaved(execute, files_floor(folder, TYPED_STEPS), TYPED_ROUNDS)


def _commands(executor: BenchedExecutor) -> Compared:
    """Compare one step's share, without what the dry run costs anyway, when there are many and when there are few."""
    one = [executor.seconds_of_dry_run("tree", *_writing(1)) for _ in range(COMMAND_ROUNDS)]
    share = {FEW: list[float](), MANY: list[float]()}
    for _ in range(COMMAND_ROUNDS):
        for steps, shares in share.items():
            shares.append((executor.seconds_of_dry_run("tree", *_writing(steps)) - median(one)) / (steps - 1))
    return Compared(subject=share[MANY], floor=share[FEW])


def _on_changes(executor: BenchedExecutor) -> Compared:
    """Compare what commands that change nothing add after one that made many files, and after one that made one."""
    added = {CHANGED: list[float](), 1: list[float]()}
    for _ in range(COMMAND_ROUNDS):
        for files, seconds in added.items():
            first = _shell("made", f"for i in $(seq {files}); do echo $i > made-$i; done")
            more = [_shell(f"after-{number}", "true") for number in range(FEW)]
            alone = executor.seconds_of_dry_run("tree", first)
            seconds.append((executor.seconds_of_dry_run("tree", first, *more) - alone) / FEW)
    return Compared(subject=added[CHANGED], floor=added[1])


def _writing(steps: int) -> list[plan_pb2.Step]:
    return [_shell(f"s{number}", f"echo {number} > new-{number}") for number in range(steps)]


def _shell(step_id: str, script: str) -> plan_pb2.Step:
    command = plan_pb2.RunCommand(argv=["sh", "-c", script])
    return plan_pb2.Step(step_id=step_id, stage=plan_pb2.STAGE_EDIT, run_command=command)


def _created(path: str) -> plan_pb2.Step:
    create = plan_pb2.CreateFile(path=path, content=CONTENT.decode())
    return plan_pb2.Step(step_id=f"s-{path}", stage=plan_pb2.STAGE_EDIT, create_file=create)


if __name__ == "__main__":
    main()
