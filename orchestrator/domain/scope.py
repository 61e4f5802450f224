"""Which paths a scope covers.

Patterns are matched over whole paths relative to the workspace. `*` and `?` stay inside one name, `**` as a whole
component stands for any number of components, none included, so that `docs/**` covers `docs` and all that it holds.
Every other character stands for itself.
"""

import re
from collections.abc import Iterable


def pattern_of(globs: Iterable[str]) -> re.Pattern[str] | None:
    """Return what matches the paths that the globs cover, or None where there are none: the whole workspace."""
    alternatives = [_translated(glob) for glob in globs]
    return re.compile("|".join(alternatives)) if alternatives else None


def _translated(glob: str) -> str:
    if glob == "**":
        return ".*"
    leading, *rest = glob.split("/")
    text = "(?:[^/]+/)*" if leading == "**" else _name(leading)
    joined = leading == "**"
    for position, part in enumerate(rest):
        last = position == len(rest) - 1
        if part != "**":
            text += ("" if joined else "/") + _name(part)
            joined = False
        elif last:
            text += ".*" if joined else "(?:/.*)?"
        else:
            text += "(?:[^/]+/)*" if joined else "/(?:[^/]+/)*"
            joined = True
    return f"(?s:{text})"


def _name(part: str) -> str:
    pieces = {"*": "[^/]*", "?": "[^/]"}
    return "".join(pieces.get(character) or re.escape(character) for character in part)
