"""A channel to the executor that goes on with new certificates.

gRPC's client side reads its certificates once, when a channel is made. So there is a new channel after each change,
made at the first call after it; calls that are under way stay on the old one, which closes when the last of them has
ended.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Self

import grpc

from orchestrator.adapters.certificates import CertificateFiles, Certificates

LOOK_SECONDS: Final = 1.0
"""How often at most the files are looked at; calls in between cost no system call."""


class ReloadingChannel(grpc.aio.Channel):
    """A channel for stubs.

    Args:
        files: this side's certificates.
        open_channel: makes a channel with some certificates.
        monotonic: a clock that only goes forwards.
    """

    def __init__(
        self,
        files: CertificateFiles,
        open_channel: Callable[[Certificates], grpc.aio.Channel],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = files
        self._open = open_channel
        self._monotonic = monotonic
        self._known = files.current()
        self._look_again = monotonic() + LOOK_SECONDS
        self._line = _Line(open_channel(self._known))
        self._old: set[_Line] = set()
        self._closing: set[asyncio.Task[None]] = set()

    def line(self) -> "_Line":
        """Return what the next call goes over."""
        if self._monotonic() >= self._look_again:
            self._look()
        return self._line

    def ended(self, line: "_Line") -> None:
        """Take note that a call has ended; an old line without any is closed."""
        line.calls -= 1
        self._close_unused(line)

    async def close(self, grace: float | None = None) -> None:
        for line in (self._line, *self._old):
            await line.channel.close(grace)
        await asyncio.gather(*self._closing)

    def unary_unary(self, *place: Any, **options: Any) -> Any:
        return _Method(self, "unary_unary", place, options)

    def unary_stream(self, *place: Any, **options: Any) -> Any:
        return _Method(self, "unary_stream", place, options)

    def stream_unary(self, *place: Any, **options: Any) -> Any:
        return _Method(self, "stream_unary", place, options)

    def stream_stream(self, *place: Any, **options: Any) -> Any:
        return _Method(self, "stream_stream", place, options)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        return self._line.channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._line.channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._line.channel.channel_ready()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    def _look(self) -> None:
        self._look_again = self._monotonic() + LOOK_SECONDS
        found = self._files.current()
        if found is self._known:
            return
        self._known, old = found, self._line
        self._line = _Line(self._open(found))
        self._old.add(old)
        self._close_unused(old)

    def _close_unused(self, line: "_Line") -> None:
        if line in self._old and not line.calls:
            self._old.remove(line)
            closing = asyncio.get_running_loop().create_task(line.channel.close())
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)


class _Line:
    """One channel, and how many calls are under way on it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.calls = 0
        self._methods: dict[tuple[str, str], Any] = {}

    def method(self, kind: str, place: Sequence[Any], options: dict[str, Any]) -> Any:
        """Return what makes a call; it is made once for each method."""
        key = kind, str(place[0])
        known = self._methods.get(key)
        if known is None:
            known = self._methods[key] = getattr(self.channel, kind)(*place, **options)
        return known


class _Method:
    """One method, called on the line of the moment."""

    def __init__(self, channel: ReloadingChannel, kind: str, place: Sequence[Any], options: dict[str, Any]) -> None:
        self._channel = channel
        self._kind = kind
        self._place = place
        self._options = options

    def __call__(self, *request: Any, **options: Any) -> Any:
        line = self._channel.line()
        call = line.method(self._kind, self._place, self._options)(*request, **options)
        line.calls += 1
        call.add_done_callback(lambda _call: self._channel.ended(line))
        return call
