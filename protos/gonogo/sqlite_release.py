"""Which releases of SQLite are without the WAL-reset defect, by which two connections could damage a database."""

from typing import Final

# The first without it, on the main line and on the lines that got the correction too.
_FIXED: Final = (3, 51, 3)
_FIXED_BRANCHES: Final = {(3, 50): 7, (3, 44): 6}

REMEDY: Final = "pip install pysqlite3 where there is a wheel, or use a Python with SQLite 3.51.3 or newer"


def sqlite_is_fixed(version: str) -> bool:
    """Tell whether a SQLite is without the defect."""
    parts = tuple(int(part) for part in version.split("."))
    if parts >= _FIXED:
        return True
    branch = _FIXED_BRANCHES.get((parts[0], parts[1]))
    return branch is not None and parts[2] >= branch
