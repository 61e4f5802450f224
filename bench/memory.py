"""The memory of the executor process over a whole mission whose one command writes a GiB."""

import tempfile
from pathlib import Path

from bench.executor import running_executor
from bench.measure import tell
from gonogo.v1 import plan_pb2

BYTES = 1 << 30
MARK_MIB = 200


def main() -> None:
    """Dry-run, approve and execute it; read the process's peak afterwards."""
    script = f"yes 'all work and no play' | head -c {BYTES} > big"
    command = plan_pb2.RunCommand(argv=["sh", "-c", script])
    step = plan_pb2.Step(step_id="big", stage=plan_pb2.STAGE_EDIT, run_command=command)
    with tempfile.TemporaryDirectory(prefix="gonogo-bench-") as made:
        folder = Path(made).resolve()
        (folder / "work").mkdir()
        with running_executor(folder, {"work": folder / "work"}) as executor:
            began = executor.peak_mib()
            executor.seconds_of_execution("work", step)
            tell("executor_memory_1_gib_change", mib=executor.peak_mib(), at_start_mib=began, asked=MARK_MIB)


if __name__ == "__main__":
    main()
