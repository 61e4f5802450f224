"""The SQLite that this process uses, and whether it has the WAL-reset fault.

`pysqlite3` brings a newer SQLite than most Pythons do, so it is taken where it is installed. sqlite-utils makes the
same choice, and the two must agree: a connection of the one is handed to the other.
"""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import sqlite3
else:
    try:
        from pysqlite3 import dbapi2 as sqlite3
    except ImportError:
        import sqlite3

__all__ = ["sqlite3", "version_info", "wal_reset_fixed"]

version_info: Final[tuple[int, int, int]] = sqlite3.sqlite_version_info

_FIRST_FIXED: Final = {(3, 44): 6, (3, 50): 7, (3, 51): 3}
_WITHDRAWN: Final = (3, 52, 0)


def wal_reset_fixed(version: tuple[int, int, int]) -> bool:
    """Says whether this SQLite can not damage a WAL database when two connections write and checkpoint at once.

    Source: the release notes of 3.53.0 and the back-ports; the fault is in 3.7.0 up to 3.51.2.
    """
    if version == _WITHDRAWN:
        return False
    branch = version[:2]
    if branch in _FIRST_FIXED:
        return version[2] >= _FIRST_FIXED[branch]
    return branch > max(_FIRST_FIXED)
