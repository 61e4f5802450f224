"""An editor in a process of its own: saves what it is told, where and after how long a moment.

A save is told as a line of JSON, and answered by one once it is made.
"""

import json
import os
import sys
import time
from pathlib import Path

HELD_SECONDS = 0.002


def wait(seconds: float) -> None:
    """Let time go by; a sleep would be too coarse to hit what lasts microseconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def save_in_place(path: Path, data: bytes, beside: Path, held: float = 0.0) -> bool:
    """Write over the old bytes; only where there is a file."""
    del beside
    try:
        fd = os.open(path, os.O_WRONLY)
    except FileNotFoundError:
        return False
    try:
        wait(held)
        os.pwrite(fd, data, 0)
    finally:
        os.close(fd)
    return True


def save_held_open(path: Path, data: bytes, beside: Path) -> bool:
    """Write over the old bytes of a file that has been open for a while."""
    return save_in_place(path, data, beside, HELD_SECONDS)


def save_beside(path: Path, data: bytes, beside: Path) -> bool:
    """Write a new file and rename it onto the old one, as careful editors do."""
    beside.write_bytes(data)
    try:
        beside.rename(path)
    except FileNotFoundError:
        return False
    return True


HOWS = {"in place": save_in_place, "held open": save_held_open, "beside": save_beside}


def main(place: Path) -> None:
    """Save until nobody wants more."""
    for line in sys.stdin:
        told = json.loads(line)
        wait(told["wait"])
        saved = HOWS[told["how"]](place / "site" / told["name"], told["text"].encode(), place / "saving")
        print(json.dumps(saved), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main(Path(sys.argv[1]))
