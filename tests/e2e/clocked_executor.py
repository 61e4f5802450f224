"""The executor's own program on a machine whose clock somebody sets: the first argument names a file with seconds.

Everything else is `python -m executor`: the same options, the same process.
"""

import os
import runpy
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path


def main() -> None:
    """Put the clock in its place and go on as the executor."""
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # as its own program does before anything imports gRPC
    from executor.runner import clock

    file = Path(sys.argv.pop(1))

    def wall() -> datetime:
        return datetime.now(UTC) + timedelta(seconds=float(file.read_text()))

    clock.EffectiveClock.__init__.__defaults__ = (wall,)
    runpy.run_module("executor", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
