"""Glob patterns over paths of a workspace.

A pattern is matched against the whole path, from the root of the workspace on. ``*``, ``?`` and ``[...]`` stay inside
one component; a component that is ``**`` stands for any number of components, none included. A pattern that ends in
``/**`` matches everything beneath the directory and the directory itself, so that a plan with the scope ``docs/**``
may create ``docs`` first. A backslash is an ordinary character. A name's bytes that are not UTF-8 count as one
character each.
"""

import re
from collections.abc import Iterable

from executor.workspace.paths import PathInvalidError

MAX_PATTERNS = 1000
MAX_PATTERN = 1024

_ANY = "**"


class Globs:
    """A set of patterns, compiled once. No pattern matches nothing.

    Raises:
        PathInvalidError: a pattern is absolute, empty, too long, has ``..`` or an unclosed ``[``.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(patterns)
        if len(self.patterns) > MAX_PATTERNS:
            raise PathInvalidError(self.patterns[0], f"one of more than {MAX_PATTERNS} patterns")
        alternatives = "|".join(_pattern_regex(pattern) for pattern in self.patterns)
        self._regex = re.compile(f"(?:{alternatives})", re.DOTALL) if self.patterns else None
        self._beneath = re.compile(f"(?:{alternatives})(?:/.*)?", re.DOTALL) if self.patterns else None

    def __bool__(self) -> bool:
        return self._regex is not None

    def matches(self, path: bytes) -> bool:
        """Tell whether one of the patterns matches the path."""
        if self._regex is None:
            return False
        return self._regex.fullmatch(path.decode("utf-8", "surrogateescape")) is not None

    def covers(self, path: bytes) -> bool:
        """Tell whether one of the patterns matches the path or a directory above it."""
        if self._beneath is None:
            return False
        return self._beneath.fullmatch(path.decode("utf-8", "surrogateescape")) is not None


def _pattern_regex(pattern: str) -> str:
    names = pattern.removeprefix("./").split("/")
    if len(pattern) > MAX_PATTERN or "" in names or ".." in names:
        raise PathInvalidError(pattern, "a pattern is relative, has no '..' and no empty component, and is short")
    groups = _groups(names)
    if len(groups) == 1:
        return "/".join(groups[0])
    # Between two `**` the leftmost place is as good as any later one, so nothing is ever tried twice (atomic
    # groups): a hostile pattern costs no more than the pattern's length times the path's.
    first = "".join(name + "/" for name in groups[0])
    middle = "".join(f"(?>(?:[^/]+/)*?{'/'.join(group)}/)" for group in groups[1:-1] if group)
    if groups[-1]:
        return f"{first}{middle}(?:[^/]+/)*{'/'.join(groups[-1])}"
    return _whole_directory(first + middle)


def _whole_directory(prefix: str) -> str:
    """Return the expression for a directory and everything beneath it."""
    if not prefix:
        return ".*"
    if prefix.endswith("/)"):
        return f"{prefix[:-2]}(?:/.*|\\Z))"
    return f"{prefix[:-1]}(?:/.*)?"


def _groups(names: list[str]) -> list[list[str]]:
    """Return the components' expressions, divided where a `**` stands."""
    groups: list[list[str]] = [[]]
    for name in names:
        if name == _ANY:
            groups.append([])
        else:
            groups[-1].append(_name_regex(name))
    return groups


def _name_regex(name: str) -> str:
    """Return the expression for one component; as between `**`, the leftmost match between two `*` is enough."""
    pieces = [""]
    position = 0
    while position < len(name):
        character = name[position]
        if character == "*":
            pieces.append("")
            position += 1
            continue
        piece, position = _class_regex(name, position) if character == "[" else (_one(character), position + 1)
        pieces[-1] += piece
    if len(pieces) == 1:
        return pieces[0]
    middle = "".join(f"(?>[^/]*?{piece})" for piece in pieces[1:-1] if piece)
    some = "(?=[^/])" if not pieces[0] else ""
    return f"{some}{pieces[0]}{middle}[^/]*{pieces[-1]}"


def _one(character: str) -> str:
    return "[^/]" if character == "?" else re.escape(character)


def _class_regex(name: str, start: int) -> tuple[str, int]:
    """Return the expression of a character class, and the position behind it."""
    first = start + 1
    negated = name[first : first + 1] in {"!", "^"}
    begin = first + 1 if negated else first
    end = name.find("]", begin + 1)
    if end < 0:
        raise PathInvalidError(name, "a '[' in a pattern is not closed")
    members = re.sub(r"([\\\[\]^&~|])", r"\\\1", name[begin:end])
    body = f"(?!/)[{'^' if negated else ''}{members}]"
    try:
        re.compile(body)
    except re.error:
        raise PathInvalidError(name, "a character class in a pattern is not well formed") from None
    return body, end + 1
