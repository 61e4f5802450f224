"""When appends share a commit, and when one is left alone."""

import asyncio
from pathlib import Path

from orchestrator.adapters.event_log_sqlite import LINGER_SECONDS, Company, SqliteEventLog
from orchestrator.service.event_log import ANY, Append, NewEvent


def crowded_after(count: int, gap: float, streams: int = 16) -> bool:
    """Tell whether a log expects company after so many appends, so far apart, to so many streams in turn."""
    company = Company()
    for number in range(1, count + 1):
        company.came(f"stream-{number % streams}", 1.0 + number * gap)
    return company.crowded


def test_appends_far_apart_do_not_wait_for_company() -> None:
    """One caller's appends, each a few milliseconds after the one before, never linger."""
    assert not crowded_after(1000, LINGER_SECONDS * 1.5)


def test_appends_close_together_wait_for_company() -> None:
    """After a few appends in close succession the next ones linger."""
    assert crowded_after(8, LINGER_SECONDS / 2)


def test_one_stream_is_no_company() -> None:
    """Appends to one stream follow from each other, and waiting for the next would be waiting for oneself."""
    assert not crowded_after(1000, LINGER_SECONDS / 2, streams=1)


def test_company_is_forgotten() -> None:
    """Once the others have gone, a lone caller lingers for a few more appends only."""
    company = Company(share=1.0)
    for number in range(1, 13):
        company.came(f"stream-{number}", number * 0.01)
    assert not company.crowded


async def test_many_callers_share_commits(tmp_path: Path) -> None:
    """Sixteen callers need far fewer commits than appends, and each finds its own events."""
    log = SqliteEventLog(tmp_path / "log.db")
    try:
        await asyncio.gather(*(appends(log, f"stream-{number}") for number in range(16)))
        events = log.read_all()
        assert len(events) == 16 * 10
        assert len({event.recorded_at_us for event in events}) < 80
        assert [log.stream_version(f"stream-{number}") for number in range(16)] == [10] * 16
    finally:
        log.close()


async def appends(log: SqliteEventLog, stream_id: str) -> None:
    """Append ten events, one after the other."""
    for version in range(10):
        event = NewEvent(type="told", schema_version=1, occurred_at_us=1, actor="a", data="{}")
        done = await log.append(Append(stream_id=stream_id, expected_version=ANY, events=(event,)))
        assert done.version == version + 1
        await asyncio.sleep(0.0002 * int(stream_id.partition("-")[2]))
