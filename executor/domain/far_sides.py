"""The servers and databases that the trust file lets live steps use. What is not listed does not exist."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class Engine(enum.Enum):
    """What a database is."""

    POSTGRESQL = "postgresql"
    SQLITE = "sqlite"


@dataclass(frozen=True, slots=True, kw_only=True)
class McpServer:
    """A server of tools: a program that is started for each step, or an address."""

    name: str
    workspaces: tuple[str, ...]
    tools: tuple[str, ...]
    """The tools that may be called, and no others."""
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    """The program's variables; a value may be a secret's reference."""
    url: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    """What is sent to the address with every request; a value may be a secret's reference."""
    seconds: int = 30
    """How long one step may take, whatever its plan says."""

    @property
    def described(self) -> Mapping[str, Any]:
        """Everything that an approval stands on, as JSON."""
        return {
            "name": self.name,
            "workspaces": sorted(self.workspaces),
            "tools": sorted(self.tools),
            "command": list(self.command),
            "env": sorted(map(list, self.env)),
            "url": self.url,
            "headers": sorted(map(list, self.headers)),
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A database, and as whom it is used."""

    name: str
    workspaces: tuple[str, ...]
    engine: Engine
    dsn: str = ""
    """Of PostgreSQL: words such as host=… dbname=… user=…, without a password."""
    password: str = ""
    """A secret's reference; empty where the server asks for none."""
    path: str = ""
    """Of SQLite: the file."""
    statement_timeout_seconds: int = 10
    max_rows: int = 1000
    """The most rows that one statement may change or find to be simulated."""

    @property
    def described(self) -> Mapping[str, Any]:
        """Everything that an approval stands on, as JSON."""
        return {
            "name": self.name,
            "workspaces": sorted(self.workspaces),
            "engine": self.engine.value,
            "dsn": self.dsn,
            "password": self.password,
            "path": self.path,
            "statement_timeout_seconds": self.statement_timeout_seconds,
            "max_rows": self.max_rows,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FarSide:
    """What a description says of one thing that live steps may use."""

    kind: str
    """"domain", "mcp_server", or "database"."""
    name: str
    workspaces: tuple[str, ...] = ()
    """Empty means all."""
