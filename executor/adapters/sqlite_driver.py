"""The SQLite that this process uses: the newer one that pysqlite3 brings, where it is installed."""

from typing import TYPE_CHECKING, Final

from executor.runner.ports import Finding
from gonogo.sqlite_release import REMEDY, sqlite_is_fixed

if TYPE_CHECKING:
    import sqlite3
else:
    try:
        from pysqlite3 import dbapi2 as sqlite3
    except ImportError:
        import sqlite3

__all__ = ["installed_sqlite", "sqlite3", "version"]

version: Final[str] = sqlite3.sqlite_version


def installed_sqlite() -> Finding:
    """Say which SQLite it is, and whether two connections could damage a database."""
    origin = "the standard library" if sqlite3.__name__.startswith("sqlite3") else "pysqlite3"
    if sqlite_is_fixed(version):
        return Finding(name="sqlite", ok=True, detail=f"{version} from {origin}", remedy="")
    detail = f"{version} from {origin} has the WAL-reset defect"
    return Finding(name="sqlite", ok=False, detail=detail, remedy=REMEDY)
