"""Plain columns and fields. Nothing is cut silently: what is left out is said."""

from collections.abc import Iterable, Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from gonogo.safe_text import excerpt, safe_line

SHORT_DIGEST = len("sha256:") + 12
REASON_CHARACTERS = 400


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return rows under headers; every cell is made safe here."""
    lines = [tuple(headers), *(tuple(safe_line(cell) for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def fields(pairs: Iterable[tuple[str, str]]) -> str:
    """Return names and values, empty values left out; every value is made safe here."""
    kept = [(name, safe_line(value)) for name, value in pairs if value]
    width = max((len(name) for name, _ in kept), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in kept)


def indented(text: str, by: str = "  ") -> str:
    """Return the lines moved to the right."""
    return "\n".join(by + line if line else "" for line in text.split("\n"))


def short_digest(text: str) -> str:
    """Return the beginning of a digest, or a dash."""
    return text[:SHORT_DIGEST] or "-"


def shortened(text: str) -> str:
    """Return a reason that somebody gave as one wants to read it on a terminal; in full it is in the JSON form."""
    return excerpt(text, REASON_CHARACTERS)


def when(time: Timestamp) -> str:
    """Return a time to the second, empty where it is unset."""
    if not time.seconds and not time.nanos:
        return ""
    return f"{time.ToDatetime():%Y-%m-%d %H:%M:%S}Z"


def byte_count(size: int | None) -> str:
    """Return a length in words."""
    return "-" if size is None else f"{size:,} bytes"
