"""How far this machine can isolate what a plan wants to run.

The level is found once, by a real run, and then stands in every report and receipt. Nothing steps down silently:
what a level cannot do is refused there.
"""

import enum
import functools


@functools.total_ordering
class LadderLevel(enum.Enum):
    """Ordered: a higher level can do all that a lower one can.

    L0: reads only. L1: typed file steps on an in-memory tree, commands refused. L2: commands on a private copy of the
    workspace. L3: commands on a copy-on-write view of the workspace at its own path.
    """

    L0 = 0
    L1 = 1
    L2 = 2
    L3 = 3

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, LadderLevel):
            return NotImplemented
        return self.value < other.value

    @property
    def runs_commands(self) -> bool:
        return self >= LadderLevel.L2
