"""An executor in this process that can die like one of its own: at any durable act, before or after it.

What a process does that outlives it are its writes to the ledger, its changes to the workspace and what it asks of far
sides. Each goes through its `Life`. Once that has ended, every further act raises `Died` in whichever thread makes it,
so nothing more gets out; threads that wait are let go, and the next life opens the same files.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import grpc
import grpc.aio
import pytest

from executor.domain.errors import StoreError
from executor.workspace.commit import Committer
from tests.fakes.dying import MUTATING, Died

T = TypeVar("T")

WRITES: Final = frozenset(
    {
        *("issue_report", "claim", "finish", "record_refusal", "record_control", "revoke"),
        *("claim_effect", "settle_effect", "forget_checkpoint"),
    }
)
"""Methods of the ledger that leave something behind, as far as missions are concerned."""
UNCOUNTED: Final = "append_events"
"""Events are written when there is time, so nobody can say which write of theirs is the next."""


class Life:
    """One executor process."""

    def __init__(self) -> None:
        self.dead = False
        self.acts = 0
        self.refused = 0
        """How many writes found no room."""
        self.died = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: int | None = None
        self._late = False
        self._full_from = 0
        self._refusing = 0
        self._lock = threading.Lock()

    def watched_from(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have `died` be set in a loop."""
        self._loop = loop
        if self.dead:
            self.died.set()

    def ends_in(self, acts: int, *, late: bool) -> None:
        """Have it end at one of its next acts; `late` means when that was done already."""
        with self._lock:
            self._end, self._late = self.acts + acts, late

    def full_in(self, acts: int, *, writes: int) -> None:
        """Have the disk take nothing from one of its next acts on, until so many writes were refused."""
        with self._lock:
            self._full_from, self._refusing = self.acts + acts, writes

    def goes_on(self) -> None:
        """Have it end at no act any more, and find room on the disk."""
        with self._lock:
            self._end, self._refusing = None, 0

    def end(self) -> None:
        """End it now."""
        self.dead = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.died.set)

    def check(self) -> None:
        """Raise where it has ended."""
        if self.dead:
            raise Died

    def act(self, real: Callable[[], T], *, counted: bool = True) -> T:
        """Do something that outlives the process, unless it dies of that."""
        with self._lock:
            self.check()
            self.acts += counted
            last = counted and self._end is not None and self.acts >= self._end
            if last and not self._late:
                self.end()
                raise Died
        done = real()
        if last:
            self.end()
        self.check()
        return done

    def write(self, real: Callable[[], T], *, counted: bool) -> T:
        """Do something that needs room on the disk."""
        with self._lock:
            self.check()
            full = self._refusing > 0 and self.acts + counted >= self._full_from
            self._refusing -= full
            self.refused += full
        if full:
            raise StoreError("STORE_FULL", "there is no room on the disk", "make some")
        return self.act(real, counted=counted)


class MortalLedger:
    """A ledger whose writes are acts of a life."""

    def __init__(self, ledger: object, life: Life) -> None:
        self._ledger = ledger
        self._life = life

    def __getattr__(self, name: str) -> Any:
        """Return the real ledger's, made an act where it writes."""
        real = getattr(self._ledger, name)
        if name not in {*WRITES, UNCOUNTED}:
            return real

        def call(*arguments: Any, **named: Any) -> Any:
            return self._life.write(lambda: real(*arguments, **named), counted=name != UNCOUNTED)

        return call


@contextmanager
def mortal_workspaces(life: Callable[[], Life]) -> Iterator[None]:
    """Make every change to a workspace an act of whichever life it is; what is dead undoes nothing."""

    def mortal(real: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **named: life().act(lambda: real(*arguments, **named))

    undo_failed = Committer._undo_failed

    def living(*arguments: Any) -> Any:
        life().check()
        return undo_failed(*arguments)

    with pytest.MonkeyPatch.context() as patched:
        for module, name in MUTATING:
            patched.setattr(module, name, mortal(getattr(module, name)))
        patched.setattr(Committer, "_undo_failed", living)
        patched.setattr(threading, "excepthook", _unless_dead(threading.excepthook))
        yield


def _unless_dead(hook: Callable[[Any], object]) -> Callable[[Any], None]:
    def told(failed: Any) -> None:
        if failed.exc_type is not Died:
            hook(failed)

    return told


class MortalChannel:
    """What a stub takes for a channel to an executor that may die; calls reach the life that there is by then.

    Args:
        current: returns the life and a channel to it.
    """

    def __init__(self, current: Callable[[], tuple[Life, Any]]) -> None:
        self._current = current

    def unary_unary(self, method: str, request_serializer: Any, response_deserializer: Any, **_: object) -> Any:
        """Return what a stub calls for one answer."""

        async def call(request: Any, **_: object) -> Any:
            life, channel = self._current()
            real = channel.unary_unary(method, request_serializer, response_deserializer)
            return await _while_it_lives(life, lambda: real(request))

        return call

    def unary_stream(self, method: str, request_serializer: Any, response_deserializer: Any, **_: object) -> Any:
        """Return what a stub calls for a stream of answers."""

        def call(request: Any, **_: object) -> MortalStream:
            life, channel = self._current()
            return MortalStream(life, channel.unary_stream(method, request_serializer, response_deserializer)(request))

        return call

    async def close(self) -> None:
        """Nothing is open."""


class MortalStream:
    """A stream that breaks off when its executor dies."""

    def __init__(self, life: Life, stream: Any) -> None:
        self._life = life
        self._stream = stream

    async def read(self) -> Any:
        """Return the next message, or that there is none."""
        return await _while_it_lives(self._life, self._stream.read)

    def add_done_callback(self, done: Callable[[object], None]) -> None:
        """Nothing is to be waited for."""
        done(self)

    def cancel(self) -> None:
        """Nothing is open."""


async def _while_it_lives(life: Life, answer: Callable[[], Awaitable[T]]) -> T:
    async def asked() -> T:
        life.check()
        return await answer()

    work, death = asyncio.ensure_future(asked()), asyncio.ensure_future(life.died.wait())
    try:
        await asyncio.wait({work, death}, return_when=asyncio.FIRST_COMPLETED)
        if work.done() and not life.dead:
            return work.result()
    finally:
        death.cancel()
        work.cancel()
        with suppress(asyncio.CancelledError, Died, Exception):
            await work
    raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), details="gone")
