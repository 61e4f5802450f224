"""A transaction on PostgreSQL.

A statement is tried only under a role that can do little else, and on a table of which the catalogue says that nothing
but its own rows changes with it: no trigger, rule, cascade, inheritance, or code of users'. What it changes comes from
the statement itself, by RETURNING. That a sequence moves can not be rolled back: columns that the database fills from
one, or from the clock, are told as such, and not compared.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import resources
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus

from executor.outside.child import Answer
from executor.outside.sql_statement import CALLS, Statement, is_constant
from executor.outside.sql_transaction import LostError, NotTriedError, RefusedError, Row, Tried

CONNECT_SECONDS: Final = 10
_LOST: Final = ("08", "57", "58", "XX", "40003")
# So that the same row is the same text whoever connects, and names mean what they mean to everybody.
_SETTINGS: Final = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "iso_8601",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
}
_BARRIERS: Final = {
    "system": "it is a table of the database's own",
    "owner": "the role owns it, which is no least privilege",
    "inherits": "it has parts, or is a part, of other tables",
    "triggers": "it has triggers",
    "rules": "it has rules",
    "own_code": "it uses functions or operators of users'",
    "own_types": "it has columns of users' types",
}
# Those that a plain statement can hold, by the names that the catalogue has for them: != is <>, and LIKE is ~~.
_OPERATORS: Final = ("<>", "<=", ">=", "||", "-", "+", "*", "/", "%", "<", ">", "=", "~~", "~~*", "!~~", "!~~*")
# What reading alone does not set off.
_NOT_READ: Final = frozenset({"triggers"})


class PostgresqlTransaction:
    """The port `executor.outside.sql_transaction.Transaction`.

    Args:
        dsn: the trust file's words.
        password: empty where none is needed.
        seconds: how long one statement may take.

    Raises:
        RefusedError: there is no connection.
    """

    def __init__(self, dsn: str, password: str, *, seconds: int) -> None:
        try:
            self._connection = psycopg.connect(
                dsn,
                password=password or None,
                autocommit=True,
                connect_timeout=CONNECT_SECONDS,
                passfile="/dev/null",
                application_name="gonogo",
                gssencmode="disable",
                cursor_factory=psycopg.RawCursor,
            )
        except psycopg.Error as error:
            raise RefusedError(f"there is no connection: {error}") from None
        self._begin(seconds)

    def try_out(self, statement: Statement, parameters: Sequence[Any], most: int) -> Tried:
        """As the port says."""
        self._check_role()
        self._execute("SET LOCAL search_path = pg_catalog, " + self._search_path())
        table = self._facts(statement)
        _check_dotted(statement, table)
        self._check_shadows()
        if statement.row_count > most:
            raise NotTriedError(f"it inserts more than {most} rows")
        rows = _CAPTURES[statement.kind](self, statement, table, parameters, most)
        self._execute("SET CONSTRAINTS ALL IMMEDIATE")
        self._check_counts(table, 0 if statement.kind == "select" else len(rows))
        return Tried(table=table["table"], rows=rows)

    def run(self, statement: Statement, parameters: Sequence[Any], most: int) -> Answer:
        """As the port says; of a query only the first rows are taken from the server at all."""
        if statement.kind == "select" and statement.bounded:
            return {"rows": self._texts("x::text", statement, parameters, most)}
        cursor = self._execute(statement.text, parameters)
        return {"status": cursor.statusmessage or "", "count": max(cursor.rowcount, 0)}

    def commit(self) -> None:
        """As the port says."""
        if self._connection.info.transaction_status is not TransactionStatus.INTRANS:
            raise RefusedError("the transaction has failed")
        try:
            cursor = self._connection.execute("COMMIT")
        except psycopg.Error as error:
            raise self._fault(error) from None
        if cursor.statusmessage != "COMMIT":
            raise RefusedError("the database rolled it back")

    def close(self) -> None:
        """As the port says."""
        with suppress(psycopg.Error):
            self._connection.execute("ROLLBACK")
        self._connection.close()

    def _begin(self, seconds: int) -> None:
        limits = {
            "statement_timeout": f"{seconds}s",
            "lock_timeout": f"{seconds}s",
            "idle_in_transaction_session_timeout": f"{seconds + CONNECT_SECONDS}s",
        }
        self._execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
        for name, value in {**limits, **_SETTINGS}.items():
            self._execute("SELECT pg_catalog.set_config($1, $2, true)", [name, value])

    def _check_role(self) -> None:
        found = self._fetched(_query("postgresql_role.sql"))
        if found:
            raise NotTriedError(f"the role of the connection {found[0][0]}, which is no least privilege")

    def _check_shadows(self) -> None:
        """Refuse where a name that statements may use can mean a function or an operator of users'.

        That the database's own come first in the search path helps only where one of them takes just these types.
        """
        found = self._fetched(_query("postgresql_shadows.sql"), [sorted(CALLS), list(_OPERATORS)])
        if found:
            raise NotTriedError(f"{found[0][0]} may be one of users', which could do anything")

    def _facts(self, statement: Statement) -> Mapping[str, Any]:
        found = self._fetched(_query("postgresql_table.sql"), [statement.schema, statement.table])
        if not found:
            raise RefusedError(f"there is no table {statement.table!r}")
        table: dict[str, Any] = json.loads(found[0][0])
        if not table["ordinary"]:
            raise NotTriedError(f"{table['table']} is no ordinary table")
        for name, why in _BARRIERS.items():
            if table[name] and not (statement.kind == "select" and name in _NOT_READ):
                raise NotTriedError(f"{table['table']} can not be looked through: {why}")
        if table.get(f"{statement.kind}_cascades"):
            raise NotTriedError(f"other tables' rows change with those of {table['table']}")
        if not table["readable"]:
            raise NotTriedError(f"the role may not read {table['table']}, so nobody could see what changes")
        return table

    def _check_counts(self, table: Mapping[str, Any], count: int) -> None:
        """Compare with the server's own count of what the transaction changed, in whatever table."""
        counted = {str(name): int(changed) for name, changed in self._fetched(_query("postgresql_counts.sql"))}
        if counted != ({table["table"]: count} if count else {}):
            raise NotTriedError("more changes with it than the rows that were seen")

    def _search_path(self) -> str:
        return str(self._fetched("SELECT pg_catalog.current_setting('search_path')")[0][0]) or '""'

    def _selected(
        self, statement: Statement, _table: Mapping[str, Any], parameters: Sequence[Any], most: int
    ) -> list[Row]:
        rows = self._texts("pg_catalog.to_jsonb(x)::text", statement, parameters, most + 1)
        if len(rows) > most:
            raise NotTriedError(f"it finds more than {most} rows")
        return [(row, row) for row in rows]

    def _texts(self, shape: str, statement: Statement, parameters: Sequence[Any], most: int) -> list[str]:
        query = f"SELECT {shape} FROM ({_bare(statement)}\n) AS x LIMIT {most:d}"  # noqa: S608 - one SELECT that was parsed
        return [str(row[0]) for row in self._fetched(query, parameters)]

    def _inserted(
        self, statement: Statement, table: Mapping[str, Any], parameters: Sequence[Any], _most: int
    ) -> list[Row]:
        """Capture what an insert adds; what the database fills in anew each time is told, and not compared."""
        assigned = _text(_assigned_anew(statement, table["columns"]))
        told = f" || ${len(parameters) + 1}::pg_catalog.jsonb"
        return [("", row) for row in self._returned(statement, [*parameters, assigned], told)]

    def _updated(
        self, statement: Statement, table: Mapping[str, Any], parameters: Sequence[Any], most: int
    ) -> list[Row]:
        """Capture the rows before and after, paired by their key; both must be about the same rows."""
        key = table["key"]
        if not key:
            raise NotTriedError(f"{table['table']} has no primary key by which its rows could be found again")
        if set(key) & set(statement.assigned):
            raise NotTriedError("it changes a primary key")
        before = self._found(statement, parameters, most, lock=" FOR UPDATE")
        after = self._returned(statement, parameters)
        old, new = ({_key(row, key): row for row in rows} for rows in (before, after))
        if old.keys() != new.keys() or len(old) != len(before):
            raise NotTriedError("it changes other rows than its condition finds")
        return [(old[name], new[name]) for name in old]

    def _deleted(
        self, statement: Statement, _table: Mapping[str, Any], parameters: Sequence[Any], most: int
    ) -> list[Row]:
        before = self._found(statement, parameters, most, lock="")
        gone = self._returned(statement, parameters)
        if sorted(before) != sorted(gone):
            raise NotTriedError("it deletes other rows than its condition finds")
        return [(row, "") for row in gone]

    def _found(self, statement: Statement, parameters: Sequence[Any], most: int, *, lock: str) -> list[str]:
        used = [parameters[place] for place in statement.where_parameters]
        shape = f"pg_catalog.to_jsonb({statement.reference}.*)::text"
        words = ("SELECT", shape, "FROM", statement.source, statement.where, f"LIMIT {most + 1:d}{lock}")
        query = " ".join(words)  # of parts that were parsed, and that a generator wrote
        rows = [str(row[0]) for row in self._fetched(query, used)]
        if len(rows) > most:
            raise NotTriedError(f"it changes more than {most} rows")
        return rows

    def _returned(self, statement: Statement, parameters: Sequence[Any], told: str = "") -> list[str]:
        query = f"{_bare(statement)} RETURNING (pg_catalog.to_jsonb({statement.reference}.*){told})::text"
        return [str(row[0]) for row in self._fetched(query, parameters)]

    def _fetched(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return self._execute(query, parameters).fetchall()

    def _execute(self, query: str, parameters: Sequence[Any] = ()) -> psycopg.Cursor[Any]:
        """Run one statement; prepared first, which the server refuses for more than one."""
        try:
            return self._connection.execute(query.encode(), list(parameters), prepare=True)
        except psycopg.Error as error:
            raise self._fault(error) from None

    def _fault(self, error: psycopg.Error) -> RefusedError | LostError:
        """Say whether the database refused, or whether it is gone, which leaves open what it did."""
        state = error.sqlstate
        if self._connection.broken or self._connection.closed or state is None or state.startswith(_LOST):
            canceled = state == "57014" and not self._connection.broken
            return RefusedError(str(error)) if canceled else LostError(str(error))
        return RefusedError(str(error))


_CAPTURES: Final = {
    "select": PostgresqlTransaction._selected,  # noqa: SLF001 - one table in the place of a chain of conditions
    "insert": PostgresqlTransaction._inserted,  # noqa: SLF001 - as above
    "update": PostgresqlTransaction._updated,  # noqa: SLF001 - as above
    "delete": PostgresqlTransaction._deleted,  # noqa: SLF001 - as above
}


def _check_dotted(statement: Statement, table: Mapping[str, Any]) -> None:
    """Refuse to try what stands behind a dot and is no column: `t.f` calls a function `f` that takes a row of `t`."""
    columns = {column["name"] for column in table["columns"] or ()}
    strange = [name for name in statement.dotted if name not in columns]
    if strange:
        raise NotTriedError(f"{table['table']} has no column {strange[0]!r}, so that it may call something")


def _assigned_anew(statement: Statement, columns: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the columns that an insert leaves to the database and that differ each time, with what is told of them."""
    named = statement.columns or tuple(column["name"] for column in columns)
    return {
        column["name"]: f"(assigned when it runs: {column['default']})"
        for column in columns
        if column["name"] not in named and column["default"] is not None and not is_constant(column["default"])
    }


def _bare(statement: Statement) -> str:
    return statement.text.strip().removesuffix(";").rstrip()


def _key(row: str, key: Sequence[str]) -> str:
    found = json.loads(row, parse_float=str)
    return _text([found[name] for name in key])


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _query(name: str) -> str:
    return resources.files("executor.outside").joinpath("sql", name).read_text(encoding="utf-8")
