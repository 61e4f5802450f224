"""Forward-only migrations of the orchestrator's database, applied by sqlite-utils.

Each one runs in a transaction together with the record that it ran. Statements go one by one through `execute`:
`executescript` would commit half-way, and a migration that fails would leave its first tables behind.
"""

from collections.abc import Callable, Mapping
from typing import Final

from sqlite_utils import Database, Migrations

from orchestrator.adapters.event_log_upgrade import check_chain, grow_tree, teach_leaf_hash
from orchestrator.adapters.sql_files import statements
from orchestrator.adapters.sqlite_driver import sqlite3

APPLICATION_ID: Final = 0x676F_6E67  # "gong": what `file` and a person's sqlite3 see
_SET: Final = "gonogo_orchestrator"
_STEPS: Final = ("0001_event_log", "0002_audit_tree", "0003_signals")
_BEFORE: Final[Mapping[str, Callable[[Database], None]]] = {"0002_audit_tree": check_chain}
_AFTER: Final[Mapping[str, Callable[[Database], None]]] = {"0002_audit_tree": grow_tree}


def migrate(connection: sqlite3.Connection) -> list[str]:
    """Brings the database to the newest schema and returns the names of the migrations that were applied."""
    teach_leaf_hash(connection)
    database = Database(connection)
    migrations = _migrations()
    pending = [migration.name for migration in migrations.pending(database)]
    migrations.apply(database)
    return pending


def _migrations() -> Migrations:
    migrations = Migrations(_SET)
    for name in _STEPS:
        migrations(name=name)(_step(name))
    return migrations


def _step(name: str) -> Callable[[Database], None]:
    def run(database: Database) -> None:
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        _BEFORE.get(name, _nothing)(database)
        for statement in statements(f"{name}.sql"):
            database.execute(statement)
        _AFTER.get(name, _nothing)(database)

    return run


def _nothing(_database: Database) -> None:
    """What most migrations do besides their statements."""
