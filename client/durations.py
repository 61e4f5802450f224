"""Lengths of time as people write them."""

import re
from datetime import timedelta

from client.errors import ClientError

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
LONGEST = timedelta(days=36_500)
"""A hundred years: what is longer was mistyped, and leads out of the calendar."""
_FORM = re.compile(r"([1-9][0-9]{0,6})([smhd])", re.ASCII)


def parse_duration(text: str) -> timedelta:
    """Read a length of time such as ``90s``, ``15m``, ``1h`` or ``2d``.

    Raises:
        ClientError: it is not one.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        raise ClientError("USAGE", f"{text!r} is no length of time", "write a number and a unit: 90s, 15m, 1h, 2d")
    found = timedelta(seconds=int(match[1]) * UNITS[match[2]])
    if found > LONGEST:
        raise ClientError("USAGE", f"{text} is too long", f"write at most {LONGEST.days}d")
    return found


def duration_text(seconds: int) -> str:
    """Write whole seconds as `parse_duration` reads them, in the largest unit that they fill."""
    unit = max((name for name, length in UNITS.items() if seconds % length == 0), key=UNITS.__getitem__)
    return f"{seconds // UNITS[unit]}{unit}"
