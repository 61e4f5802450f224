"""Forward-only migrations of the executor's ledger, applied by sqlite-utils.

Each one runs in a transaction together with the record that it ran, statement by statement: a migration that fails
leaves nothing behind.
"""

from collections.abc import Callable
from typing import Final

from sqlite_utils import Database, Migrations

from executor.adapters.sql_files import statements
from executor.adapters.sqlite_driver import sqlite3

APPLICATION_ID: Final = 0x676F_6E78  # "gonx": what `file` and a person's sqlite3 see
_SET: Final = "gonogo_executor"
_STEPS: Final = (
    "0001_ledger",
    "0002_checkpoints",
    "0003_object_uses",
    "0004_audit",
    "0005_revocations",
    "0006_control",
)


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the ledger to the newest schema."""
    migrations = Migrations(_SET)
    for name in _STEPS:
        migrations(name=name)(_step(name))
    migrations.apply(Database(connection))


def _step(name: str) -> Callable[[Database], None]:
    def run(database: Database) -> None:
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        for statement in statements(f"{name}.sql"):
            database.execute(statement)

    return run
