"""The event log on SQLite as its own tests open it: written by the loop or by the thread, and by somebody else."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.event_log_sqlite import Limits, SqliteEventLog
from orchestrator.adapters.sqlite_driver import sqlite3

THREAD_ONLY = Limits(inline_commit_us=0)


@pytest.fixture(params=[Limits(inline_commit_us=10_000_000), THREAD_ONLY], ids=["inline", "thread"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteEventLog]:
    log = SqliteEventLog(tmp_path / "log.db", limits=request.param)
    yield log
    log.close()


def writable(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None)
