"""One execution under way, pauses included, and those who follow it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from orchestrator.domain.events import Event
from orchestrator.domain.mission import Mission
from orchestrator.service.event_log import PAGE
from orchestrator.service.requests import Request, reused

KEPT: Final = 1024


@dataclass(slots=True, eq=False, kw_only=True)
class Run:
    """An execution that this process drives. Followers read its events and wait for more; none of them owns it."""

    mission_id: str
    request: Request | None
    """The request it was started for; None for a queued mission and for one that was taken up after a restart."""
    past: Callable[[int, int], Iterable[Event]]
    """Returns written events of the mission: those after a sequence, up to another."""
    ended: bool = False
    goes_on: bool = False
    """Its caller is told an error, and the execution is followed all the same, by a run of its own."""
    error: BaseException | None = None
    task: "asyncio.Task[None] | None" = None
    sent_at: datetime | None = None
    """When the order was sent; None where this process has sent none."""
    unrecorded: Request | None = None
    """The request that is recorded with the next write."""
    _events: list[Event] = field(default_factory=list)
    """The newest of its events. An execution may have very many of them, and wait for weeks; the log has them all."""
    _written: int = 0
    """How many events it has."""
    _before: int = 0
    """The sequence of the mission's last event before its own."""
    _joined: dict[str, str] = field(default_factory=dict)
    """Digests of the requests that it answers, by their command ids."""
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        if self.request is not None:
            self.join(self.request)

    def join(self, request: Request) -> None:
        """Answer a request with this run, too: the one it was started for, or one for a later segment."""
        self._joined[request.command_id] = request.digest
        self.unrecorded = request

    def answers(self, request: Request) -> bool:
        """Whether a request is one of this run's.

        Raises:
            RequestRefusedError: its id is, and it asks for something else.
        """
        joined = self._joined.get(request.command_id)
        if joined is not None and joined != request.digest:
            raise reused(request)
        return joined is not None

    def published(self, events: tuple[Event, ...], mission: Mission) -> None:
        """Take what was written of the mission since the run began; the last of it is told with the run's end."""
        if events and not self._written:
            self._before = events[0].sequence - 1
        self._written += len(events)
        self._events += events
        if len(self._events) > 2 * KEPT:
            del self._events[:-KEPT]
        if not mission.has_ended:
            self._wake()

    @property
    def written(self) -> int:
        """How many events were written since it began."""
        return self._written

    def end(self, error: BaseException | None) -> None:
        self.ended = True
        self.error = error
        self._wake()

    async def follow(self, seen: int = 0) -> AsyncGenerator[tuple[Event, ...], None]:
        """Yield what was written, from so many events after the beginning of the run to its end.

        Raises:
            OrchestratorError: what ended the run, where it did not come to a receipt.
        """
        while True:
            if self._written > seen:
                batch = self._after(seen)
                seen += len(batch)
                yield batch
            elif self.ended:
                break
            else:
                await self._news.wait()
        if self.error is not None:
            raise self.error

    def _after(self, seen: int) -> tuple[Event, ...]:
        """Return events after so many of them: all that are kept, or a page of the log."""
        forgotten = self._written - len(self._events)
        if seen >= forgotten:
            return tuple(self._events[seen - forgotten :])
        first = self._before + seen
        return tuple(self.past(first, min(first + PAGE, self._before + forgotten)))

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
