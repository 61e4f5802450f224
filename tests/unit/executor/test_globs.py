"""Glob patterns: what they match, what is refused, and that no pattern is expensive."""

import time

import pytest

from executor.workspace.globs import Globs
from executor.workspace.paths import PathInvalidError


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("docs/**", b"docs", True),
        ("docs/**", b"docs/a/b", True),
        ("docs/**", b"docsx", False),
        ("docs", b"docs/a", False),
        ("**", b".", True),
        ("**", b"a/b", True),
        ("**/x", b"x", True),
        ("**/x", b"a/b/x", True),
        ("**/x", b"a/bx", False),
        ("a/**/b", b"a/b", True),
        ("a/**/b", b"a/c/d/b", True),
        ("**/a/**/b/**/c", b"a/y/b/z/z/c", True),
        ("**/__pycache__/**", b"__pycache__x/__pycache__/f", True),
        ("**/__pycache__/**", b"a/__pycache__x/f", False),
        ("*.py", b"a.py", True),
        ("*.py", b"d/a.py", False),
        ("*", b"not\xffutf8", True),
        ("*", b"line\nfeed", True),
        ("?", b"\xff", True),
        ("?", "é".encode(), True),
        ("a?b", b"a/b", False),
        ("[!a]b", b"cb", True),
        ("a[!x]b", b"a/b", False),
        ("[a-c]x", b"bx", True),
        ("back\\slash", b"back\\slash", True),
        ("./a", b"a", True),
        ("a*a", b"a", False),
        ("*a*b", b"xaybzb", True),
        ("a.b", b"axb", False),
    ],
)
def test_matching(pattern: str, path: bytes, expected: bool) -> None:
    """`*` stays inside one component, `**` crosses them, and `dir/**` matches the directory too."""
    assert Globs([pattern]).matches(path) is expected


def test_no_pattern_matches_nothing() -> None:
    """An empty set of patterns matches nothing, and says so when asked for its truth."""
    assert not Globs([])
    assert not Globs([]).matches(b"a")
    assert not Globs([]).covers(b"a")


@pytest.mark.parametrize(
    ("path", "expected"), [(b"secrets", True), (b"secrets/a/b", True), (b"x/k.pem/y", True), (b"secretsx", False)]
)
def test_what_is_beneath_a_match_is_covered(path: bytes, expected: bool) -> None:
    """A pattern that matches a directory covers everything beneath it."""
    assert Globs(["secrets", "**/*.pem"]).covers(path) is expected


@pytest.mark.parametrize("pattern", ["", "/etc", "a/../b", "a//b", "docs/", "[a", "a[z-a]", "x" * 2000])
def test_malformed_patterns_are_refused(pattern: str) -> None:
    """A pattern that could be read in two ways is an error, never a pattern that matches nothing."""
    with pytest.raises(PathInvalidError):
        Globs([pattern])


def test_hostile_patterns_are_cheap() -> None:
    """A pattern made to backtrack costs milliseconds."""
    globs = Globs(["/".join(["**", "a*a*a*a*a*b"] * 20)])
    started = time.perf_counter()
    assert not globs.matches(b"/".join([b"a" * 200] * 20))
    assert not globs.covers(b"/".join([b"a" * 200] * 20))
    assert time.perf_counter() - started < 0.5
