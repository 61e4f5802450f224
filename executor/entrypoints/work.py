"""Calls that run in a thread while a coroutine waits for them: one hop there, one hop back, and nothing in between.

What asyncio brings for this wraps a future into a future into a future, and asks the event loop for a turn at each;
on the calls of a small mission that was a tenth of the time.
"""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Work(Generic[T]):
    """One call in a thread. Whoever waits for it may go away; the call goes on to its end.

    Made, waited for and asked in the event loop's thread.
    """

    def __init__(self, pool: ThreadPoolExecutor, call: Callable[..., T], *arguments: object) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._value: list[T] = []
        self._error: BaseException | None = None
        self._done = False
        pool.submit(self._run, call, arguments)

    async def ended(self, seconds: float | None = None) -> bool:
        """Wait for the end, at most for some seconds, and tell whether it has come. One waits at a time."""
        if self._done:
            return True
        self._waiter = self._loop.create_future()
        timer = None if seconds is None else self._loop.call_later(seconds, self._wake)
        try:
            await self._waiter
        finally:
            if timer is not None:
                timer.cancel()
        return self._done

    def look(self) -> None:
        """Have whoever waits for the end look at what there is meanwhile. Any thread may call it."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits
            self._loop.call_soon_threadsafe(self._wake)

    def result(self) -> T:
        """Return what the call returned, or raise what it raised; only after its end."""
        if self._error is not None:
            raise self._error
        return self._value[0]

    async def answer(self) -> T:
        """Wait for the end and return what the call returned."""
        await self.ended()
        return self.result()

    def _run(self, call: Callable[..., T], arguments: tuple[object, ...]) -> None:
        try:
            self._value.append(call(*arguments))
        except BaseException as error:  # noqa: BLE001 - it is the waiting coroutine's, whatever it is
            self._error = error
        self._done = True  # before the loop is told: a waiter that comes in between sees it and does not wait
        self.look()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
