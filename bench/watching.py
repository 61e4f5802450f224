"""Events delivered to those who watch a mission, against a stream that does nothing but send the same batches.

Both are processes of their own behind the same mutual TLS, both send the same events in batches of the same size, and
the same client counts what arrives. The floor has made its messages before the first caller came: it reads nothing,
maps nothing and looks nothing up.
"""

import asyncio
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc.aio

from bench.logs import TEXT, initialise, mission_id, orchestrator_on, write
from bench.measure import Compared, median, tell
from bench.watched_floor import READY
from client.connection import open_channel
from client.state import StateDirectory
from gonogo.v1 import orchestrator_pb2 as pb
from gonogo.v1.orchestrator_pb2_grpc import MissionServiceStub

MISSION = mission_id(1)
EVENTS = {1: 20_000, 100: 2_000, 1_000: 400}
MARKS = {1: 0.3, 100: 0.7, 1_000: 0.7}
ROUNDS = 5


def main() -> None:
    """Measure all numbers of watchers."""
    for watchers, events in EVENTS.items():
        with tempfile.TemporaryDirectory(prefix="gonogo-bench-") as folder:
            state = StateDirectory(root=Path(folder) / "state")
            initialise(state.root)
            write(state.root, missions=1, events_each=events)
            with orchestrator_on(state) as address, _floor(state.root, events) as floor:
                asyncio.run(_measure(state, address, floor, watchers, events))


@contextmanager
def _floor(state: Path, events: int) -> Iterator[str]:
    command = [sys.executable, "-m", "bench.watched_floor", str(state / "tls"), str(events), TEXT]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        said = "" if process.stdout is None else process.stdout.readline()
        if not said.startswith(READY):
            message = "the floor did not start"
            raise RuntimeError(message)
        yield said.removeprefix(READY).strip()
    finally:
        process.terminate()
        process.wait(timeout=30)


async def _measure(state: StateDirectory, address: str, floor: str, watchers: int, events: int) -> None:
    async with _channel(state, address) as ours, _channel(state, floor) as theirs:
        subject, base = [], []
        for number in range(ROUNDS + 1):
            under = await _watched(theirs, watchers, events)
            mine = await _watched(ours, watchers, events)
            if number:  # the first round warms both
                base.append(under)
                subject.append(mine)
    compared = Compared(subject=subject, floor=base)
    delivered = watchers * events
    tell(
        f"watch_{watchers}_watchers",
        events_per_second=round(delivered / median(subject)),
        floor_events_per_second=round(delivered / median(base)),
        share_of_floor=compared.share_of_floor_rate,
        asked=MARKS[watchers],
    )


@asynccontextmanager
async def _channel(state: StateDirectory, address: str) -> AsyncIterator[grpc.aio.Channel]:
    channel = open_channel(state, address)
    try:
        yield channel
    finally:
        await channel.close()


async def _watched(channel: grpc.aio.Channel, watchers: int, events: int) -> float:
    """Return how long it takes until each watcher has all events, in their order."""
    started = time.perf_counter()
    await asyncio.gather(*(_watch(channel, events) for _ in range(watchers)))
    return time.perf_counter() - started


async def _watch(channel: grpc.aio.Channel, events: int) -> None:
    stub = MissionServiceStub(channel)
    last = 0
    call = stub.WatchMission(pb.WatchMissionRequest(mission_id=MISSION, follow=True))
    try:
        async for message in call:
            if message.events:
                if message.events[0].sequence != last + 1:
                    text = f"{message.events[0].sequence} came after {last}"
                    raise RuntimeError(text)
                last = message.events[-1].sequence
            if last >= events:
                return
    finally:
        call.cancel()
