"""What the executor said about itself, remembered: asking anew for every mission would double its calls."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Final, Protocol

from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.evidence import ExecutorInfo, TrustedKey
from orchestrator.service.ports import Clock

STALE_AFTER: Final = timedelta(seconds=30)


class Describing(Protocol):
    """The executor, as far as it tells about itself."""

    async def describe(self) -> ExecutorInfo: ...


class ExecutorCard:
    """The executor's own description: asked for when first needed, when it is old, and when it lacks something."""

    def __init__(self, executor: Describing, clock: Clock) -> None:
        self._executor = executor
        self._clock = clock
        self._info: ExecutorInfo | None = None
        self._read_at = clock.now()
        self._refreshing: asyncio.Task[ExecutorInfo] | None = None

    async def get(self) -> ExecutorInfo:
        """Return what is known; an old description is still used, while a new one is on its way.

        Raises:
            ExecutorUnavailableError: nothing is known, and the executor can not be asked.
        """
        if self._info is None:
            return await self.refresh()
        if self._clock.now() - self._read_at > STALE_AFTER and self._refreshing is None:
            self._refresh_soon()
        return self._info

    async def refresh(self) -> ExecutorInfo:
        """Ask the executor, together with whoever else is asking now."""
        if self._refreshing is None:
            self._refresh_soon()
        assert self._refreshing is not None  # noqa: S101 - set in the line above, and nothing awaits in between
        return await asyncio.shield(self._refreshing)

    async def holding(self, wanted: Callable[[ExecutorInfo], bool]) -> ExecutorInfo:
        """Return a description that holds what is wanted, or the newest one where none does."""
        info = await self.get()
        return info if wanted(info) else await self.refresh()

    async def key_of(
        self, person: str, key_id: str, scheme: str, policy_digest: str
    ) -> tuple[ExecutorInfo, TrustedKey | None]:
        """Return the executor's entry for a person's key, asking once more where it or the policy is not known."""
        info = await self.holding(
            lambda known: known.policy_digest == policy_digest and _key(known, person, key_id, scheme) is not None
        )
        return info, _key(info, person, key_id, scheme)

    def _refresh_soon(self) -> None:
        self._refreshing = asyncio.ensure_future(self._read())
        self._refreshing.add_done_callback(self._read_ended)

    async def _read(self) -> ExecutorInfo:
        self._info = await self._executor.describe()
        self._read_at = self._clock.now()
        return self._info

    def _read_ended(self, task: asyncio.Task[ExecutorInfo]) -> None:
        self._refreshing = None
        if not task.cancelled() and isinstance(task.exception(), OrchestratorError):
            return  # whoever waits has it; where nobody waits the old description stays, and is asked for again


def _key(info: ExecutorInfo, person: str, key_id: str, scheme: str) -> TrustedKey | None:
    keys = (key for known in info.persons if known.person == person for key in known.keys)
    return next((key for key in keys if key.key_id == key_id and key.scheme == scheme), None)
