"""Numbers, modes and times that the contract carries as text or stamps, and how one that is none of them is refused."""

import re
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from executor.domain.errors import RequestMalformedError

_MODE: Final = re.compile(r"[0-7]{3,4}", re.ASCII)
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


def time_from_proto(message: Any, field: str) -> datetime:
    """Return a time that must be there, in UTC."""
    if not message.HasField(field):
        raise invalid(f"{field} is missing", "set it")
    stamp: Timestamp = getattr(message, field)
    return stamp.ToDatetime(tzinfo=UTC)


def number_from_text(text: str, what: str) -> int:
    """Return a whole number that the contract carries as decimal text."""
    if not _NUMBER.fullmatch(text):
        raise invalid(f"{what} is not a whole number: {text[:40]!r}", "write it in decimal digits")
    return int(text)


def mode_from_text(text: str) -> int:
    """Return permission bits that the contract carries as octal text."""
    if not _MODE.fullmatch(text):
        raise invalid(f"mode {text[:40]!r} is not octal", "write permission bits as 0644")
    return int(text, 8)


def invalid(message: str, remedy: str) -> RequestMalformedError:
    """Return the refusal of a document in which a value has no meaning."""
    return RequestMalformedError("PLAN_INVALID", message, remedy)
