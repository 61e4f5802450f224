"""Appends that come together share a commit."""

import asyncio
from pathlib import Path

from orchestrator.adapters.event_log_sqlite import SqliteEventLog
from orchestrator.service.event_log import ANY, Append, NewEvent


async def test_many_callers_share_commits(tmp_path: Path) -> None:
    """Sixteen callers at once need fewer commits than appends, and each finds its own events."""
    log = SqliteEventLog(tmp_path / "log.db")
    try:
        await asyncio.gather(*(appends(log, f"stream-{number}") for number in range(16)))
        events = log.read_all()
        assert len(events) == 16 * 10
        assert len({event.recorded_at_us for event in events}) < 16 * 10
        assert [log.stream_version(f"stream-{number}") for number in range(16)] == [10] * 16
    finally:
        log.close()


async def appends(log: SqliteEventLog, stream_id: str) -> None:
    """Append ten events, one after the other."""
    for version in range(10):
        event = NewEvent(type="told", schema_version=1, occurred_at_us=1, actor="a", data="{}")
        done = await log.append(Append(stream_id=stream_id, expected_version=ANY, events=(event,)))
        assert done.version == version + 1
