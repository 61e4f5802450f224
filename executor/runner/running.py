"""The executions of this process, from their claim to their receipt: who runs, who waits, and in which workspace."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from executor.runner.control import ControlDesk
from executor.runner.control_ports import PausedState
from executor.runner.run import Run

CLAIM_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """One execution that has not ended: what watchers see of it, and where people reach it."""

    run: Run
    desk: ControlDesk
    workspace_id: str
    untold: list[Callable[[], bool]] = field(default_factory=list)
    """Stores its end, for which there was no room; returns whether there is by now. Empty where nothing is to store."""

    def told(self) -> bool:
        """Store the end where that was not possible, and tell whether it is stored; the caller holds the workspace."""
        if self.untold and self.untold[0]():
            self.untold.clear()
        return self.run.failure is None


class Running:
    """Knows them all. Every method may be called from any thread; it is the port `control_ports.Paused`, too."""

    def __init__(self) -> None:
        self._by_id: dict[str, Live] = {}
        self._at_work: set[str] = set()
        self._changed = threading.Condition()

    def add(self, live: Live) -> None:
        """Take note of one that begins, or that is there again after a restart."""
        with self._changed:
            self._by_id[live.run.execution_id] = live
            self._at_work.add(live.run.execution_id)
            self._changed.notify_all()

    def ended(self, execution_id: str) -> None:
        """Take note that the ledger tells of it from now on."""
        with self._changed:
            self._by_id.pop(execution_id, None)

    def done(self, execution_id: str) -> None:
        """Take note that its thread has nothing more to do."""
        with self._changed:
            self._at_work.discard(execution_id)
            self._changed.notify_all()

    def look(self) -> None:
        """Have whoever waits for the end look again: somebody began to wait for a person."""
        with self._changed:
            self._changed.notify_all()

    def find(self, execution_id: str) -> Live | None:
        """Return one that the ledger says has not ended: it may be in the ledger a moment before it is here."""
        with self._changed:
            self._changed.wait_for(lambda: execution_id in self._by_id, timeout=CLAIM_SECONDS)
            return self._by_id.get(execution_id)

    def of_mission(self, mission_id: str) -> Live | None:
        """Return a mission's execution where it has not ended."""
        return self._first(lambda live: live.run.mission_id == mission_id)

    def paused_in(self, workspace_id: str) -> str:
        """Return the mission that waits for a person and holds a workspace meanwhile; empty where none does."""
        found = self._first(lambda live: live.workspace_id == workspace_id and live.desk.paused is not None)
        return "" if found is None else found.run.mission_id

    def untold_in(self, workspace_id: str) -> Live | None:
        """Return the execution whose end in a workspace could not be stored."""
        return self._first(lambda live: live.workspace_id == workspace_id and live.run.failure is not None)

    def of(self, mission_id: str) -> PausedState | None:
        """Return how a mission's execution waits."""
        live = self.of_mission(mission_id)
        return None if live is None else live.desk.paused_state()

    def drain(self, seconds: float) -> bool:
        """Wait until nothing is at work but what waits for a person; returns whether that came in time."""
        with self._changed:
            return self._changed.wait_for(self._idle, timeout=seconds)

    def settled(self, execution_id: str, seconds: float) -> bool:
        """Wait until one that is there again waits for a person, or has ended; returns whether that came in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_idle(execution_id), timeout=seconds)

    def leave(self, seconds: float) -> None:
        """Have the threads go that wait for a person, and wait for that; what they wait for is on the disk."""
        with self._changed:
            lives = tuple(self._by_id.values())
        waiting = {live.run.execution_id for live in lives if live.desk.paused is not None}
        for live in lives:
            live.desk.leave()
        with self._changed:
            self._changed.wait_for(lambda: not waiting & self._at_work, timeout=seconds)

    def _idle(self) -> bool:
        return all(map(self._is_idle, self._at_work))

    def _is_idle(self, execution_id: str) -> bool:
        live = self._by_id.get(execution_id)
        waits = live is not None and live.desk.paused is not None
        return waits or execution_id not in self._at_work

    def _first(self, holds: Callable[[Live], bool]) -> Live | None:
        with self._changed:
            return next((live for live in self._by_id.values() if holds(live)), None)
