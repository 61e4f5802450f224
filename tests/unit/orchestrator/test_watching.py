"""Following a mission's events, and the commands that read the log."""

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.domain.errors import OrchestratorError, Reason
from orchestrator.domain.events import Event, FeedbackRecorded
from orchestrator.entrypoints.tokens import cursor_of, page_token, resume_token, sequence_of
from orchestrator.service.event_log import PAGE, ProjectionCursor, StoredEvent
from orchestrator.service.mission_store import Decision
from orchestrator.service.recent import Recent
from tests.fakes.executor_simulator import ExecutorSimulator
from tests.fakes.orchestrator_house import House


async def test_a_follower_sees_events_while_they_happen(house: House, executor: ExecutorSimulator) -> None:
    """A long execution's events are there before it ends, within its flushes."""
    executor.gate_open.clear()
    mission = await house.approved()
    running = asyncio.ensure_future(house.execute(mission))
    seen: list[Event] = []
    async for batch in house.use.watching.watch(mission.mission_id, 6, follow=True):
        seen += batch
        executor.gate_open.set()
    await running

    assert [event.sequence for event in seen] == list(range(7, 18))
    assert seen == house.events(mission.mission_id)[6:]


async def test_without_follow_the_stream_ends_with_the_last_event_of_now(house: House) -> None:
    """The past is told and nothing is waited for."""
    mission = await house.proposed()

    batches = [batch async for batch in house.use.watching.watch(mission.mission_id, 0, follow=False)]

    assert [event.sequence for batch in batches for event in batch] == [1, 2]


async def test_a_long_past_is_read_a_page_at_a_time(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads slowly has one page in memory, and others have their turns in between."""
    mission = await house.proposed()
    store, told = house.use.missions.store, Decision(payloads=(FeedbackRecorded(text="again"),) * PAGE)
    for _ in range(4):
        await store.record(mission.mission_id, "owner", lambda _mission: told)
    read: list[int] = []
    decode = house.use.watching.codec.decode

    def counted(stored: StoredEvent) -> Event:
        read.append(stored.version)
        return decode(stored)

    monkeypatch.setattr(house.use.watching.codec, "decode", counted)
    watching = replace(house.use.watching, _batches=Recent(8))
    batches = watching.watch(mission.mission_id, 0, follow=False)

    assert len(await anext(batches)) == len(read) == PAGE
    assert [event.sequence async for batch in batches for event in batch] == list(range(PAGE + 1, 4 * PAGE + 3))


async def test_an_idle_stream_has_a_heartbeat_and_ends_with_the_drain(house: House) -> None:
    """An empty batch shows that the stream lives; a service that stops lets its followers go."""
    mission = await house.proposed()
    watching = replace(house.use.watching, heartbeat_seconds=0.01)
    batches: list[int] = []
    async with asyncio.timeout(5):
        async for batch in watching.watch(mission.mission_id, 0, follow=True):
            batches.append(len(batch))
            if len(batches) == 3:
                house.orchestrator.draining.set()

    assert batches == [2, 0, 0]


async def test_a_token_from_the_future_is_refused(house: House) -> None:
    """There is nothing to go on after."""
    mission = await house.proposed()

    with pytest.raises(OrchestratorError) as caught:
        await anext(house.use.watching.watch(mission.mission_id, 3, follow=True))

    assert caught.value.reason is Reason.RESUME_TOKEN_INVALID


def test_tokens_go_there_and_back() -> None:
    """A token says what it was made of, and only for its own mission."""
    cursor = ProjectionCursor(sort_key="2026-01-01 m-1", key="m-1")

    assert sequence_of(resume_token("m-1", 7), "m-1") == 7
    assert sequence_of("", "m-1") == 0
    assert cursor_of(page_token(cursor)) == cursor
    assert (page_token(None), cursor_of("")) == ("", None)


BAD_TOKENS = [
    "x",
    "!!",
    "W10",
    *(resume_token("m-1", at) for at in (-1, 2**63)),
    resume_token("m-2", 1),
    "a" * 5000,
    "é",
]


@pytest.mark.parametrize("token", BAD_TOKENS)
def test_what_is_no_token_is_refused(token: str) -> None:
    """Neither list takes it."""
    for read in (lambda: sequence_of(token, "m-1"), lambda: cursor_of(token + "x")):
        with pytest.raises(OrchestratorError):
            read()


def test_a_page_token_that_no_list_gave_is_refused() -> None:
    """Half a character in it reaches no list."""
    for cursor in (ProjectionCursor(sort_key="\ud800", key="m-1"), ProjectionCursor(sort_key="a", key="\ud800")):
        with pytest.raises(OrchestratorError):
            cursor_of(page_token(cursor))


def command(house: House, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run one of the orchestrator's commands on a house's state."""
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", arguments[0], "--state", str(house.folder), *arguments[1:]],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )


async def test_replay_and_export_beside_a_running_service(house: House) -> None:
    """Both read the live log; the replay's digests are equal, the export has every event."""
    await house.execute(await house.approved())

    replayed = await asyncio.to_thread(command, house, "replay", "-o", "json")
    exported = await asyncio.to_thread(command, house, "export")

    found = json.loads(replayed.stdout)
    assert (found["equal"], found["missions"], found["events"]) == (True, 1, 17)
    kinds = [json.loads(line)["kind"] for line in exported.stdout.splitlines()]
    assert (kinds.count("event"), kinds.count("document")) == (17, 5)


async def test_a_command_without_a_log_ends_with_reason_and_remedy(house: House, tmp_path: Path) -> None:
    """One JSON object on standard error, no trace."""
    house.folder = tmp_path / "nowhere"

    ended = await asyncio.to_thread(command, house, "replay")

    assert ended.returncode == 1
    assert {"code", "reason", "message", "remedy"} <= json.loads(ended.stderr.splitlines()[-1]).keys()
