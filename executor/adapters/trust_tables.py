"""Tables and values of the trust file, read strictly: what nobody took, or what has another type, is an error.

Nothing is guessed: an unknown key is a misspelt rule, and a misspelt rule that is skipped would be one that does not
hold. Every error names the place and what to write there.
"""

from collections.abc import Callable, Collection
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any, Final, TypeVar

from executor.domain.errors import ExecutorError
from executor.domain.plan_rules import is_identifier
from gonogo.policy import MAX_COUNT

MAX_NUMBER: Final = 2**31 - 1
MAX_BYTES: Final = 2**53
SHOWN: Final = 60

T = TypeVar("T")
D = TypeVar("D")


class TrustFileError(ExecutorError):
    """The trust file does not say in full whom to trust; its operator must change it."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__("MALFORMED", f"trust file: {message}", remedy)


class Table:
    """One table of the file, read key by key; what nobody took is an error."""

    def __init__(self, place: str, value: object) -> None:
        if not isinstance(value, dict):
            raise TrustFileError(f"{place} is not a table", "write its name in square brackets, such as [policy]")
        self.place = place
        self._left: dict[str, Any] = dict(value)

    def take(self, key: str, read: Callable[[str, object], T]) -> T:
        """Read a key that must be there."""
        if key not in self._left:
            raise TrustFileError(f"{key} in {self.place} is missing", f"write {key}")
        return read(f"{key} in {self.place}", self._left.pop(key))

    def take_or(self, key: str, read: Callable[[str, object], T], default: D) -> T | D:
        """Read a key, or return a default where it is not written."""
        return self.take(key, read) if key in self._left else default

    def take_all(self, read: Callable[[str, object], T]) -> dict[str, T]:
        """Read all keys that are left: those of a table whose keys are names."""
        names, self._left = self._left, {}
        return {name: read(f"{name} in {self.place}", value) for name, value in names.items()}

    def check_empty(self) -> None:
        """Refuse keys that have no meaning."""
        if self._left:
            names = ", ".join(sorted(self._left))
            raise TrustFileError(f"{self.place} has unknown keys: {names}", "remove them, or correct their spelling")


def each(place: str, value: object, read: Callable[[str, object], T]) -> tuple[T, ...]:
    """Read a list's entries, each with its place."""
    return tuple(read(f"{place}, entry {number}", one) for number, one in enumerate(_list(place, value), 1))


def listed(read: Callable[[str, object], T]) -> Callable[[str, object], tuple[T, ...]]:
    """Return a reader of lists."""
    return lambda place, value: each(place, value, read)


def choice(names: Collection[str]) -> Callable[[str, object], str]:
    """Return a reader that takes one of some words."""

    def read(place: str, value: object) -> str:
        if text(place, value) not in names:
            raise TrustFileError(f"{place} is {str(value)[:SHOWN]!r}", f"write one of {', '.join(sorted(names))}")
        return str(value)

    return read


def choices(names: Collection[str]) -> Callable[[str, object], tuple[str, ...]]:
    """Return a reader of lists of some words, each at most once and at least one of them."""

    def read(place: str, value: object) -> tuple[str, ...]:
        found = each(place, value, choice(names))
        check_some(place, found)
        return found

    return read


def check_some(place: str, found: Collection[str]) -> None:
    """Refuse a list that says nothing, or something twice: a condition over nothing would never hold."""
    if not found or len(set(found)) != len(found):
        raise TrustFileError(f"{place} is empty, or names something twice", "name each once, or leave the key out")


def identifier(place: str, value: object) -> str:
    """Read an id."""
    name = text(place, value)
    if not is_identifier(name):
        raise TrustFileError(f"{place} is not an id", "use printable ASCII without blanks")
    return name


def identifiers(place: str, value: object) -> tuple[str, ...]:
    """Read a list of ids, each once and at least one."""
    found = each(place, value, identifier)
    check_some(place, found)
    return found


def texts(place: str, value: object) -> tuple[str, ...]:
    """Read a list of texts."""
    return each(place, value, text)


def text(place: str, value: object) -> str:
    """Read a text that says something."""
    if not isinstance(value, str) or not value:
        raise TrustFileError(f"{place} is not a text", 'write it in quotes, such as "owner"')
    return value


def absolute_path(place: str, value: object) -> str:
    """Read a path from the root."""
    path = text(place, value)
    if not PurePosixPath(path).is_absolute() or "\0" in path:
        raise TrustFileError(f"{place} is no absolute path", "write the whole path from /")
    return path


def flag(place: str, value: object) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise TrustFileError(f"{place} is not true or false", "write true or false without quotes")
    return value


def number(place: str, value: object) -> int:
    """Read a whole number from 1."""
    return _whole(place, value, 1, MAX_NUMBER)


def persons(place: str, value: object) -> int:
    """Read a number of persons."""
    return _whole(place, value, 1, MAX_COUNT)


def persons_or_none(place: str, value: object) -> int:
    """Read a number of persons, which may be none."""
    return _whole(place, value, 0, MAX_COUNT)


def byte_count(place: str, value: object) -> int:
    """Read a number of bytes."""
    return _whole(place, value, 1, MAX_BYTES)


def moment(place: str, value: object) -> datetime:
    """Read a moment: a TOML date and time with its offset."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        with suppress(OverflowError):  # before the year 1 or after 9999
            return value.astimezone(UTC)
    remedy = "write a date and time with its offset and without quotes, such as 2027-11-20T00:00:00Z"
    raise TrustFileError(f"{place} is not a moment", remedy)


def _whole(place: str, value: object, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise TrustFileError(f"{place} is not a whole number from {least} to {most}", "write a number without quotes")
    return value


def _list(place: str, value: object) -> list[object]:
    if not isinstance(value, list):
        raise TrustFileError(f"{place} is not a list", "write it in square brackets")
    return value
