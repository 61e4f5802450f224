"""Ids that sort by the time they were made: eleven hex digits of milliseconds, then nine random ones."""

import secrets
import time

NANOSECONDS = 1_000_000
RANDOM_BITS = 36


def new_id(prefix: str) -> str:
    """Return a new id such as ``x-019db1c5d2e…``."""
    return f"{prefix}-{time.time_ns() // NANOSECONDS:011x}{secrets.randbits(RANDOM_BITS):09x}"
