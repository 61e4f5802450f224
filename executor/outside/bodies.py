"""The texts of pages that fetches have kept, to be searched by their words; each workspace finds its own alone.

The index is derived: what it holds are objects that reports name. A file that is lost or damaged is made anew, and
filled from the reports before the next search.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from executor.adapters.sql_files import named_queries, statements
from executor.adapters.sqlite_driver import sqlite3
from executor.domain.cancel import Cancel
from executor.domain.errors import StepFailedError, StoreError
from executor.domain.plan import SearchBodies
from executor.domain.report import SearchEvidence, SearchMatch
from executor.runner.outside import Setting
from gonogo.digests import framed_digest
from gonogo.safe_text import excerpt

MOST_MATCHES: Final = 100
USUAL_MATCHES: Final = 20
MOST_QUERY: Final = 4096
MOST_SHOWN: Final = 1000
"""Of what stands around a match: a page may be one word."""
_STEPS_BETWEEN_LOOKS: Final = 10_000
_QUERY_REMEDY: Final = 'write words, "phrases in quotes", AND, OR, NOT, or a prefix*'

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page whose text is kept."""

    workspace_id: str
    url: str
    digest: str
    """Of the object that the text is, or was made from; when that goes, the page goes from the index."""


Kept = Callable[[], Iterable[tuple[Page, bytes]]]
"""Yields every page that reports name and whose text is here still."""


class Bodies:
    """The index, and the port `executor.outside.far_sides.Searching`. Every method may be called from any thread.

    Args:
        path: its file.
        kept: what a new file is filled from.
    """

    def __init__(self, path: Path, kept: Kept) -> None:
        self._path = path
        self._kept = kept
        self._sql = named_queries("bodies.sql")
        self._lock = threading.RLock()
        self._connection = self._open()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def keep(self, page: Page, text: bytes) -> None:
        """Have a page found by the words of its text.

        Raises:
            StoreError: the disk is full, or fails.
        """
        self._safely(lambda: self._insert([(page, text)]))

    def forget(self, digests: Iterable[str]) -> None:
        """Find pages no more whose objects have gone."""
        self._safely(lambda: self._delete(tuple(digests)))

    def digests_before(self, moment: float) -> tuple[str, ...]:
        """Return the objects of all pages that were kept before a moment, in seconds since 1970."""
        return self._safely(lambda: tuple(row[0] for row in self._rows("digests_before", int(moment * 1_000_000))))

    def search(self, action: SearchBodies, setting: Setting) -> SearchEvidence:
        """Search the workspace's pages."""
        query, workspace_id = action.query, setting.workspace.workspace_id
        if not query.strip() or len(query) > MOST_QUERY or "\0" in query:
            raise _unreadable(f"it is empty, or has more than {MOST_QUERY} characters")
        deadline = time.monotonic() + setting.plan.scope.max_duration_seconds
        limit = min(action.limit or USUAL_MATCHES, MOST_MATCHES)

        def look() -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
            self._fill()
            with _Bounded(self._connection, deadline, setting.cancel):
                found = self._matches("found", query, workspace_id)
                return found, self._matches("best", query, workspace_id, limit)

        found, best = self._safely(look)
        redactor = setting.redactor
        return SearchEvidence(
            count=len(found),
            matches=tuple(
                SearchMatch(path=redactor.text(url), line=0, text=excerpt(redactor.text(text), MOST_SHOWN))
                for url, text in best
            ),
            digest=framed_digest([part.encode() for row in found for part in row]),
        )

    def _matches(self, name: str, *values: object) -> list[tuple[Any, ...]]:
        try:
            return self._rows(name, *values)
        except sqlite3.OperationalError as error:
            if "interrupted" in str(error):
                raise StepFailedError(
                    "TOO_LARGE", "the search took longer than it may", "search for rarer words"
                ) from None
            raise _unreadable(str(error).removeprefix("fts5: ")) from None

    def _fill(self) -> None:
        """Fill a file that was made anew."""
        if not self._rows("is_complete"):
            self._insert(self._kept())
            with self._connection:
                self._connection.execute(self._sql["set_complete"])

    def _insert(self, pages: Iterable[tuple[Page, bytes]]) -> None:
        now = int(time.time() * 1_000_000)
        for page, text in pages:
            row = (page.workspace_id, page.url, page.digest, now)
            with self._connection:
                inserted = self._connection.execute(self._sql["keep_page"], row)
                if inserted.rowcount:
                    words = text.decode("utf-8", "replace").replace("\0", " ")
                    self._connection.execute(self._sql["keep_text"], (inserted.lastrowid, words))
                else:
                    self._connection.execute(self._sql["renew_page"], row)

    def _delete(self, digests: Sequence[str]) -> None:
        for digest in digests:
            with self._connection:
                for (page_id,) in self._rows("pages_with", digest):
                    self._connection.execute(self._sql["forget_text"], (page_id,))
                    self._connection.execute(self._sql["forget_page"], (page_id,))

    def _rows(self, name: str, *values: object) -> list[tuple[Any, ...]]:
        return self._connection.execute(self._sql[name], values).fetchall()

    def _safely(self, work: Callable[[], T]) -> T:
        """Work on the file; where it turns out to be damaged, once more on a new one."""
        with self._lock:
            try:
                return work()
            except sqlite3.OperationalError as error:
                raise _store_error(error) from error
            except sqlite3.DatabaseError:
                self._connection.close()
                self._connection = self._anew()
                return work()

    def _open(self) -> sqlite3.Connection:
        try:
            return _connect(self._path)
        except sqlite3.OperationalError as error:
            raise _store_error(error) from error
        except sqlite3.DatabaseError:
            return self._anew()

    def _anew(self) -> sqlite3.Connection:
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                self._path.with_name(self._path.name + suffix).unlink()
        return _connect(self._path)


class _Bounded:
    """Ends what the connection runs at a deadline, or when somebody wishes it."""

    def __init__(self, connection: sqlite3.Connection, deadline: float, cancel: Cancel) -> None:
        self._connection = connection
        self._over = lambda: cancel.requested or time.monotonic() > deadline

    def __enter__(self) -> None:
        self._connection.set_progress_handler(self._over, _STEPS_BETWEEN_LOOKS)

    def __exit__(self, *_: object) -> None:
        self._connection.set_progress_handler(None, 0)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA trusted_schema = OFF")
        with connection:
            for statement in statements("bodies_schema.sql"):
                connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    path.chmod(0o600)
    return connection


def _unreadable(why: str) -> StepFailedError:
    return StepFailedError("PLAN_INVALID", f"the query can not be read: {why}", _QUERY_REMEDY)


def _store_error(error: Exception) -> StoreError:
    return StoreError("STORE_FULL", f"the index of kept pages can not be used: {error}", "look at the executor's disk")
