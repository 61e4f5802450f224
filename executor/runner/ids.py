"""Ids that sort by the time they were made: eleven hex digits of milliseconds, then nine random ones."""

import os
import time

NANOSECONDS = 1_000_000
RANDOM_DIGITS = 9
RANDOM_BYTES = 5


def new_id(prefix: str) -> str:
    """Return a new id such as ``x-019db1c5d2e…``."""
    return f"{prefix}-{time.time_ns() // NANOSECONDS:011x}{os.urandom(RANDOM_BYTES).hex()[:RANDOM_DIGITS]}"
