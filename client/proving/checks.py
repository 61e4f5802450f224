"""One thing that was checked, and how it came out: it holds, it does not, or what it is about is not there."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from gonogo.safe_text import excerpt

NOT_THERE = "not there"
SHOWN = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was checked."""

    name: str
    ok: bool
    detail: str = ""
    missing: bool = False
    """What it is about is not there, so that it was not checked. By itself that is no failure."""
    optional: bool = False
    """Even a complete proof may be without it."""

    def as_json(self) -> dict[str, object]:
        """Return the check as scripts read it."""
        return {"name": self.name, "ok": self.ok, "detail": self.detail}

    def demanded(self) -> "Check":
        """Return the check with what is not there counted as a failure, unless it may be left out."""
        if not self.missing or self.optional:
            return self
        return replace(self, ok=False, missing=False, detail=f"{NOT_THERE}: {self.detail}")


def check(name: str, ok: object, detail: str = "") -> Check:
    """Return what a check came to."""
    return Check(name=name, ok=bool(ok), detail=bounded(detail))


def absent(name: str, detail: str, *, optional: bool = False) -> Check:
    """Return that something could not be checked because it is not there."""
    return Check(name=name, ok=True, detail=bounded(detail), missing=True, optional=optional)


def same(name: str, left: object, right: object, detail: str = "") -> Check:
    """Check that two values are equal; where they are not, the detail shows both."""
    return check(name, left == right, detail if left == right else f"{left!r} is not {right!r}")


def guarded(name: str, values: Callable[[], tuple[object, object]]) -> Check:
    """Check that two values are equal which no dishonest document may keep from being computed."""
    try:
        left, right = values()
    except ValueError as error:  # a path, node or number that no honest document holds
        return check(name, False, str(error))
    if left == right:
        return check(name, True, left if isinstance(left, str) else "")
    shown = f"{left!r} is not {right!r}" if isinstance(left, str) and isinstance(right, str) else "they differ"
    return check(name, False, shown)


def labelled(label: str, checks: Iterable[Check]) -> Iterator[Check]:
    """Put a label before the names of checks."""
    for one in checks:
        yield replace(one, name=f"{label}{one.name}") if label else one


def bounded(text: str) -> str:
    """Return text that a report can show: what stands in documents is the writer's, not ours."""
    return excerpt(text, SHOWN)
