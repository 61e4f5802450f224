"""Reads the `.sql` files beside this module: schema statements one by one, and queries by name."""

from importlib import resources

from orchestrator.adapters.sqlite_driver import sqlite3

_NAME = "-- name: "


def _text(file_name: str) -> str:
    return resources.files("orchestrator.adapters").joinpath("sql", file_name).read_text(encoding="utf-8")


def statements(file_name: str) -> list[str]:
    """Splits a schema file into its statements; a trigger with its inner semicolons is one."""
    found: list[str] = []
    current = ""
    for line in _text(file_name).splitlines(keepends=True):
        current += line
        if line.rstrip().endswith(";") and sqlite3.complete_statement(current):
            found.append(current.strip())
            current = ""
    if current.strip():
        raise ValueError(f"{file_name} ends inside a statement")
    return found


def named_queries(file_name: str) -> dict[str, str]:
    """Maps each `-- name: x` of a query file to the statement under it."""
    queries: dict[str, str] = {}
    for block in _text(file_name).split(_NAME)[1:]:
        name, _, body = block.partition("\n")
        queries[name.strip()] = " ".join(body.split()).removesuffix(";")
    return queries


def log_queries() -> dict[str, str]:
    """Returns all queries of the event log by name."""
    return named_queries("event_log.sql") | named_queries("signals.sql")
