"""One execution as it goes: its events, who watches it, and its end.

Events are recorded by the execution's own thread and become visible to watchers once they are durable, so that nobody
ever saw an event which a restart takes back. Nothing is woken for a single event: watchers are woken when a batch
became durable, and at the end.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from executor.domain.control import ExecutionState, Pause
from executor.domain.errors import StoreError
from executor.domain.events import Payload
from executor.domain.redaction import NO_SECRETS, Redactor
from executor.domain.sealed import SealedBytes
from executor.runner.clock import wall_time
from executor.runner.ids import new_id
from executor.runner.ports import Event, ExecutionRecord
from executor.runner.redacted import redacted

Wake = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What a watcher sees: the events after those that it knows, and the end where that has come."""

    events: tuple[Event, ...]
    record: ExecutionRecord
    receipt: SealedBytes | None
    failure: StoreError | None
    """The execution ended, and its receipt could not be stored."""
    pause: Pause | None = None
    """What it waits for."""
    segment: int = 0
    """The segment that it is in."""

    @property
    def ended(self) -> bool:
        return self.receipt is not None or self.failure is not None

    @property
    def state(self) -> ExecutionState:
        """Whether it goes on."""
        if self.record.ended:
            return ExecutionState.ENDED
        return ExecutionState.RUNNING if self.pause is None else ExecutionState.PAUSED


class Recorder:
    """Numbers the events of one mission's work in the order in which they are recorded, and lets no secret into one."""

    def __init__(
        self,
        mission_id: str,
        *,
        recorded: int = 0,
        earlier: Sequence[Event] = (),
        redactor: Redactor = NO_SECRETS,
    ) -> None:
        self._mission_id = mission_id
        self._redactor = redactor
        self._recorded = recorded
        self._events: list[Event] = list(earlier)
        self._lock = threading.Lock()

    def __call__(self, payload: Payload) -> None:
        """Record that something happened now; any thread of the work may."""
        with self._lock:
            event = Event(
                event_id=new_id("e"),
                mission_id=self._mission_id,
                sequence=self._recorded + len(self._events) + 1,
                time=wall_time(),
                payload=redacted(payload, self._redactor),
            )
            self._events.append(event)

    def after(self, sequence: int) -> tuple[Event, ...]:
        """Return the recorded events after a place. Safe beside the thread that records: the list only grows."""
        return tuple(self._events[max(0, sequence - self._recorded) :])

    @property
    def count(self) -> int:
        """How many events there are, those recorded before this process included."""
        return self._recorded + len(self._events)


class Run:
    """An execution of this process. One thread records, one flushes, any number watch."""

    def __init__(self, record: ExecutionRecord, recorder: Recorder, *, durable: int = 0) -> None:
        self._record = record
        self._recorder = recorder
        self._durable = durable
        self._pause: Pause | None = None
        self._segment = 0
        self._receipt: SealedBytes | None = None
        self._failure: StoreError | None = None
        self._watchers: dict[object, Wake] = {}
        self._lock = threading.Lock()

    @property
    def execution_id(self) -> str:
        return self._record.execution_id

    @property
    def mission_id(self) -> str:
        return self._record.mission_id

    @property
    def failure(self) -> StoreError | None:
        """Why the end could not be stored; None where it was, or has not come."""
        return self._failure

    def pending(self) -> tuple[Event, ...]:
        """Return what is recorded and not yet durable."""
        return self._recorder.after(self._durable)

    def made_durable(self, sequence: int) -> None:
        """Let watchers see the events up to a place."""
        with self._lock:
            self._durable = sequence
        self._wake()

    def stands(self, pause: Pause | None, segment: int) -> None:
        """Let watchers see what it waits for, or that it goes on; what says so is durable."""
        with self._lock:
            self._pause, self._segment = pause, segment
        self._wake()

    def end(self, record: ExecutionRecord, receipt: SealedBytes) -> None:
        """Let watchers see the end; everything is durable."""
        with self._lock:
            self._record = record
            self._durable = record.last_sequence
            self._receipt = receipt
            self._failure = None
        self._wake()

    def fail(self, error: StoreError) -> None:
        """Let watchers know that the end could not be stored; it is tried again, at the latest by a restart."""
        with self._lock:
            self._failure = error
        self._wake()

    def progress(self, after: int) -> Progress:
        """Return what is visible after a place."""
        with self._lock:
            return Progress(
                events=self._recorder.after(after)[: max(0, self._durable - after)],
                record=replace(self._record, last_sequence=self._durable),
                receipt=self._receipt,
                failure=self._failure,
                pause=self._pause,
                segment=self._segment,
            )

    def watch(self, wake: Wake) -> Callable[[], None]:
        """Have `wake` called, from any thread, whenever there may be something new; returns how to end that."""
        key = object()
        with self._lock:
            self._watchers[key] = wake

        def leave() -> None:
            with self._lock:
                self._watchers.pop(key, None)

        return leave

    def _wake(self) -> None:
        with self._lock:
            wakes = tuple(self._watchers.values())
        for wake in wakes:
            wake()
