"""What one transaction on a database can do, whichever database it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from executor.outside.child import Answer
from executor.outside.sql_statement import Statement

Row = tuple[str, str]
"""Before and after, each as JSON; empty where there is none."""


class NotTriedError(Exception):
    """The statement is not tried; the argument says why."""


class RefusedError(Exception):
    """The database refused, and for certain nothing of the transaction has happened or will."""


class LostError(Exception):
    """Nobody knows what the database made of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What a statement does, as its transaction saw it."""

    table: str
    rows: Sequence[Row]


class Transaction(Protocol):
    """One transaction on one database, open until it is committed or closed."""

    def try_out(self, statement: Statement, parameters: Sequence[Any], most: int) -> Tried:
        """Run a statement and capture its rows; nothing is committed.

        Raises:
            NotTriedError: it could not be seen to the end what it does.
            RefusedError: the database refuses it.
        """
        ...

    def run(self, statement: Statement, parameters: Sequence[Any], most: int) -> Answer:
        """Run a statement without looking at what it changes; return what it answers.

        Raises:
            RefusedError: the database refuses it.
            LostError: the connection is gone.
        """
        ...

    def commit(self) -> None:
        """Make it last.

        Raises:
            RefusedError: it was rolled back.
            LostError: the connection went while it was committed.
        """
        ...

    def close(self) -> None:
        """Take back whatever is not committed."""
        ...
