"""A mission's events for those who watch: the past first, then what happens until the mission has ended."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

from orchestrator.domain.errors import Reason, RequestRefusedError
from orchestrator.domain.events import Event
from orchestrator.domain.whiteboard import Whiteboard, whiteboard
from orchestrator.service.event_log import EventLog, StoredEvent
from orchestrator.service.mission_store import ENDING, MissionStore
from orchestrator.service.ports import EventCodec
from orchestrator.service.streams import mission_stream

HEARTBEAT_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Watching:
    """Reads and follows missions' streams."""

    log: EventLog
    store: MissionStore
    codec: EventCodec
    draining: asyncio.Event
    heartbeat_seconds: float = HEARTBEAT_SECONDS

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
            for batch in self._pages(mission.mission_id, after):
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

    def _pages(self, mission_id: str, after: int) -> "list[tuple[Event, ...]]":
        stream, pages = mission_stream(mission_id), []
        while page := self.log.read_stream(stream, after):
            pages.append(self._decoded(page))
            after = page[-1].version
        return pages

    async def _followed(self, mission_id: str, after: int) -> AsyncGenerator[tuple[Event, ...], None]:
        subscription = self.log.subscribe_stream(mission_stream(mission_id), after)
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
        return tuple(self.codec.decode(stored) for stored in page)


async def _ended(*tasks: "asyncio.Task[Any] | None") -> None:
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
