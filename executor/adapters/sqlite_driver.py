"""The SQLite that this process uses: the newer one that pysqlite3 brings, where it is installed."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3
else:
    try:
        from pysqlite3 import dbapi2 as sqlite3
    except ImportError:
        import sqlite3

__all__ = ["sqlite3", "version"]

version: Final[str] = sqlite3.sqlite_version
