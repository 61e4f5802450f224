"""What the executor keeps, for how long, and how it lets go.

- The objects that a report names are kept as long as the report may be executed, and an hour on top; those of an
  execution that has not ended stay whatever their age.
- The plans of an ended execution are kept as long as its report: a pause is restored from them, and nothing else.
- The checkpoints of an ended execution are kept so long that it can be undone; nothing else removes them.

A sweep goes in small pieces, so that no call waits for it longer than for another call, and it may be cut off anywhere:
what it removes last is the record by which the next one finds the rest. A file goes before its row; an object that is
young stays whatever the ledger says, since a dry run that is not recorded yet may rely on it.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from executor.domain.errors import ExecutorError
from executor.domain.policy import Limits
from executor.runner.ports import Checkpoint
from executor.workspace.objects import ObjectStore, ObjectUse
from executor.workspace.record import Applied
from executor.workspace.workspace import Workspace, WorkspaceBusyError

SWEEP_SECONDS = 600.0
PAUSE_SECONDS = 1.0
BUDGET_SECONDS = 5.0
GRACE = timedelta(hours=1)
YOUNG = timedelta(days=1)
REPORTS_AT_ONCE = 20
OBJECTS_AT_ONCE = 100
STRAYS_EVERY = timedelta(days=1)

log = logging.getLogger(__name__)


class ObjectRecords(Protocol):
    """What the ledger tells about who needs which object."""

    def mark_reports(self, limit: int) -> int: ...

    def renew_unfinished(self, now: datetime) -> None: ...

    def expired_objects(self, before: datetime, *, after: ObjectUse | None, limit: int) -> tuple[ObjectUse, ...]: ...

    def forget_objects(self, digests: Sequence[str], before: datetime) -> None: ...

    def is_used(self, digest: str) -> bool: ...


class KeptRecords(ObjectRecords, Protocol):
    """What the ledger tells about everything that is kept for a time."""

    def forget_plans(self, before: datetime, after: int = 0) -> int: ...

    def checkpoints_before(
        self, moment: datetime, *, after: Checkpoint | None = None, limit: int = 100
    ) -> tuple[Checkpoint, ...]: ...

    def forget_checkpoint(self, slot: str) -> None: ...


class KeptTexts(Protocol):
    """Finds texts by their words; goes by the objects that they are of."""

    def forget(self, digests: Iterable[str]) -> None:
        """Find what is of these objects no more."""
        ...

    def digests_before(self, moment: float) -> Sequence[str]:
        """Return the objects of all that was kept before a moment, in seconds since 1970."""
        ...


class NoTexts:
    """Keeps no texts."""

    def forget(self, _digests: Iterable[str]) -> None:
        pass

    def digests_before(self, _moment: float) -> Sequence[str]:
        return ()


NO_TEXTS: Final = NoTexts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What one sweep let go of."""

    objects: int
    checkpoints: int
    complete: bool
    """All that is too old was looked at; false where the time was up, or somebody asked it to stop."""


GoOn = Callable[[], bool]


