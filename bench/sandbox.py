"""The dry run of a command through the executor's own sandbox, against a bare bubblewrap that runs the same command."""

import subprocess
import tempfile
from pathlib import Path

from bench.measure import interleaved, seconds, tell
from executor.sandbox.bubblewrap import Bubblewrap
from executor.sandbox.sandbox import CommandSpec, Limits, SessionRequest

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


def main() -> None:
    """Measure opening a session, running `true`, and closing it."""
    sandbox = Bubblewrap.on_this_machine()
    with tempfile.TemporaryDirectory(prefix="gonogo-bench-") as folder:
        request = SessionRequest(workspace=Path(folder).resolve(), workspace_id="bench", limits=Limits())

        def ours() -> None:
            with sandbox.open(request) as session:
                result = session.run(CommandSpec(argv=("true",), timeout_seconds=30))
                if result.exit_code != 0:
                    message = f"true ended with {result.exit_code}"
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
