"""Times as the domain has them, as messages carry them, and as ProtoJSON writes them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from orchestrator.adapters.contract_errors import contract_error

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY: Final = 86_400
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3}|\.\d{6})?Z")


def time_to_proto(time: datetime) -> Timestamp:
    """Return a time as the contract carries it."""
    return Timestamp(**time_parts(time))


def time_parts(time: datetime) -> dict[str, int]:
    """Return what a time of the contract is made of."""
    since = time - _EPOCH
    return {"seconds": since.days * _DAY + since.seconds, "nanos": since.microseconds * 1000}


def time_from_proto(time: Timestamp) -> datetime:
    """Return a time of the contract, in whole microseconds."""
    try:
        return _EPOCH + timedelta(seconds=time.seconds, microseconds=time.nanos // 1000)
    except OverflowError:
        raise contract_error("a time is out of range") from None


def time_text(time: datetime) -> str:
    """Return a time in ProtoJSON's form: no, three or six digits of a second."""
    text = time.isoformat(timespec="microseconds")[:26]
    if text.endswith("000000"):
        return text[:19] + "Z"
    return (text[:23] if text.endswith("000") else text) + "Z"


def time_of_text(text: str) -> datetime:
    """Read a time that `time_text` wrote."""
    if not _TIME.fullmatch(text):
        raise contract_error(f"{text!r} is no time")
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise contract_error(f"{text!r} is no time") from None
