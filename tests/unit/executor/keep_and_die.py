"""Starts a program that keeps running and dies at a moment of its choice, as an executor does that is killed.

keep_and_die.py FOLDER MOMENT ACCESS SCRIPT
"""

import os
import signal
import sys
import threading
from pathlib import Path

from executor.domain.plan import LiveAccess
from executor.outside.readiness import Readiness
from executor.outside.supervised import Supervised
from tests.unit.executor.program_house import program_house, ready_when, shell


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    folder, moment, access, script = Path(sys.argv[1]), sys.argv[2], LiveAccess(sys.argv[3]), sys.argv[4]
    if moment == "introduced":
        Supervised.go = die  # type: ignore[method-assign,assignment]  # the moment to die
    if moment == "entered":
        Supervised.introduce = die  # type: ignore[method-assign,assignment]  # the moment to die
    if moment == "begun":
        Readiness.looks = die  # type: ignore[method-assign,assignment]  # the moment to die
    with program_house(folder) as house:
        if moment == "waiting":
            threading.Timer(1.0, die).start()
            house.perform(shell(script, access=access))
        house.perform(shell(script, access=access, keep=ready_when(output="ready")), key="x-1-s1")
        die()


if __name__ == "__main__":
    main()
