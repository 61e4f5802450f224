"""A ledger's audit log, only read: for checks, at the start and beside an executor that runs.

All of it is read as it was at one moment, over a connection that can not write.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from executor.adapters.ledger_audit import AuditRows
from executor.adapters.ledger_retention import Execute
from executor.adapters.sql_files import named_queries
from executor.adapters.sqlite_driver import sqlite3
from executor.domain.errors import StoreError
from gonogo.merkle import Frontier


@contextmanager
def read_audit(path: Path) -> Iterator["AuditReader | None"]:
    """Open a ledger's audit log; None where there is none yet.

    Raises:
        StoreError: it can not be read.
    """
    if not path.exists():
        yield None
        return
    try:
        with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None)) as connection:
            connection.execute("BEGIN")
            reader = AuditReader(connection)
            yield reader if reader.reading()("has_audit_log") else None
    except sqlite3.Error as error:
        raise _unreadable(error) from error


QUERIES: Final = ("ledger.sql", "audit.sql", "control.sql")


class AuditReader(AuditRows):
    """The log's rows over one connection; nothing is assumed to belong together."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._sql = {name: text for file in QUERIES for name, text in named_queries(file).items()}
        self._tail = Frontier()
        self._epoch = ""
        self._sign_root = None

    @property
    def audit_size(self) -> int:
        """One more than the number of the last entry."""
        [(size,)] = self._rows("audit_size")
        return int(size)

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return self._connection.execute(self._sql[query], values).fetchall()

    def _row(self, query: str, *values: object) -> tuple[Any, ...] | None:
        rows = self._rows(query, *values)
        return rows[0] if rows else None

    def _commit(self, at: int) -> AbstractContextManager[Execute]:
        raise StoreError("INTERNAL", f"a reader does not write at {at}", "open the ledger itself")


def _unreadable(error: Exception) -> StoreError:
    return StoreError(
        "INTERNAL",
        f"the executor's ledger can not be read: {error}",
        "look at the state directory's disk and permissions, or restore the ledger from a copy",
    )
