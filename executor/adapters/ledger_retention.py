"""Which objects the issued reports need, as far as the ledger tells.

Every report is gone through once, some time after it was issued: each digest in it gets the moment of its issue as
last use. Digests are found in the report's text as it is: opening thousands of reports strictly would take seconds,
and a text that only looks like a digest keeps something too long, never too short.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from executor.adapters.sqlite_driver import sqlite3
from executor.workspace.objects import ObjectUse
from gonogo.digests import PREFIX
from gonogo.merkle import Frontier

_NAMED: Final = re.compile(rb'"(\w*digest)":\s*"(' + PREFIX.encode() + rb'[0-9a-f]{64})"')
# What a report names by digest and is no object.
_NO_OBJECTS: Final = frozenset({b"plan_digest", b"policy_digest"})
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Execute(Protocol):
    """Runs a named query inside a transaction and tells how many rows it changed."""

    @property
    def at_us(self) -> int:
        """The time of all that the transaction records."""
        ...

    @property
    def tail(self) -> Frontier:
        """The audit log's tree as the transaction leaves it."""
        ...

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a query that reads."""
        ...

    def __call__(self, query: str, *values: object) -> int: ...


class ObjectUses(ABC):
    """The part of the SQLite ledger that is `executor.runner.retention.ObjectRecords`."""

    _connection: sqlite3.Connection
    _sql: dict[str, str]

    def mark_reports(self, limit: int) -> int:
        """Take note of the objects that the next reports name, and return how many reports these were."""
        with self._commit(0) as execute:
            return self._mark(execute, limit)

    def renew_unfinished(self, now: datetime) -> None:
        """Take note that executions which have not ended need their objects now."""
        digests = {digest for (body,) in self._rows("unfinished_reports") for digest in named_objects(body)}
        if digests:
            with self._commit(0) as execute:
                for digest in digests:
                    execute("use_object", digest, _micros(now))

    def expired_objects(self, before: datetime, *, after: ObjectUse | None, limit: int) -> tuple[ObjectUse, ...]:
        """Return objects that no report names which was issued since a moment, the oldest first."""
        place = (-1, "") if after is None else (_micros(after.last_used), after.digest)
        rows = self._rows("expired_objects", _micros(before), *place, limit)
        return tuple(ObjectUse(digest=digest, last_used=_EPOCH + used * _MICROSECOND) for digest, used in rows)

    def forget_objects(self, digests: Iterable[str], before: datetime) -> None:
        """Forget objects with their small contents, as one commit; one that a report needs by now stays."""
        with self._commit(0) as execute:
            while self._mark(execute, _AT_ONCE):
                pass  # a report that came in the meantime keeps what it names
            for digest in digests:
                execute("forget_small_object", digest, _micros(before))
                execute("forget_object_use", digest, _micros(before))

    def is_used(self, digest: str) -> bool:
        """Tell whether any report that was gone through named an object, and that has not been forgotten."""
        return bool(self._rows("known_object", digest))

    def reports_with_pages(self, after: int, limit: int) -> tuple[tuple[int, bytes], ...]:
        """Return the next reports whose steps may have read pages, each with its number, from a number on."""
        return tuple((number, bytes(body)) for number, body in self._rows("reports_with_pages", after, limit))

    @abstractmethod
    def _commit(self, at: int) -> AbstractContextManager[Execute]: ...

    @abstractmethod
    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]: ...

    def _mark(self, execute: Execute, limit: int) -> int:
        rows = self._connection.execute(self._sql["unmarked_reports"], (limit,)).fetchall()
        for number, issued_at, body in rows:
            for digest in named_objects(body):
                execute("use_object", digest, issued_at)
            execute("set_marked_reports", str(number))
        return len(rows)


_AT_ONCE: Final = 50


def named_objects(report: bytes) -> Iterator[str]:
    """Yield the digest of everything that a report's text names and that may be an object."""
    for name, digest in _NAMED.findall(report):
        if name not in _NO_OBJECTS:
            yield digest.decode()


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND
