"""Small files that are there as a whole after a crash, or not at all."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write_durably(place: Path, value: Mapping[str, Any]) -> None:
    """Write a small file so that after a crash it is there as a whole, or not at all."""
    beside = place.with_name(f".{place.name}.new")
    with beside.open("wb") as file:
        file.write(json.dumps(value, sort_keys=True, separators=(",", ":")).encode())
        file.flush()
        os.fsync(file.fileno())
    beside.replace(place)
    folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
