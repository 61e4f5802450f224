"""Event logs of any length for benchmarks, and the orchestrator alone on one of them."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from client.services import start, wait_ready
from client.state import StateDirectory
from orchestrator.adapters.audit_key import load_log_key
from orchestrator.adapters.event_codec import JsonEventCodec
from orchestrator.adapters.event_log_sqlite import SqliteEventLog
from orchestrator.bootstrap import open_log
from orchestrator.domain import events as ev
from orchestrator.domain.mission import Mission, evolve
from orchestrator.service.event_log import Append
from orchestrator.service.mission_row import mission_row
from orchestrator.service.streams import mission_stream

TEXT = "the third paragraph says what the second one says, and it should not; the rest is as it was asked for"
SIDE_BY_SIDE = 256
APPENDED = 100

_codec = JsonEventCodec()


def initialise(state: Path) -> None:
    """Make a state directory with its keys."""
    environment = {**os.environ, "GONOGO_STATE": str(state)}
    subprocess.run([sys.executable, "-m", "client", "init"], env=environment, check=True, stdout=subprocess.DEVNULL)


def mission_id(number: int) -> str:
    """Return the id of one of the missions."""
    return f"m-{number:020}"


def write(state: Path, *, missions: int, events_each: int) -> None:
    """Write missions that were proposed and then much talked about; no service may run on the state directory."""
    asyncio.run(_write(state, missions, events_each))


async def _write(state: Path, missions: int, events_each: int) -> None:
    log = open_log(state / "orchestrator" / "events.db", load_log_key(state / "keys" / "orchestrator"))
    try:
        for first in range(1, missions + 1, SIDE_BY_SIDE):
            numbers = range(first, min(first + SIDE_BY_SIDE, missions + 1))
            await asyncio.gather(*(_mission(log, number, events_each) for number in numbers))
    finally:
        log.close()


async def _mission(log: SqliteEventLog, number: int, events: int) -> None:
    proposed = ev.MissionProposed(
        intent_id="i-1", objective="be watched", workspace_id="work", executor_id="executor-1", proposer="owner"
    )
    said = (ev.FeedbackRecorded(text=f"{number}: {TEXT}") for number in range(events - 1))
    payloads: Sequence[ev.Payload] = (proposed, *said)
    mission: Mission | None = None
    for first in range(0, events, APPENDED):
        new = []
        for sequence, payload in enumerate(payloads[first : first + APPENDED], first + 1):
            event = ev.Event(
                event_id=ev.event_id(mission_id(number), sequence),
                mission_id=mission_id(number),
                sequence=sequence,
                time=datetime.now(UTC),
                actor="owner",
                payload=payload,
            )
            mission = evolve(mission, event)
            new.append(_codec.encode(payload, time=event.time, actor="owner"))
        rows = () if mission is None else (mission_row(mission),)
        stream = mission_stream(mission_id(number))
        await log.append(Append(stream_id=stream, expected_version=first, events=tuple(new), projections=rows))


@contextmanager
def orchestrator_on(state: StateDirectory) -> Iterator[str]:
    """Run the orchestrator alone; yield its address."""
    run = state.root / "run"
    run.mkdir(exist_ok=True)
    arguments = ["orchestrator", "serve", "--state", str(state.root), "--executor", "127.0.0.1:9"]
    service = start("orchestrator", [*arguments, "--listen", "127.0.0.1:0"], run)
    try:
        address = wait_ready(service, lambda: False)
        if address is None:
            raise RuntimeError(service.last_lines())
        yield address
    finally:
        service.process.terminate()
        service.process.wait(timeout=30)
