"""One execution under way, and those who follow it."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import datetime

from orchestrator.domain.events import Event
from orchestrator.domain.mission import Mission
from orchestrator.service.requests import Request


@dataclass(slots=True, eq=False)
class Run:
    """An execution that this process drives. Followers read its events and wait for more; none of them owns it."""

    mission_id: str
    request: Request | None
    """The request it was started for; None for a queued mission and for one that was taken up after a restart."""
    events: list[Event] = field(default_factory=list)
    ended: bool = False
    goes_on: bool = False
    """Its caller is told an error, and the execution is followed all the same, by a run of its own."""
    error: BaseException | None = None
    task: "asyncio.Task[None] | None" = None
    sent_at: datetime | None = None
    """When the order was sent; None where this process has sent none."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def published(self, events: tuple[Event, ...], mission: Mission) -> None:
        """Take what was written of the mission since the run began; the last of it is told with the run's end."""
        self.events += events
        if not mission.has_ended:
            self._wake()

    def end(self, error: BaseException | None) -> None:
        self.ended = True
        self.error = error
        self._wake()

    async def follow(self) -> AsyncGenerator[tuple[Event, ...], None]:
        """Yield what was written, from the beginning of the run to its end.

        Raises:
            OrchestratorError: what ended the run, where it did not come to a receipt.
        """
        seen = 0
        while True:
            if len(self.events) > seen:
                batch = tuple(self.events[seen:])
                seen += len(batch)
                yield batch
            elif self.ended:
                break
            else:
                await self._news.wait()
        if self.error is not None:
            raise self.error

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
