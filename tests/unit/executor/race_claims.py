"""Claims the missions m-0 to m-299 on a ledger that another process claims from too; prints the numbers it won."""

import json
import sys
import time
from pathlib import Path

from executor.adapters.ledger_sqlite import SqliteLedger
from tests.conformance.ledger_values import PLAN, claim, request

COUNT = 300
SLOT_NANOSECONDS = 6_000_000


def main(directory: Path, name: str) -> None:
    """Wait for the starting shot, then claim everything, each mission at its own moment."""
    ledger = SqliteLedger(directory / "ledger.db")
    (directory / f"ready-{name}").touch()
    while not (directory / "go").exists():
        time.sleep(0.001)
    start = int((directory / "go").read_text())
    won = []
    for number in range(COUNT):
        while time.time_ns() < start + number * SLOT_NANOSECONDS:
            pass  # both begin each claim at the same moment
        mine = claim(number, execution_id=f"x-{name}-{number}")
        if ledger.claim(mine, request(f"q-{name}-{number}"), PLAN) is None:
            won.append(number)
    sys.stdout.write(json.dumps(won))
    ledger.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
