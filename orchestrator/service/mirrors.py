"""Mirrors: files of JSON lines that follow the log, for whoever works with `tail -f`, `grep` and `jq`.

A mirror is derived and nothing is derived from it. It is written behind the commits, by a task that looks twice a
second whether the log has grown: an append knows nothing of mirrors, and there is no way on which a full disk under
one, or a file that is not writable, reaches a mission. What fails is tried again, for as long as it takes.

The work is done in a thread, a small page at a time. A page takes less than a millisecond of the interpreter, so that
catching up with a long log does not keep the calls waiting.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

from orchestrator.domain.errors import OrchestratorError
from orchestrator.service.event_log import EventReader, StoredEvent
from orchestrator.service.event_log_errors import EventLogError
from orchestrator.service.mirror_lines import MissionLines, SignalLines
from orchestrator.service.ports import EventCodec

MISSIONS_FILE: Final = "missions.jsonl"
SIGNALS_FILE: Final = "learning_signals.jsonl"

LOOK_EVERY: Final = 0.5
"""Seconds between two looks at whether the log has grown, or a mirror is not as it was left."""
CLOSING_SECONDS: Final = 1.0
"""How long the end of the service may wait for the last lines; the next start writes what is missing."""
PAUSE_AFTER_DEFECT: Final = 30.0
PAGE: Final = 64
_BREATH: Final = 0.001
_PAGES_BETWEEN_KEEPING: Final = 256

_log = logging.getLogger(__name__)

Lines: TypeAlias = Callable[[StoredEvent], Iterable[str]]


class MirrorFiles(Protocol):
    """Append-only files, each with a cursor: which event it has reached, and how long it was then.

    Calls block on the disk and must not overlap. Every call raises `OSError` when the file can not be read or written;
    then nothing has changed that the next `position` does not mend.
    """

    def position(self, name: str) -> int:
        """Return the `pos` that a file has reached, after mending it.

        What is behind the cursor's length is cut. A file that is missing, or is shorter than the cursor says, is begun
        again, at 0.
        """
        ...

    def leaf(self, name: str) -> str:
        """Return the hash, in hex, of the event that a file has reached; empty at 0."""
        ...

    def restart(self, name: str) -> None:
        """Empty a file, so that it is written again from the first event."""
        ...

    def append(self, name: str, lines: Iterable[str], reached: StoredEvent) -> None:
        """Add lines and move the cursor, in memory, to the event that they bring the file to."""
        ...

    def keep(self) -> None:
        """Make what was appended durable, then store the cursors. Does nothing where none has moved."""
        ...


@dataclass(slots=True, kw_only=True, eq=False)
class Mirrors:
    """Keeps the mirrors behind a log. `reader` is used by one thread at a time, and by nobody else."""

    reader: EventReader
    files: MirrorFiles
    lines: Mapping[str, Lines]
    _compared: set[str] = field(default_factory=set)
    _told: dict[str, str] = field(default_factory=dict)
    """Why a mirror was not written, as the service log has it."""
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _hurried: bool = False
    """What is still missing is left to the next start."""
    _task: "asyncio.Task[None] | None" = None

    def start(self) -> None:
        """Begin to follow the log; needs a running event loop."""
        self._task = asyncio.ensure_future(self._follow())

    async def close(self) -> bool:
        """Write what is missing, for a moment, and stop; return whether the reader is free.

        It is not where a disk does not answer: its thread can not be stopped, and nobody waits for it.
        """
        if self._task is None:
            return True
        self._stopping.set()
        _, late = await asyncio.wait({self._task}, timeout=CLOSING_SECONDS)
        if late:
            self._hurried = True
            _, late = await asyncio.wait(late, timeout=CLOSING_SECONDS)
        return not late

    async def catch_up(self) -> None:
        """Bring every mirror that can be written to the log's end; what can not is told once and left for later."""
        failed: set[str] = set()
        pages = 1
        while await asyncio.to_thread(self.write_page, failed) and not self._hurried:
            if pages % _PAGES_BETWEEN_KEEPING == 0:
                await asyncio.to_thread(self.keep, failed)
            pages += 1
            await asyncio.sleep(_BREATH)  # so that others get at the interpreter and the disk
        await asyncio.to_thread(self.keep, failed)
        for name in self._told.keys() - failed:
            _log.info("%s is written again", name)
            del self._told[name]

    def write_page(self, failed: set[str]) -> bool:
        """Write the next events to the mirrors that are furthest behind; return whether there may be more.

        Args:
            failed: mirrors to leave out; those that fail now are added.
        """
        reached = self._reached(failed)
        if not reached:
            return False
        page: tuple[StoredEvent, ...] = ()
        with self._telling("what the log holds", failed):
            page = self.reader.read_all(min(reached.values()), PAGE)
        for name, position in reached.items():
            with self._telling(name, failed):
                fresh = [stored for stored in page if stored.pos > position]
                if fresh:
                    lines = [line for stored in fresh for line in self.lines[name](stored)]
                    self.files.append(name, lines, fresh[-1])
        return len(page) == PAGE

    def _reached(self, failed: set[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for name in self.lines.keys() - failed:
            with self._telling(name, failed):
                if name not in self._compared:
                    self._compare(name)
                    self._compared.add(name)
                found[name] = self.files.position(name)
        return found

    def _compare(self, name: str) -> None:
        """Begin a mirror again that was written from another log: one that was put back or replaced since."""
        position = self.files.position(name)
        if not position:
            return
        there = self.reader.read_all(position - 1, 1)
        if not there or there[0].leaf_hash.hex() != self.files.leaf(name):
            self.files.restart(name)

    def keep(self, failed: set[str]) -> None:
        """Make durable what was written, so that it is not written again after a crash."""
        with self._telling("the mirrors' cursors", failed):
            self.files.keep()

    @contextlib.contextmanager
    def _telling(self, name: str, failed: set[str]) -> Iterator[None]:
        """Leave a mirror alone that fails, and say why, once: this is tried twice a second."""
        try:
            yield
        except (OSError, OrchestratorError, EventLogError) as error:
            failed.add(name)
            if self._told.get(name) != str(error):
                self._told[name] = str(error)
                _log.warning("%s waits to be written: %s", name, error)

    async def _follow(self) -> None:
        while True:
            last, pause = self._stopping.is_set(), LOOK_EVERY
            try:
                await self.catch_up()
            except Exception:  # noqa: BLE001 - a later round must come all the same; it is logged whole
                _log.exception("the mirrors can not be written")
                pause = PAUSE_AFTER_DEFECT
            if last:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)


def mirrors_of(reader: EventReader, codec: EventCodec, files: MirrorFiles) -> Mirrors:
    """Return the two mirrors of a log."""
    lines: dict[str, Lines] = {
        MISSIONS_FILE: MissionLines(reader=reader, codec=codec),
        SIGNALS_FILE: SignalLines(reader=reader, codec=codec),
    }
    return Mirrors(reader=reader, files=files, lines=lines)
