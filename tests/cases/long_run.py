"""Runs a command or a test run that takes a minute, until it is killed: `FOLDER STAGE MARK`."""

import sys
from pathlib import Path

from tests.cases.case_house import case_house, checked, shell

SLEEPERS = "trap '' TERM; for i in 1 2; do setsid nohup sleep {mark} >/dev/null 2>&1 & done; sleep {mark}"


def main(folder: Path, stage: str, mark: str) -> None:
    """Be long in a dry run, or in the execution of a test run that was short in its dry run."""
    with case_house(folder) as house:
        sleepers = SLEEPERS.format(mark=mark)
        if stage == "dry run":
            house.tried(shell(sleepers), seconds=60)
            return
        tried = house.worked(checked(f"test ! -e {house.tools}/on || {{ {sleepers}; }}"), seconds=60)
        (house.tools / "on").touch()
        house.execute(tried)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
