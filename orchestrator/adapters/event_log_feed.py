"""Live tails: how what was just written reaches those who watch, without a queue for each of them.

A tail keeps the newest events once, for all its watchers, and wakes them by setting and replacing one event. A watcher
that is further behind than the tail reaches back reads pages from the database until it is not. Everything here
runs on one event loop; the store hands a loop's feed what was committed, in that loop.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final, TypeAlias

from orchestrator.adapters.event_log_writer import Written
from orchestrator.service.event_log import PAGE, EventReader, StoredEvent
from orchestrator.service.event_log_errors import StoreClosed, StoreUnusable

_ALL_KEPT: Final = 8192
_STREAM_KEPT: Final = 256

Batch: TypeAlias = tuple[StoredEvent, ...]
_Number: TypeAlias = Callable[[StoredEvent], int]


def _pos(event: StoredEvent) -> int:
    return event.pos


def _version(event: StoredEvent) -> int:
    return event.version


class _Tail:
    """The newest events of one contiguous numbering (`pos`, or one stream's `version`)."""

    def __init__(self, number: _Number, keep: int) -> None:
        self.number = number
        self.end = 0
        self.watchers = 0
        self._keep = keep
        self._events: list[StoredEvent] = []
        self._news = asyncio.Event()

    def publish(self, events: Sequence[StoredEvent]) -> None:
        fresh = [event for event in events if self.number(event) > self.end]
        if not fresh:
            return
        if self.number(fresh[0]) != self.end + 1:
            self._events.clear()  # One batch overtook another on its way here; watchers read both from the database.
        self._events += fresh
        self.end = self.number(fresh[-1])
        if len(self._events) > 2 * self._keep:
            del self._events[: -self._keep]
        self.wake()

    def wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def after(self, cursor: int) -> Batch | None:
        """Returns what is kept after the cursor, none when it is at the end, None when it is further behind."""
        behind = self.end - cursor
        if behind <= 0:
            return ()
        if behind > len(self._events):
            return None
        start = len(self._events) - behind
        return tuple(self._events[start : start + PAGE])

    async def news(self) -> None:
        await self._news.wait()


class LoopFeed:
    """All tails of one event loop. A tail lives from its first watcher to its last."""

    def __init__(self, reader: EventReader, *, all_kept: int = _ALL_KEPT, stream_kept: int = _STREAM_KEPT) -> None:
        self._reader = reader
        self._all_kept = all_kept
        self._stream_kept = stream_kept
        self._tails: dict[str | None, _Tail] = {}  # None is the tail of all events
        self._closed = False

    @property
    def idle(self) -> bool:
        return not self._tails

    def publish(self, written: Sequence[Written]) -> None:
        """Hands on what was committed; only events that somebody here watches are even built."""
        everything = self._tails.get(None)
        for append in written:
            stream = self._tails.get(append.stream_id)
            if everything is None and stream is None:
                continue
            events = append.events()
            for tail in (everything, stream):
                if tail is not None:
                    tail.publish(events)

    def close(self) -> None:
        self._closed = True
        for tail in self._tails.values():
            tail.wake()

    async def follow(self, stream_id: str | None, cursor: int) -> AsyncGenerator[Batch, None]:
        """Yields the events after the cursor, of one stream or (None) of all, then those to come."""
        tail = self._join(stream_id)
        try:
            while not self._closed:
                batch = tail.after(cursor)
                if batch is None:
                    batch = self._page(stream_id, cursor)
                    await asyncio.sleep(0)  # a long way to catch up must not starve the loop
                if batch:
                    cursor = tail.number(batch[-1])
                    yield batch
                else:
                    await tail.news()
            raise StoreClosed("the event log was closed")
        finally:
            self._leave(stream_id, tail)

    def _page(self, stream_id: str | None, cursor: int) -> Batch:
        page = self._reader.read_all(cursor) if stream_id is None else self._reader.read_stream(stream_id, cursor)
        if not page:
            raise StoreUnusable(f"events after {cursor} were announced but are not there")
        return page

    def _join(self, stream_id: str | None) -> _Tail:
        tail = self._tails.get(stream_id)
        if tail is None:
            tail = _Tail(_pos, self._all_kept) if stream_id is None else _Tail(_version, self._stream_kept)
            # First listen, then look: what is committed in between comes twice and is dropped once.
            self._tails[stream_id] = tail
            tail.end = self._reader.head() if stream_id is None else self._reader.stream_version(stream_id)
        tail.watchers += 1
        return tail

    def _leave(self, stream_id: str | None, tail: _Tail) -> None:
        tail.watchers -= 1
        if not tail.watchers:
            del self._tails[stream_id]
