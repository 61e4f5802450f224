"""Sweeps a house's state, and dies by SIGKILL in front of the Nth call of one kind, its argument says which."""

import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from tests.unit.executor.undo_house import UndoHouse

left = int(sys.argv[3])


def die_at_last(*_: object) -> None:
    """Count one call, and die at the last."""
    global left  # noqa: PLW0603 - a hook has no other place for it
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)


def counted(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that counts itself first."""

    def run(*arguments: Any, **named: Any) -> Any:
        die_at_last()
        return call(*arguments, **named)

    return run


house = UndoHouse(Path(sys.argv[1]))
if sys.argv[2] == "unlink":
    sys.addaudithook(lambda event, _: die_at_last() if event == "os.remove" else None)
else:
    setattr(house.ledger, sys.argv[2], counted(getattr(house.ledger, sys.argv[2])))
house.retention(young=timedelta(0)).sweep(seconds=60)
