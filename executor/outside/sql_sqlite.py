"""A transaction on a file of SQLite's.

The connection may do nothing but read and change tables: no other file, no setting, no extension. A statement is tried
on an ordinary table without triggers and cascades, in a transaction that holds the write lock from its beginning.
"""

import json
import math
import re
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from executor.outside.child import Answer
from executor.outside.sql_statement import Statement, is_constant
from executor.outside.sql_transaction import LostError, NotTriedError, RefusedError, Row, Tried

_FORBIDDEN: Final = frozenset(
    {sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH, sqlite3.SQLITE_PRAGMA, sqlite3.SQLITE_TRANSACTION}
)
_FORBIDDEN_CALLS: Final = frozenset({"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer", "writebytes"})
_INSTRUCTIONS: Final = 10_000
_LARGEST: Final = 64 << 20
_GAP: Final = r"(?:\s|/\*.*?\*/|--[^\n]*\n)+"
_SPECIAL: Final = re.compile(rf"\bWITHOUT{_GAP}ROWID\b|\bON{_GAP}CONFLICT\b", re.IGNORECASE | re.DOTALL)
_HARMLESS: Final = frozenset({"NO ACTION", "RESTRICT"})


class SqliteTransaction:
    """The port `executor.outside.sql_transaction.Transaction`.

    Args:
        path: the file, which must be there.
        seconds: how long one statement may take, waiting for others included.
        writes: whether the statement may write; a query alone takes no lock that others wait for.

    Raises:
        RefusedError: it can not be opened.
    """

    def __init__(self, path: str, *, seconds: int, writes: bool) -> None:
        try:
            self._connection = sqlite3.connect(
                f"{Path(path).as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=seconds
            )
            self._connection.execute("PRAGMA trusted_schema = OFF")
            self._connection.execute("PRAGMA foreign_keys = ON")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
        except sqlite3.Error as error:
            raise RefusedError(f"it can not be opened: {error}") from None
        self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST)
        self._seconds = seconds
        self._guard()

    def try_out(self, statement: Statement, parameters: Sequence[Any], most: int) -> Tried:
        """As the port says."""
        if statement.schema not in {None, "main"}:
            raise NotTriedError("it names another database")
        columns = self._look_through(statement)
        changed = self._connection.total_changes
        match statement.kind:
            case "select":
                rows = [(row, row) for row in self._texts(statement.text, parameters, most + 1)]
            case "insert":
                rows = self._inserted(statement, columns, parameters, most)
            case "update":
                rows = self._updated(statement, parameters, most)
            case _:
                rows = [(row, "") for row in self._returned(statement, parameters, most).values()]
        if len(rows) > most:
            raise NotTriedError(f"it changes or finds more than {most} rows")
        if self._connection.total_changes - changed != (0 if statement.kind == "select" else len(rows)):
            raise NotTriedError("more changes with it than the rows that were seen")
        return Tried(table=statement.table, rows=rows)

    def run(self, statement: Statement, parameters: Sequence[Any], most: int) -> Answer:
        """As the port says."""
        if statement.kind == "select":
            return {"rows": self._texts(statement.text, parameters, most)}
        return {"status": statement.kind, "count": max(self._execute(statement.text, parameters).rowcount, 0)}

    def commit(self) -> None:
        """As the port says."""
        self._connection.set_authorizer(None)
        self._connection.set_progress_handler(None, 0)
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:  # it stands as it was, and can be taken back
                raise RefusedError(str(error)) from None
            raise LostError(str(error)) from None

    def close(self) -> None:
        """As the port says."""
        self._connection.set_authorizer(None)
        with suppress(sqlite3.Error):
            self._connection.rollback()
        self._connection.close()

    def _guard(self) -> None:
        """Let statements do nothing but work on tables, for a limited time."""
        until = time.monotonic() + 3 * self._seconds
        self._connection.set_progress_handler(lambda: int(time.monotonic() > until), _INSTRUCTIONS)
        self._connection.set_authorizer(_allowed)

    def _look_through(self, statement: Statement) -> list[Mapping[str, Any]]:
        """Return a table's columns, where a change of its rows changes nothing else."""
        name = statement.table
        query = "SELECT type, sql FROM main.sqlite_master WHERE lower(name) = ? AND type IN ('table', 'view')"
        found = self._execute(query, [name]).fetchall()
        if not found:
            raise RefusedError(f"there is no table {name!r}")
        if found[0][0] != "table" or str(found[0][1]).upper().startswith("CREATE VIRTUAL"):
            raise NotTriedError(f"{name} is no ordinary table")
        if _SPECIAL.search(str(found[0][1])):
            raise NotTriedError(f"{name} has no numbered rows, or settles conflicts by itself")
        triggers = "SELECT count(*) FROM main.sqlite_master WHERE type = 'trigger' AND lower(tbl_name) = ?"
        if self._execute(triggers, [name]).fetchone()[0]:
            raise NotTriedError(f"{name} has triggers")
        if self._cascades(name):
            raise NotTriedError(f"other tables' rows change with those of {name}")
        rows = self._trusted(
            "SELECT name, type, dflt_value, pk, hidden FROM pragma_table_xinfo(?)", [name], "it has no columns"
        )
        if any(str(row[0]).lower() == "rowid" for row in rows):
            raise NotTriedError(f"{name} has a column that hides its rows' numbers")
        return [dict(zip(("name", "type", "default", "key", "hidden"), row, strict=True)) for row in rows]

    def _cascades(self, name: str) -> bool:
        query = (
            'SELECT k."on_delete", k."on_update" FROM main.sqlite_master AS t, pragma_foreign_key_list(t.name) AS k '
            "WHERE t.type = 'table' AND lower(k.\"table\") = ?"
        )
        rows = self._trusted(query, [name], "")
        return any(set(row) - _HARMLESS for row in rows)

    def _trusted(self, query: str, parameters: Sequence[Any], missing: str) -> list[tuple[Any, ...]]:
        """Run a query of this module's own, which may look at what statements may not."""
        self._connection.set_authorizer(None)
        try:
            rows = self._execute(query, parameters).fetchall()
        finally:
            self._connection.set_authorizer(_allowed)
        if missing and not rows:
            raise NotTriedError(missing)
        return rows

    def _inserted(
        self, statement: Statement, columns: Sequence[Mapping[str, Any]], parameters: Sequence[Any], most: int
    ) -> list[Row]:
        named = statement.columns or tuple(str(column["name"]).lower() for column in columns)
        anew = {
            column["name"]: f"(assigned when it runs: {column['default']})"
            for column in columns
            if str(column["name"]).lower() not in named
            and column["default"] is not None
            and not is_constant(column["default"])
        }
        if statement.row_count > most:
            raise NotTriedError(f"it inserts more than {most} rows")
        cursor = self._execute(f"{_bare(statement)} RETURNING *", parameters)
        return [("", _text({**row, **anew})) for row in _objects(cursor, most + 1)]

    def _updated(self, statement: Statement, parameters: Sequence[Any], most: int) -> list[Row]:
        used = [parameters[place] for place in statement.where_parameters]
        words = ("SELECT rowid,", f"{statement.reference}.*", "FROM", statement.source, statement.where)
        before = _by_row(self._execute(" ".join(words), used), most)
        after = self._returned(statement, parameters, most)
        if before.keys() != after.keys():
            raise NotTriedError("it changes other rows than its condition finds")
        return [(before[row], after[row]) for row in before]

    def _returned(self, statement: Statement, parameters: Sequence[Any], most: int) -> dict[int, str]:
        return _by_row(self._execute(f"{_bare(statement)} RETURNING rowid, *", parameters), most)

    def _texts(self, query: str, parameters: Sequence[Any], most: int) -> list[str]:
        return [_text(row) for row in _objects(self._execute(query, parameters), most)]

    def _execute(self, query: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        try:
            return self._connection.execute(query, list(parameters))
        except (sqlite3.Error, sqlite3.Warning, OverflowError) as error:
            raise RefusedError(str(error)) from None


def _allowed(action: int, first: str | None, second: str | None, _database: str | None, _source: str | None) -> int:
    """Decide on one thing that a statement would do."""
    called = (second or first or "").lower() if action == sqlite3.SQLITE_FUNCTION else ""
    refused = action in _FORBIDDEN or called in _FORBIDDEN_CALLS
    return sqlite3.SQLITE_DENY if refused else sqlite3.SQLITE_OK


def _by_row(cursor: sqlite3.Cursor, most: int) -> dict[int, str]:
    """Return rows by the number that the table keeps them under, which comes first."""
    names = [column[0] for column in cursor.description][1:]
    rows = cursor.fetchmany(most + 1)
    if len(rows) > most:
        raise NotTriedError(f"it changes more than {most} rows")
    return {row[0]: _text(dict(zip(names, map(_value, row[1:]), strict=True))) for row in rows}


def _objects(cursor: sqlite3.Cursor, most: int) -> list[dict[str, Any]]:
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, map(_value, row), strict=True)) for row in cursor.fetchmany(most)]


def _value(value: Any) -> Any:
    """Return a value as JSON can hold it, and so that values that differ stay different."""
    if isinstance(value, bytes):
        return {"blob": value.hex()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"real": str(value)}
    return value


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _bare(statement: Statement) -> str:
    return statement.text.strip().removesuffix(";").rstrip()
