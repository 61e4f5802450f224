"""A mission's events for those who watch: the past first, then what happens until the mission has ended.

Many watch the same mission at the same time. So a batch is read and decoded once, and all of them get the very same
tuple: whoever makes a message of it can do that once, too.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from orchestrator.domain.errors import Reason, RequestRefusedError
from orchestrator.domain.events import Event
from orchestrator.domain.whiteboard import Whiteboard, whiteboard
from orchestrator.service.event_log import PAGE, EventLog, StoredEvent
from orchestrator.service.mission_store import ENDING, MissionStore
from orchestrator.service.ports import EventCodec
from orchestrator.service.recent import Recent
from orchestrator.service.streams import mission_stream

HEARTBEAT_SECONDS: Final = 15.0
SHARED_BATCHES: Final = 128
"""Batches that are kept for others, of at most `PAGE` events each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """Reads and follows missions' streams."""

    log: EventLog
    store: MissionStore
    codec: EventCodec
    draining: asyncio.Event
    heartbeat_seconds: float = HEARTBEAT_SECONDS
    _batches: Recent[tuple[str, int, int], tuple[Event, ...]] = field(default_factory=lambda: Recent(SHARED_BATCHES))
    """By stream, first and last version."""

    async def watch(self, mission_id: str, after: int, *, follow: bool) -> AsyncGenerator[tuple[Event, ...], None]:
        """Yield batches of events after a sequence; an empty batch is a heartbeat.

        Following ends with the mission, or when this service is about to stop.

        Raises:
            RequestRefusedError: there is no such event to go on after.
        """
        mission = self.store.find(mission_id)
        last = self.log.stream_version(mission_stream(mission.mission_id))
        if after > last:
            raise RequestRefusedError(
                Reason.RESUME_TOKEN_INVALID,
                "the resume token points behind the mission's last event",
                "Watch without a token, from the first event.",
            )
        if not follow or mission.has_ended:
            async with aclosing(self._pages(mission_stream(mission.mission_id), after)) as pages:
                async for batch in pages:
                    yield batch
            return
        async with aclosing(self._followed(mission.mission_id, after)) as batches:
            async for batch in batches:
                yield batch
                if any(type(event.payload) in ENDING for event in batch):
                    return

    def board(self, reference: str) -> Whiteboard:
        """Return a mission's whiteboard, folded from its events.

        Raises:
            RequestRefusedError: there is no such mission.
        """
        mission_id = self.store.find(reference).mission_id
        board = whiteboard(self.store.events(mission_id))
        if board is None:
            raise RequestRefusedError(Reason.NOT_FOUND, "the mission has no events", "List the missions.")
        return board

    async def _pages(self, stream: str, after: int) -> AsyncGenerator[tuple[Event, ...], None]:
        """Yield what there is, a page at a time: nobody holds a long mission whole."""
        while (page := self._page(stream, after)) and not self.draining.is_set():
            yield page
            after = page[-1].sequence
            await asyncio.sleep(0)  # a long way to catch up must not starve the loop

    def _page(self, stream: str, after: int) -> tuple[Event, ...]:
        """Return the next events that are there; none at the end."""
        last = min(after + PAGE, self.log.stream_version(stream))
        if last <= after:
            return ()
        known = self._batches.get((stream, after + 1, last))
        return known or self._decoded(self.log.read_stream(stream, after)[: last - after])

    async def _followed(self, mission_id: str, after: int) -> AsyncGenerator[tuple[Event, ...], None]:
        stream = mission_stream(mission_id)
        async with aclosing(self._pages(stream, after)) as pages:
            async for page in pages:
                yield page
                after = page[-1].sequence
        subscription = self.log.subscribe_stream(stream, after)
        drained = asyncio.ensure_future(self.draining.wait())
        waiting: asyncio.Task[tuple[StoredEvent, ...]] | None = None
        try:
            while not self.draining.is_set():
                waiting = waiting or asyncio.ensure_future(anext(subscription))
                done, _ = await asyncio.wait(
                    {waiting, drained}, timeout=self.heartbeat_seconds, return_when=asyncio.FIRST_COMPLETED
                )
                if waiting in done:
                    batch, waiting = waiting.result(), None
                    yield self._decoded(batch)
                elif not done:
                    yield ()
        finally:
            await _ended(drained, waiting)
            await subscription.aclose()

    def _decoded(self, page: tuple[StoredEvent, ...]) -> tuple[Event, ...]:
        key = (page[0].stream_id, page[0].version, page[-1].version)
        return self._batches.made(key, lambda: tuple(self.codec.decode(stored) for stored in page))


async def _ended(*tasks: "asyncio.Task[Any] | None") -> None:
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
