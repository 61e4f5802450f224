"""What every event log must do. A backend subclasses `EventLogSuite` and provides the `log` fixture."""

import asyncio
import hashlib
import json
from contextlib import aclosing
from typing import Any

import pytest

from gonogo.merkle import (
    EMPTY_ROOT,
    consistency_path,
    inclusion_path,
    leaf_hash,
    stored_root,
    verify_consistency,
    verify_inclusion,
)
from orchestrator.service.event_leaf import stored_leaf
from orchestrator.service.event_log import (
    ANY,
    NO_STREAM,
    Append,
    Appended,
    CommandRecord,
    Document,
    EventLog,
    NewEvent,
    ProjectionCursor,
    ProjectionRow,
    StoredEvent,
)
from orchestrator.service.event_log_checks import digest_rows, export_lines, first_bad_event, projection_digest
from orchestrator.service.event_log_errors import CommandConflict, DuplicateCommand, StoreClosed, VersionConflict


def an_event(number: int = 1, **changes: Any) -> NewEvent:
    fields: dict[str, Any] = {"type": "mission_proposed", "actor": "anna", "data": json.dumps({"n": number})}
    return NewEvent(schema_version=1, occurred_at_us=number, **(fields | changes))


def an_append(stream_id: str = "mission/1", expected_version: int = ANY, count: int = 1) -> Append:
    events = tuple(an_event(number) for number in range(1, count + 1))
    return Append(stream_id=stream_id, expected_version=expected_version, events=events)


def a_command(command_id: str = "request-1", request_hash: str = "hash-1") -> CommandRecord:
    return CommandRecord(command_id=command_id, request_hash=request_hash, result='{"mission_id":"1"}')


def a_document(body: bytes = b'{"objective":"x"}', signatures: str = "[]") -> Document:
    digest = "sha256:" + hashlib.sha256(body).hexdigest()
    return Document(digest=digest, media_type="application/gonogo.plan+json", body=body, signatures=signatures)


def a_row(key: str, status: str = "proposed", sort_key: str = "0", data: str = "{}") -> ProjectionRow:
    return ProjectionRow(name="missions", key=key, status=status, sort_key=sort_key, data=data)


def with_command(append: Append, command: CommandRecord) -> Append:
    return Append(
        stream_id=append.stream_id,
        expected_version=append.expected_version,
        events=append.events,
        command=command,
        documents=append.documents,
        projections=append.projections,
    )


async def collect(log: EventLog, count: int, *, stream_id: str | None = None, after: int = 0) -> list[StoredEvent]:
    """Watches until `count` events have come."""
    events: list[StoredEvent] = []
    batches = log.subscribe(after) if stream_id is None else log.subscribe_stream(stream_id, after)
    async with asyncio.timeout(10), aclosing(batches):
        async for batch in batches:
            events += batch
            if len(events) >= count:
                break
    return events


