"""Executes the request that `store` wrote on the state directory of a case house, in a process that may be killed.

execute_stored.py FOLDER
"""

import pickle
import sys
from pathlib import Path

from executor.runner.requests import ExecuteInput
from tests.cases.case_house import case_house

STORED = "request.pickle"


def store(folder: Path, request: ExecuteInput) -> None:
    (folder / STORED).write_bytes(pickle.dumps(request))


def main(folder: Path) -> None:
    """Open the executor and execute, in this thread."""
    request = pickle.loads((folder / STORED).read_bytes())
    with case_house(folder) as house:
        (folder / "began").touch()
        house.execute(request)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
