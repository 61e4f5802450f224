import os
from collections.abc import Sequence
from typing import TextIO

from client.diffs import FileDiff
from client.render.reports import MARKS
from gonogo.safe_text import safe_line

RESET = "\x1b[0m"
COLOURS = {"+": "\x1b[32m", "-": "\x1b[31m", "@": "\x1b[36m"}


def diffs_text(diffs: Sequence[FileDiff], *, coloured: bool) -> str:
    """Return diffs one below the other."""
    parts: list[str] = []
    for diff in diffs:
        title = f"{MARKS[diff.change.kind]} {safe_line(diff.change.shown_path)}"
        parts.append(f"{title}  ({diff.note})" if diff.note else title)
        parts += [_coloured(line) if coloured else line for line in diff.lines]
    return "\n".join(parts)


def wants_colour(stream: TextIO) -> bool:
    """Tell whether a person looks at the stream and has not asked for plain text."""
    return stream.isatty() and not os.environ.get("NO_COLOR")


def _coloured(line: str) -> str:
    colour = COLOURS.get(line[:1])
    return f"{colour}{line}{RESET}" if colour else line
