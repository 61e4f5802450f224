"""The dry run of a command by the executor's own simulator, against a bare bubblewrap that runs the same command."""

import subprocess
import tempfile
from pathlib import Path

from bench.measure import interleaved, seconds, tell
from executor.domain.report import ReportStatus
from tests.unit.executor.plan_house import command, plan_house

BARE = [
    "bwrap",
    "--ro-bind",
    "/",
    "/",
    "--unshare-all",
    "--dev",
    "/dev",
    "--proc",
    "/proc",
    "--die-with-parent",
    "true",
]
ROUNDS = 25
FILES = 100


def main() -> None:
    """Measure a plan of one command, `true`, on 100 files: overlay, sandbox, change set, both manifests."""
    with tempfile.TemporaryDirectory(prefix="gonogo-bench-") as folder, plan_house(Path(folder).resolve()) as house:
        for number in range(FILES):
            (house.root / f"f{number}").write_text("x" * 1000)
        plan = house.plan(command("true"))

        def ours() -> None:
            found = house.simulate(plan)
            if found.status is not ReportStatus.SUCCESS:
                message = f"true was {found.status.value}: {found.problems}"
                raise RuntimeError(message)

        compared = interleaved(
            lambda: seconds(ours),
            lambda: seconds(lambda: subprocess.run(BARE, check=True)),
            ROUNDS,
        )
    tell(
        "command_dry_run",
        seconds=sorted(compared.subject)[ROUNDS // 2],
        bare_bwrap_seconds=sorted(compared.floor)[ROUNDS // 2],
        times_the_floor=compared.times_the_floor,
    )


if __name__ == "__main__":
    main()
