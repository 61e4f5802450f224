"""The trust file's servers of tools and its databases."""

import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Final, TypeVar
from urllib.parse import urlsplit

from executor.adapters.trust_tables import (
    Table,
    TrustFileError,
    choice,
    each,
    identifier,
    identifiers,
    number,
    text,
    texts,
)
from executor.domain.far_sides import Database, Engine, McpServer
from gonogo.secret_shapes import REFERENCE

MOST_SECONDS: Final = 3600
MOST_ROWS: Final = 10_000
# What a connection may be told. All else is left out: files of passwords, services and options can change what it is.
DSN_WORDS: Final = frozenset(
    {"host", "hostaddr", "port", "dbname", "user", "sslmode", "sslrootcert", "sslcert", "sslkey", "channel_binding"}
)

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER: Final = re.compile(r"[A-Za-z0-9-]+")
# What the protocol sets itself.
_OWN_HEADERS: Final = frozenset({"host", "accept", "content-type", "content-length", "connection", "transfer-encoding"})
# A loader's variables make another program of the one that is named.
_OWN_VARIABLES: Final = ("LD_",)

Named = TypeVar("Named", McpServer, Database)


def read_servers(place: str, value: object) -> tuple[McpServer, ...]:
    """Read the servers, sorted by name."""
    return _each_once(place, each(place, value, _server))


def read_databases(place: str, value: object) -> tuple[Database, ...]:
    """Read the databases, sorted by name."""
    return _each_once(place, each(place, value, _database))


def _each_once(place: str, found: Sequence[Named]) -> tuple[Named, ...]:
    if len({one.name for one in found}) != len(found):
        raise TrustFileError(f"{place} has a name twice", "list each once, with all its workspaces")
    return tuple(sorted(found, key=lambda one: one.name))


def _server(place: str, value: object) -> McpServer:
    table = Table(place, value)
    found = McpServer(
        name=table.take("name", identifier),
        workspaces=table.take("workspaces", identifiers),
        tools=table.take_or("tools", texts, ()),
        command=table.take_or("command", _command, ()),
        env=table.take_or("env", _pairs(_VARIABLE, "variable"), ()),
        url=table.take_or("url", _url, ""),
        headers=table.take_or("headers", _pairs(_HEADER, "header"), ()),
        seconds=table.take_or("seconds", _at_most(MOST_SECONDS), 30),
    )
    table.check_empty()
    _check_server(place, found)
    return found


def _check_server(place: str, found: McpServer) -> None:
    if bool(found.command) == bool(found.url):
        raise TrustFileError(
            f"{place}: server {found.name} has neither command nor url, or both",
            "write command for a program that is started, or url for one that runs already",
        )
    if (found.env and found.url) or (found.headers and found.command):
        raise TrustFileError(f"{place}: env is for a command, and headers are for a url", "remove what does not belong")
    for name, _ in found.env:
        if name.startswith(_OWN_VARIABLES):
            raise TrustFileError(f"{place}: the variable {name} can not be set", "name the right program instead")
    for name, _ in found.headers:
        if name.lower() in _OWN_HEADERS:
            raise TrustFileError(f"{place}: the header {name} can not be set", "leave it out; the protocol sets it")


def _database(place: str, value: object) -> Database:
    table = Table(place, value)
    found = Database(
        name=table.take("name", identifier),
        workspaces=table.take("workspaces", identifiers),
        engine=Engine(table.take("engine", choice([one.value for one in Engine]))),
        dsn=table.take_or("dsn", _dsn, ""),
        password=table.take_or("password", _reference, ""),
        path=table.take_or("path", _absolute, ""),
        statement_timeout_seconds=table.take_or("statement_timeout_seconds", _at_most(MOST_SECONDS), 10),
        max_rows=table.take_or("max_rows", _at_most(MOST_ROWS), 1000),
    )
    table.check_empty()
    if found.engine is Engine.POSTGRESQL and (found.path or not found.dsn):
        raise TrustFileError(f"{place}: {found.name} is PostgreSQL", 'write dsn = "host=… dbname=… user=…", no path')
    if found.engine is Engine.SQLITE and (found.dsn or found.password or not found.path):
        raise TrustFileError(f"{place}: {found.name} is SQLite", "write its path, no dsn and no password")
    return found


def _dsn(place: str, value: object) -> str:
    """Read a connection's words; a password, or what can bring one in, is not among those that are taken."""
    words = [word.partition("=") for word in text(place, value).split()]
    names = [name for name, _, _ in words]
    if not all(sign and found and not set(found) & set("'\"\\") for _, sign, found in words):
        raise TrustFileError(
            f"{place} is no list of words", 'write "host=… dbname=… user=…", without quotes and blanks'
        )
    if len(set(names)) != len(names) or not set(names) <= DSN_WORDS:
        raise TrustFileError(
            f"{place} has a word twice, or one that is not taken",
            f'use {", ".join(sorted(DSN_WORDS))}; a password is a secret: password = "secret://NAME"',
        )
    missing = {"host", "dbname", "user"} - set(names)
    if missing:
        raise TrustFileError(f"{place} has no {min(missing)}", "say host, dbname and user, so that nothing is guessed")
    return " ".join(f"{name}={found}" for name, _, found in words)


def _reference(place: str, value: object) -> str:
    reference = text(place, value)
    if not reference.startswith(REFERENCE):
        raise TrustFileError(f"{place} is no secret's reference", 'write "secret://NAME" and list it under [[secrets]]')
    return reference


def _command(place: str, value: object) -> tuple[str, ...]:
    words = texts(place, value)
    if not words:
        raise TrustFileError(f"{place} is empty", "name the program and its arguments, each by itself")
    _absolute(f"the first word of {place}", words[0])
    if any("\0" in word or word.startswith(REFERENCE) for word in words):
        raise TrustFileError(f"{place} has a NUL or a secret", "hand a secret over in env; arguments are seen by all")
    return words


def _url(place: str, value: object) -> str:
    url = text(place, value)
    try:
        parts = urlsplit(url)
        well_formed = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        well_formed, parts = False, urlsplit("")
    if not well_formed or parts.username is not None or parts.fragment or not url.isascii() or not url.isprintable():
        raise TrustFileError(
            f"{place} is no address of a server", 'write it as "https://host/path", without a password'
        )
    return url


def _pairs(shape: re.Pattern[str], what: str) -> Callable[[str, object], tuple[tuple[str, str], ...]]:
    def read(place: str, value: object) -> tuple[tuple[str, str], ...]:
        found = Table(place, value).take_all(text)
        for name, one in found.items():
            if not shape.fullmatch(name) or any(sign in one for sign in "\0\r\n"):
                raise TrustFileError(f"{name!r} in {place} is no {what}", "correct its name, or its value")
        return tuple(sorted(found.items()))

    return read


def _absolute(place: str, value: object) -> str:
    path = text(place, value)
    tidy = PurePosixPath(path)
    if not tidy.is_absolute() or "\0" in path or ".." in tidy.parts:
        raise TrustFileError(f"{place} is no absolute path", "write the whole path from /, without ..")
    return str(tidy)


def _at_most(most: int) -> Callable[[str, object], int]:
    def read(place: str, value: object) -> int:
        found = number(place, value)
        if found > most:
            raise TrustFileError(f"{place} is more than {most}", f"write a number from 1 to {most}")
        return found

    return read