class Retention:
    """Lets go of what nobody needs any more.

    Args:
        records: the ledger.
        objects: the large objects.
        workspaces: those that are served; checkpoints of another stay until it is served again.
        limits: says how long, now.
        now: effective time.
        young: how long an object stays after somebody stored it or relied on it, whoever names it.
        texts: what goes with objects.
    """

    def __init__(
        self,
        *,
        records: KeptRecords,
        objects: ObjectStore,
        workspaces: Mapping[str, Workspace],
        limits: Callable[[], Limits],
        now: Callable[[], datetime],
        young: timedelta = YOUNG,
        texts: KeptTexts = NO_TEXTS,
    ) -> None:
        self._records = records
        self._objects = objects
        self._workspaces = workspaces
        self._limits = limits
        self._now = now
        self._young = young
        self._texts = texts
        self._strays_at: datetime | None = None
        self._sweeping = threading.Lock()

    def sweep(self, *, seconds: float = BUDGET_SECONDS, stopped: Callable[[], bool] = lambda: False) -> Swept:
        """Let go of what is too old, for about some seconds at most.

        Args:
            seconds: how long it may take.
            stopped: asked again and again; the sweep ends soon after it says true.

        Raises:
            StoreError: the ledger fails; what was let go of by then is gone.
        """
        until = time.monotonic() + seconds

        def go_on() -> bool:
            return time.monotonic() < until and not stopped()

        with self._sweeping:
            checkpoints = self._sweep_checkpoints(go_on)
            objects = self._sweep_objects(go_on) + self._sweep_strays(go_on)
        return Swept(objects=objects, checkpoints=checkpoints, complete=go_on())

    def _sweep_checkpoints(self, go_on: GoOn) -> int:
        before = self._now() - self._limits().checkpoint_lifetime
        count, last = 0, None
        while go_on() and (too_old := self._records.checkpoints_before(before, after=last)):
            last = too_old[-1]
            count += sum(go_on() and self._discard(checkpoint) for checkpoint in too_old)
        return count

    def _discard(self, checkpoint: Checkpoint) -> bool:
        """Remove a checkpoint's old objects, then its row: a row without them says so when it is asked for them."""
        workspace = self._workspaces.get(checkpoint.workspace_id)
        if workspace is None:
            return False
        try:
            with workspace.lock(0):
                removed = workspace.committer(self._objects).discard(Applied.decode(checkpoint.record))
        except WorkspaceBusyError:
            return False  # the next sweep finds it again
        except (ExecutorError, OSError) as error:
            log.warning("checkpoint %s can not be removed: %s", checkpoint.slot, error)
            return False
        if not removed:
            log.warning("the old objects of checkpoint %s can not be removed", checkpoint.slot)
            return False
        self._records.forget_checkpoint(checkpoint.slot)
        return True

    def _sweep_objects(self, go_on: GoOn) -> int:
        while go_on() and self._records.mark_reports(REPORTS_AT_ONCE):
            pass
        now = self._now()
        self._records.renew_unfinished(now)
        before = now - self._limits().report_lifetime - GRACE
        self._sweep_plans(before, go_on)
        count, last = 0, None
        while go_on() and (uses := self._records.expired_objects(before, after=last, limit=OBJECTS_AT_ONCE)):
            last = uses[-1]
            gone = [use.digest for use in uses if self._remove(use.digest)]
            self._records.forget_objects(gone, before)
            self._texts.forget(digest for digest in gone if not self._objects.has(digest))
            count += len(gone)
        return count

    def _sweep_plans(self, before: datetime, go_on: GoOn) -> None:
        after = self._records.forget_plans(before)
        while after and go_on():
            after = self._records.forget_plans(before, after)

    def _sweep_strays(self, go_on: GoOn) -> int:
        """Remove what no report ever named: large objects and texts of dry runs that came to nothing."""
        now = self._now()
        if self._strays_at is not None and now - self._strays_at < STRAYS_EVERY:
            return 0
        count = 0
        for digest in self._objects.large():
            if not go_on():
                return count  # the next sweep begins again
            count += not self._records.is_used(digest) and self._remove(digest)
        texts = self._texts.digests_before(time.time() - self._young.total_seconds())
        self._texts.forget(digest for digest in texts if not self._objects.has(digest))
        self._strays_at = now
        return count

    def _remove(self, digest: str) -> bool:
        return self._objects.remove(digest, unused_since=time.time() - self._young.total_seconds())


class Sweeper:
    """Sweeps in the background: at the start, and every few minutes from then on."""

    def __init__(self, retention: Retention, *, every: float = SWEEP_SECONDS) -> None:
        self._retention = retention
        self._every = every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End; a sweep that is under way stops where it is."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._sweep()):
            pass

    def _sweep(self) -> float:
        """Sweep once and return how long to wait for the next."""
        try:
            swept = self._retention.sweep(stopped=self._stop.is_set)
        except Exception:  # nothing depends on a sweep; the next one tries again
            log.exception("a sweep failed")
            return self._every
        if swept.objects or swept.checkpoints:
            log.info("let go of %d objects and %d checkpoints", swept.objects, swept.checkpoints)
        return self._every if swept.complete else PAUSE_SECONDS
