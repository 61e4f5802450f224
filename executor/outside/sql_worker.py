"""The child that speaks to one database, for one statement.

It is asked twice. First it opens a transaction, and for a statement that can be tried runs it there and says which rows
it changes. Then, where it is told to, it commits; where it is told nothing, everything is rolled back. A statement that
can not be tried is run after the second question only.
"""

from contextlib import suppress
from typing import Any, Final

from executor.outside.child import Answer, Conversation, converse, fault
from executor.outside.sql_statement import Statement, StatementError, read_statement
from executor.outside.sql_transaction import LostError, NotTriedError, RefusedError, Transaction

MOST_BYTES: Final = 4 << 20
_SHOWN: Final = 500
_RUN: Final = "EFFECT_FAILED"


def _serve(conversation: Conversation) -> None:
    request = conversation.hear()
    if request is None:
        return
    parameters = request["parameters"]
    try:
        statement = read_statement(request["statement"], _DIALECTS[request["engine"]], len(parameters))
        transaction = _open(request, statement)
    except StatementError as error:
        conversation.say(
            fault("PLAN_INVALID", str(error), "write one statement, with a placeholder for each parameter")
        )
        return
    except (RefusedError, LostError) as error:
        conversation.say(fault("FETCH_FAILED", _words(error), "look at the database and at the trust file"))
        return
    try:
        _converse(conversation, request, transaction, statement)
    finally:
        with suppress(Exception):  # it may be gone; whatever is not committed is rolled back by the database itself
            transaction.close()


def _converse(
    conversation: Conversation, request: dict[str, Any], transaction: Transaction, statement: Statement
) -> None:
    found = _tried(request, transaction, statement)
    conversation.say(found)
    if conversation.hear() is None or "fault" in found:
        return
    done: Answer = {}
    try:
        if not found["simulated"]:
            done = transaction.run(statement, request["parameters"], request["max_rows"])
    except (
        RefusedError,
        LostError,
    ) as error:  # nothing was committed; what it called outside of that is another matter
        conversation.say({"refused" if statement.bounded else "unknown": _words(error)})
        return
    conversation.say(_committed(transaction, done, statement))


def _committed(transaction: Transaction, done: Answer, statement: Statement) -> Answer:
    try:
        transaction.commit()
    except RefusedError as error:
        return {"refused" if statement.bounded else "unknown": _words(error)}
    except LostError as error:
        return {"unknown": _words(error)}
    return {"done": done}


def _tried(request: dict[str, Any], transaction: Transaction, statement: Statement) -> Answer:
    """Try a statement where it is wanted and can be; say what it changes, or why that was not seen."""
    known = {"kind": statement.kind, "table": statement.table}
    if statement.reason or not request["simulate"]:
        return {**known, "simulated": False, "reason": statement.reason or "it was not simulated before"}
    try:
        tried = transaction.try_out(statement, request["parameters"], request["max_rows"])
    except NotTriedError as error:
        return {**known, "simulated": False, "reason": str(error)}
    except (RefusedError, LostError) as error:
        return fault(_RUN, _words(error), "correct the statement, or what the role may do")
    if sum(len(before) + len(after) for before, after in tried.rows) > MOST_BYTES:
        return {**known, "simulated": False, "reason": f"its rows have more than {MOST_BYTES} bytes"}
    return {"kind": statement.kind, "table": tried.table, "simulated": True, "reason": "", "rows": tried.rows}


def _open(request: dict[str, Any], statement: Statement) -> Transaction:
    """Open a transaction; each engine's driver is loaded only where it is used."""
    if request["engine"] == "sqlite":
        from executor.outside.sql_sqlite import SqliteTransaction  # noqa: PLC0415 - as above

        writes = statement.kind != "select"
        return SqliteTransaction(request["path"], seconds=request["seconds"], writes=writes)
    from executor.outside.sql_postgresql import PostgresqlTransaction  # noqa: PLC0415 - as above

    return PostgresqlTransaction(request["dsn"], request["password"], seconds=request["seconds"])


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:_SHOWN]


_DIALECTS: Final = {"postgresql": "postgres", "sqlite": "sqlite"}

if __name__ == "__main__":
    converse(_serve)