class EventLogSuite:
    async def test_an_empty_log_has_nothing(self, log: EventLog) -> None:
        """Every read of an empty log answers with its kind of nothing, and its chain holds."""
        assert (log.head(), log.stream_version("mission/1")) == (0, NO_STREAM)
        assert (log.read_all(), log.read_stream("mission/1"), log.documents()) == ((), (), ())
        assert (log.document("sha256:0"), log.command("c"), log.projection("missions", "1")) == (None, None, None)
        assert (log.projections("missions"), log.projection_keys("missions"), list(export_lines(log))) == ((), (), [])
        assert first_bad_event(log) is None

    async def test_an_append_is_read_back_whole(self, log: EventLog) -> None:
        """What was appended comes back field by field, with pos and version counted from one."""
        assert await log.append(an_append("mission/0")) == Appended(first_pos=1, last_pos=1, version=1)
        event = an_event(7, data='{"text": "Zürich \\u2028 ☃", "n": 7}')
        append = Append(stream_id="mission/1", expected_version=NO_STREAM, events=(event, an_event(8)))
        assert await log.append(append) == Appended(first_pos=2, last_pos=3, version=2)
        stored = log.read_stream("mission/1")[0]
        assert stored == StoredEvent(
            pos=2,
            stream_id="mission/1",
            version=1,
            type="mission_proposed",
            schema_version=1,
            occurred_at_us=7,
            recorded_at_us=stored.recorded_at_us,
            command_id=None,
            actor="anna",
            data=event.data,
            leaf_hash=stored.leaf_hash,
        )
        assert [(e.pos, e.stream_id, e.version) for e in log.read_all()] == [
            (1, "mission/0", 1),
            (2, "mission/1", 1),
            (3, "mission/1", 2),
        ]
        assert first_bad_event(log) is None

    @pytest.mark.parametrize(("expected", "actual"), [(NO_STREAM, 2), (1, 2), (3, 2)])
    async def test_another_version_is_refused(self, log: EventLog, expected: int, actual: int) -> None:
        """An append that expects another version writes nothing and is told the version that is there."""
        await log.append(an_append(count=2))
        append = Append(
            stream_id="mission/1",
            expected_version=expected,
            events=(an_event(),),
            command=a_command(),
            documents=(a_document(),),
            projections=(a_row("1"),),
        )
        with pytest.raises(VersionConflict) as refused:
            await log.append(append)
        assert (refused.value.expected, refused.value.actual) == (expected, actual)
        assert (log.head(), log.documents(), log.command("request-1"), log.projections("missions")) == (2, (), None, ())

    async def test_a_version_of_a_missing_stream_is_refused(self, log: EventLog) -> None:
        """A stream that does not exist is at version zero, and only zero or any is accepted."""
        with pytest.raises(VersionConflict) as refused:
            await log.append(an_append(expected_version=1))
        assert refused.value.actual == NO_STREAM
        await log.append(an_append(expected_version=NO_STREAM))
        await log.append(an_append(expected_version=1))
        await log.append(an_append(expected_version=ANY))
        assert log.stream_version("mission/1") == 3

    async def test_callers_racing_on_one_stream(self, log: EventLog) -> None:
        """Of 64 callers racing with expected versions each append lands once, and versions and pos have no gap."""
        conflicts = 0

        async def caller(number: int) -> None:
            nonlocal conflicts
            while True:
                try:
                    version = log.stream_version("race")
                    await asyncio.sleep(0)
                    await log.append(
                        Append(stream_id="race", expected_version=version, events=(an_event(number), an_event(number)))
                    )
                except VersionConflict:
                    conflicts += 1
                else:
                    return

        await asyncio.gather(*(caller(number) for number in range(64)))
        events = log.read_stream("race")
        assert [event.version for event in events] == list(range(1, 129))
        assert [event.pos for event in log.read_all()] == list(range(1, 129))
        assert sorted(event.occurred_at_us for event in events) == sorted([*range(64), *range(64)])
        assert conflicts > 0
        assert first_bad_event(log) is None

    async def test_a_refusal_leaves_its_neighbours_alone(self, log: EventLog) -> None:
        """Appends made at the same moment as refused ones are all written."""
        await log.append(an_append("taken", NO_STREAM))
        appends = [an_append("taken" if number % 3 == 0 else f"free/{number}", NO_STREAM) for number in range(30)]
        results = await asyncio.gather(*(log.append(append) for append in appends), return_exceptions=True)
        refused = [number for number, result in enumerate(results) if isinstance(result, VersionConflict)]
        assert refused == list(range(0, 30, 3))
        assert log.head() == 21
        assert first_bad_event(log) is None

    async def test_a_retry_gets_the_first_answer(self, log: EventLog) -> None:
        """The same command again writes nothing and carries the first result, even where the stream moved on."""
        append = with_command(an_append(expected_version=NO_STREAM), a_command())
        await log.append(append)
        await log.append(an_append())
        with pytest.raises(DuplicateCommand) as repeated:
            await log.append(append)
        assert repeated.value.record == a_command() == log.command("request-1")
        assert [event.command_id for event in log.read_all()] == ["request-1", None]

    async def test_a_reused_command_id_is_refused(self, log: EventLog) -> None:
        """The same command id for another request is refused, and the first answer stays."""
        await log.append(with_command(an_append(), a_command()))
        with pytest.raises(CommandConflict):
            await log.append(with_command(an_append(), a_command(request_hash="hash-2")))
        assert (log.head(), log.command("request-1")) == (1, a_command())

    async def test_the_same_command_at_the_same_moment(self, log: EventLog) -> None:
        """Of sixteen identical requests at once one is written and fifteen are retries of it."""
        append = with_command(an_append(), a_command())
        results = await asyncio.gather(*(log.append(append) for _ in range(16)), return_exceptions=True)
        assert sorted(type(result).__name__ for result in results) == ["Appended"] + ["DuplicateCommand"] * 15
        assert log.head() == 1

    async def test_a_document_is_kept_once(self, log: EventLog) -> None:
        """A document is found by its digest, and stored again it keeps its first signatures and place."""
        first, again = a_document(signatures='[{"key_id":"a"}]'), a_document(signatures='[{"key_id":"b"}]')
        other = a_document(b"\x00\xff not JSON")
        for documents in ((first,), (again, other), (again,)):
            await log.append(
                Append(stream_id="m", expected_version=ANY, events=(an_event(), an_event()), documents=documents)
            )
        assert log.document(first.digest) == first
        assert [(d.sequence, d.pos, d.document) for d in log.documents()] == [(1, 1, first), (2, 3, other)]
        assert [d.document for d in log.documents(1)] == [other]

    async def test_projections_are_newest_first_by_pages(self, log: EventLog) -> None:
        """Rows come newest first, of all or one status, and a cursor continues where the page ended."""
        rows = [a_row(f"k{n:02}", "open" if n % 2 else "done", sort_key=f"{n // 4:04}") for n in range(20)]
        for row in rows:
            await log.append(Append(stream_id="m", expected_version=ANY, events=(an_event(),), projections=(row,)))
        newest = sorted(rows, key=lambda row: (row.sort_key, row.key), reverse=True)
        assert list(log.projections("missions")) == newest
        for status in (None, "open"):
            wanted = [row for row in newest if status in (None, row.status)]
            page = log.projections("missions", status=status, limit=3)
            read = list(page)
            while page:
                cursor = ProjectionCursor(sort_key=page[-1].sort_key, key=page[-1].key)
                page = log.projections("missions", status=status, before=cursor, limit=3)
                read += page
            assert read == wanted

    async def test_a_projection_row_is_replaced(self, log: EventLog) -> None:
        """The newest row of a key replaces the one before, in every listing."""
        for row in (a_row("a", "proposed", "1"), a_row("a", "active", "2", '{"x":1}'), a_row("é"), a_row("b")):
            await log.append(Append(stream_id="m", expected_version=ANY, events=(an_event(),), projections=(row,)))
        newest = a_row("a", "active", "2", '{"x":1}')
        assert log.projection("missions", "a") == newest
        assert log.projections("missions", status="proposed") == (a_row("é"), a_row("b"))
        assert log.projection_keys("missions") == (newest, a_row("b"), a_row("é"))
        assert log.projection_keys("missions", after_key="a", limit=1) == (a_row("b"),)
        assert projection_digest(log, "missions") == digest_rows([newest, a_row("b"), a_row("é")])
        assert projection_digest(log, "missions") != projection_digest(log, "others")

    async def test_pages_join_without_seams(self, log: EventLog) -> None:
        """Reading by pages, of one stream and of all, gives every event once."""
        for number in range(10):
            await log.append(an_append(f"mission/{number % 2}", count=3))
        pages = [log.read_all(after, 7) for after in range(0, 30, 7)]
        assert [event.pos for page in pages for event in page] == list(range(1, 31))
        assert [event.version for event in log.read_stream("mission/1", 4, 5)] == [5, 6, 7, 8, 9]
        assert log.read_all(30) == log.read_stream("mission/1", 15) == ()

    async def test_a_watcher_catches_up_and_goes_on_live(self, log: EventLog) -> None:
        """A watcher gets what was there, then what comes, in order and each once."""
        await log.append(an_append(count=5))
        watcher = asyncio.create_task(collect(log, 103, after=2))
        for number in range(20):
            await log.append(an_append(f"mission/{number}", count=5))
        assert [event.pos for event in await watcher] == list(range(3, 106))

    async def test_a_watcher_of_one_stream_gets_only_that(self, log: EventLog) -> None:
        """A watcher of a stream that does not exist yet gets its events from the first on, and no others."""
        watcher = asyncio.create_task(collect(log, 8, stream_id="mission/1"))
        await asyncio.sleep(0)
        for number in range(8):
            await log.append(an_append(f"mission/{number % 2}", count=2))
        events = await watcher
        assert events == list(log.read_stream("mission/1"))

    async def test_a_live_watcher_sees_what_is_stored(self, log: EventLog) -> None:
        """An event that comes live is equal to the same event read later."""
        watcher = asyncio.create_task(collect(log, 3))
        await asyncio.sleep(0)
        await log.append(with_command(an_append(count=3), a_command()))
        assert tuple(await watcher) == log.read_all()

    async def test_the_export_has_everything_in_order(self, log: EventLog) -> None:
        """Each line is one JSON object; data is an object, and a document stands before the events that brought it."""
        await log.append(an_append())
        documents = (a_document(), a_document(b"\xff"))
        await log.append(
            Append(stream_id="m", expected_version=ANY, events=(an_event(5), an_event(6)), documents=documents)
        )
        lines = list(export_lines(log))
        parsed = [json.loads(line) for line in lines]
        assert [(line["kind"], line["pos"]) for line in parsed] == [
            ("event", 1),
            ("document", 2),
            ("document", 2),
            ("event", 2),
            ("event", 3),
        ]
        assert (parsed[3]["data"], bytes.fromhex(parsed[3]["leaf_hash"])) == ({"n": 5}, log.read_all()[1].leaf_hash)
        assert (parsed[1]["body"], parsed[2]["body"]) == ({"objective": "x"}, None)
        assert all("\n" not in line for line in lines)

    async def test_a_closed_log_takes_nothing(self, log: EventLog) -> None:
        """After closing, appends are refused and watchers end, both with the same reason; closing again is nothing."""
        watcher = asyncio.create_task(collect(log, 1))
        await asyncio.sleep(0)
        log.close()
        log.close()
        with pytest.raises(StoreClosed):
            await log.append(an_append())
        with pytest.raises(StoreClosed):
            await watcher

    async def test_the_tree_is_over_the_events(self, log: EventLog) -> None:
        """After every append each event is at its place in the tree, under a root that continues the one before."""
        roots = [EMPTY_ROOT]
        for number, count in enumerate((1, 2, 14, 40, 300)):
            await log.append(an_append(f"mission/{number}", count=count))
            size, before = log.head(), len(roots) - 1
            root = stored_root(size, log.tree_hashes)
            path = consistency_path(before, size, log.tree_hashes)
            assert verify_consistency(before, roots[before], size, root, path)
            roots += [root] * (size - before)
        events = [event for page in (0, 200) for event in log.read_all(page, 200)]
        assert len(events) == log.head()
        for event in events:
            path = inclusion_path(event.pos - 1, log.head(), log.tree_hashes)
            hashed = leaf_hash(stored_leaf(event))
            assert verify_inclusion(hashed, event.pos - 1, log.head(), path, roots[-1])

    async def test_a_leaf_says_what_was_recorded(self, log: EventLog) -> None:
        """A leaf is one line of JSON with every stored field, the data as the text that is stored."""
        event = an_event(7, data='{"text": "Zürich \\u2028 \\"☃\\"", "n": 7}', actor="änna")
        await log.append(with_command(Append(stream_id="mission/1", expected_version=0, events=(event,)), a_command()))
        stored = log.read_all()[0]
        assert json.loads(stored_leaf(stored)) == [
            1, "mission/1", 1, "mission_proposed", 1, 7, stored.recorded_at_us, "request-1", "änna", event.data
        ]  # fmt: skip
        assert b"\n" not in stored_leaf(stored)
