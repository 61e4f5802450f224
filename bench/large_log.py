"""What a long log costs: the start, and the reading of one mission's whiteboard, against a short one."""

import asyncio
import tempfile
import time
from pathlib import Path

from bench.logs import initialise, mission_id, orchestrator_on, write
from bench.measure import interleaved, note, tell
from client.connection import open_channel
from client.state import StateDirectory
from gonogo.v1 import orchestrator_pb2 as pb
from gonogo.v1.orchestrator_pb2_grpc import WhiteboardServiceStub

SHORT = 10_000
LONG = 1_000_000
EVENTS_EACH = 20
READS = 200
ROUNDS = 9
ASKED = 1.5


def main() -> None:
    """Measure both."""
    with tempfile.TemporaryDirectory(prefix="gonogo-bench-", dir=".") as folder:
        short, long = (_made(Path(folder) / str(events), events) for events in (SHORT, LONG))
        starts = interleaved(lambda: _start(long), lambda: _start(short), 3)
        tell(
            "start_with_1000000_events",
            seconds=min(starts.subject),
            seconds_with_10000=min(starts.floor),
            times_the_floor=starts.times_the_floor,
        )
        with orchestrator_on(short) as near, orchestrator_on(long) as far:
            reads = interleaved(lambda: _reads(long, far, LONG), lambda: _reads(short, near, SHORT), ROUNDS)
        tell(
            "whiteboard_at_1000000_events",
            seconds=min(reads.subject) / READS,
            floor_seconds=min(reads.floor) / READS,
            times_the_floor=reads.times_the_floor,
            asked=ASKED,
        )


def _made(root: Path, events: int) -> StateDirectory:
    note(f"a log of {events} events")
    initialise(root)
    write(root, missions=events // EVENTS_EACH, events_each=EVENTS_EACH)
    return StateDirectory(root=root)


def _start(state: StateDirectory) -> float:
    started = time.perf_counter()
    with orchestrator_on(state):
        return time.perf_counter() - started


def _reads(state: StateDirectory, address: str, events: int) -> float:
    return asyncio.run(_read(state, address, events // EVENTS_EACH))


async def _read(state: StateDirectory, address: str, missions: int) -> float:
    channel = open_channel(state, address)
    stub = WhiteboardServiceStub(channel)
    try:
        await stub.GetWhiteboard(pb.GetWhiteboardRequest(mission_id=mission_id(1)))
        started = time.perf_counter()
        for number in range(READS):
            wanted = mission_id(1 + number * 7919 % missions)
            await stub.GetWhiteboard(pb.GetWhiteboardRequest(mission_id=wanted))
        return time.perf_counter() - started
    finally:
        await channel.close()
