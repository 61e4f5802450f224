"""Ids that sort by the time they were made."""

import secrets
import time
from typing import Final

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: in ASCII order, no letter that looks like another
_LENGTH: Final = 20
_RANDOM_BITS: Final = 52


class TimeOrderedIds:
    """`Ids` of 48 bits of milliseconds and 52 random bits, five bits to a character."""

    def new(self, prefix: str) -> str:
        number = (time.time_ns() // 1_000_000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
        return prefix + "".join([_ALPHABET[number >> shift & 31] for shift in range(5 * (_LENGTH - 1), -1, -5)])
