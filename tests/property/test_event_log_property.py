"""The event log on SQLite against its model, over random sequences of appends."""

import asyncio
import hashlib
import tempfile
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from gonogo.merkle import TILE, stored_root
from orchestrator.adapters.event_log_sqlite import Limits, SqliteEventLog
from orchestrator.service.event_log import (
    Append,
    Appended,
    CommandRecord,
    Document,
    EventLog,
    NewEvent,
    ProjectionRow,
)
from orchestrator.service.event_log_checks import export_lines, first_bad_event, projection_digest
from orchestrator.service.event_log_errors import (
    CommandConflict,
    DuplicateCommand,
    EventLogError,
    VersionConflict,
)
from tests.conformance.event_log_memory import MemoryEventLog

few = st.sampled_from(["a", "b", "é", "𐐷"])


objects = st.sampled_from(["{}", '{"a":1}', '{ "a" : [1e3, null, "\\u2028☃"] }', '{"ä":{"b":"𐐷"}}'])
events = st.builds(
    NewEvent,
    type=few,
    schema_version=st.integers(1, 3),
    occurred_at_us=st.sampled_from([0, 1, (1 << 63) - 1]),
    actor=few,
    data=objects,
)


@st.composite
def documents(draw: st.DrawFn) -> Document:
    body = draw(st.sampled_from([b"", b"{}", b"\x00\xff", b'{"a":1}']))
    digest = "sha256:" + hashlib.sha256(body).hexdigest()
    return Document(digest=digest, media_type=draw(few), body=body, signatures=draw(st.sampled_from(["[]", '["s"]'])))


commands = st.builds(
    CommandRecord, command_id=few, request_hash=st.sampled_from(["h1", "h2"]), result=st.sampled_from(["{}", "[1]"])
)
rows = st.builds(ProjectionRow, name=few, key=few, status=few, sort_key=few, data=st.just("{}"))
appends = st.builds(
    Append,
    stream_id=few,
    expected_version=st.integers(-1, 4),
    events=st.lists(events, min_size=1, max_size=2).map(tuple),
    command=st.none() | commands,
    documents=st.lists(documents(), max_size=2).map(tuple),
    projections=st.lists(rows, max_size=2).map(tuple),
)


def outcome(result: Appended | BaseException) -> object:
    """What a caller can tell apart."""
    match result:
        case VersionConflict():
            return ("version", result.stream_id, result.expected, result.actual)
        case CommandConflict():
            return ("command", result.command_id)
        case DuplicateCommand():
            return ("duplicate", result.record)
        case EventLogError():
            return ("unexpected", result)
        case _:
            return result


def everything(log: EventLog) -> object:
    """All that the port shows, the tree included."""
    return (
        list(export_lines(log)),
        log.read_all(),
        log.documents(),
        [(log.read_stream(key), log.stream_version(key), log.command(key)) for key in "abé𐐷"],
        [(log.projections(name), log.projection_keys(name), projection_digest(log, name)) for name in "abé𐐷"],
        [log.projections(name, status=status, limit=2) for name in "abé𐐷" for status in "abé𐐷"],
        [log.tree_hashes(level, 0, log.head() // TILE**level) for level in range(3)],
        stored_root(log.head(), log.tree_hashes),
        first_bad_event(log),
    )


async def compare(groups: Sequence[Sequence[Append]], inline_commit_us: int) -> None:
    """Gives both logs the same appends; a group goes to SQLite at one moment, so that it is one transaction."""
    with tempfile.TemporaryDirectory() as directory:
        model = MemoryEventLog(lambda: 1)
        log = SqliteEventLog(
            Path(directory) / "log.db", limits=Limits(inline_commit_us=inline_commit_us), clock_us=lambda: 1
        )
        try:
            for group in groups:
                real = await asyncio.gather(*(log.append(append) for append in group), return_exceptions=True)
                wanted = [(await asyncio.gather(model.append(append), return_exceptions=True))[0] for append in group]
                assert [outcome(result) for result in real] == [outcome(result) for result in wanted]
            assert everything(log) == everything(model)
        finally:
            log.close()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(appends, min_size=1, max_size=5), max_size=5), st.sampled_from([0, 10_000_000]))
def test_sqlite_agrees_with_the_model(groups: list[list[Append]], inline_commit_us: int) -> None:
    """Any sequence of groups of appends has the same outcomes, events, hashes and rows as in the model."""
    asyncio.run(compare(groups, inline_commit_us))


def test_the_model_tells_outcomes_apart() -> None:
    """The comparison sees conflicts, reused commands and retries: none of them is rare in what is generated."""
    record = CommandRecord(command_id="a", request_hash="h1", result="{}")
    event = NewEvent(type="t", schema_version=1, occurred_at_us=1, actor="a", data="{}")
    first = Append(stream_id="a", expected_version=0, events=(event,), command=record)
    other = CommandRecord(command_id="a", request_hash="h2", result="{}")
    group = [
        first,
        first,
        Append(stream_id="a", expected_version=0, events=(event,)),
        Append(stream_id="a", expected_version=-1, events=(event,), command=other),
    ]

    async def results() -> list[object]:
        model = MemoryEventLog(count().__next__)
        return [outcome((await asyncio.gather(model.append(append), return_exceptions=True))[0]) for append in group]

    assert asyncio.run(results()) == [
        Appended(first_pos=1, last_pos=1, version=1),
        ("duplicate", record),
        ("version", "a", 0, 1),
        ("command", "a"),
    ]
    asyncio.run(compare([group], 0))
