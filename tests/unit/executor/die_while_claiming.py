"""Claims missions until the process dies in the middle of writing the anchor, after a number of whole writes.

Usage: die_while_claiming.py DIRECTORY WRITES MOMENT, where MOMENT is "before" or "torn".
"""

import os
import sys
from itertools import count
from pathlib import Path

from executor.adapters.anchor import SLOT_BYTES, SLOTS, Anchor
from executor.domain.anchoring import Anchored
from tests.unit.executor.audit_house import LogHouse


def main(directory: Path, writes: int, moment: str) -> None:
    """Claim, wait for the anchor as an execution does, and leave a mark where an effect would have been."""
    whole = Anchor._stored
    seen = count()

    def dying(self: Anchor, number: int, state: Anchored | None) -> bool:
        if next(seen) < writes:
            return whole(self, number, state)
        if moment == "torn":
            os.pwrite(self._fd, b'{"check":"', number % SLOTS * SLOT_BYTES)
        os._exit(9)

    Anchor._stored = dying  # type: ignore[method-assign]  # the moment to die
    house = LogHouse(directory)
    (directory / "key").write_bytes(house.key.private_bytes())
    for number in count(1):
        house.claim(number)
        house.anchor.settle()
        (directory / "effects" / str(number)).touch()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
