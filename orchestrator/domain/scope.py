"""Which paths a scope covers.

Patterns are matched over whole paths relative to the workspace. `*` and `?` stay inside one name, `**` as a whole
component stands for any number of components, none included, so that `docs/**` covers `docs` and all that it holds.
Every other character stands for itself.

Who proposes writes the patterns, and everybody waits while they are matched. Between two wildcards the leftmost place
is as good as any later one, so nothing that matched is ever tried at another place (atomic groups): no pattern takes
longer than its length times the path's.
"""

import re
from collections.abc import Iterable


def pattern_of(globs: Iterable[str]) -> re.Pattern[str] | None:
    """Return what matches the paths that the globs cover, or None where there are none: the whole workspace."""
    alternatives = [_translated(glob) for glob in globs]
    return re.compile("|".join(alternatives), re.DOTALL) if alternatives else None


def _translated(glob: str) -> str:
    first, *others = _groups(glob.split("/"))
    if not others:
        return "/".join(first)
    leading = "".join(f"{name}/" for name in first)
    *middle, last = others
    found = [f"(?:[^/]+/)*?{'/'.join(group)}" for group in middle if group]
    if last:
        return leading + "".join(f"(?>{one}/)" for one in found) + f"(?:[^/]+/)*{'/'.join(last)}"
    if not found:
        return f"{leading.removesuffix('/')}(?:/.*)?" if leading else ".*"
    return leading + "".join(f"(?>{one}/)" for one in found[:-1]) + f"(?>{found[-1]}(?:/.*|\\Z))"


def _groups(names: Iterable[str]) -> list[list[str]]:
    """Return the expressions of the names, divided where a `**` stands."""
    groups: list[list[str]] = [[]]
    for name in names:
        if name == "**":
            groups.append([])
        else:
            groups[-1].append(_name(name))
    return groups


def _name(part: str) -> str:
    first, *others = ["".join("[^/]" if one == "?" else re.escape(one) for one in piece) for piece in part.split("*")]
    if not others:
        return first
    middle = "".join(f"(?>[^/]*?{piece})" for piece in others[:-1] if piece)
    return f"{first}{middle}[^/]*{others[-1]}"
