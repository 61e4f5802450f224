"""Dry-runs one command where this process has a controlling terminal, and prints what was seen: `FOLDER`."""

import os
import sys
from pathlib import Path

from tests.cases.case_house import case_house, python

SCRIPT = """
import errno, fcntl, os, termios
print('inside', os.read(0, 1))
try: os.open('/dev/tty', os.O_RDWR); print('opened')
except OSError as error: print(errno.errorcode[error.errno])
try: fcntl.ioctl(0, termios.TIOCSTI, b'x'); print('pushed')
except OSError as error: print(errno.errorcode[error.errno])
"""


def main(folder: Path) -> None:
    """Say whether there is a terminal here, what the command saw of it, and whether it typed into it."""
    os.close(os.open("/dev/tty", os.O_RDWR))
    print("terminal", os.isatty(0))  # noqa: T201 - the parent reads it
    with case_house(folder) as house:
        print(house.worked(python(SCRIPT)).said())  # noqa: T201 - the parent reads it
    os.set_blocking(0, False)
    try:
        typed = os.read(0, 1) == b"x"
    except BlockingIOError:
        typed = False
    print("pushed", typed)  # noqa: T201 - the parent reads it


if __name__ == "__main__":
    main(Path(sys.argv[1]))
