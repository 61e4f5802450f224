"""Makes the events of long executions durable while they run, about every tenth of a second.

A short execution is left alone: its events are stored with its receipt, in one commit. What runs is flushed from the
second tick on that it sees.
"""

import logging
import threading

from executor.domain.errors import StoreError
from executor.runner.ports import Ledger
from executor.runner.run import Run

INTERVAL_SECONDS = 0.1

log = logging.getLogger(__name__)


class Flusher:
    """One thread for all executions; it sleeps while there is none."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._runs: set[Run] = set()
        self._long: set[Run] = set()
        self._lock = threading.Lock()
        self._busy = threading.Event()
        self._thread = threading.Thread(target=self._work, name="event-flusher", daemon=True)
        self._closing = threading.Event()

    def start(self) -> None:
        """Begin to flush."""
        self._thread.start()

    def add(self, run: Run) -> None:
        """Flush a run's events from now on."""
        with self._lock:
            self._runs.add(run)
        if not self._busy.is_set():
            self._busy.set()

    def remove(self, run: Run) -> None:
        """Flush it no more. When this returns, no flush of it is under way."""
        with self._lock:
            self._runs.discard(run)
            self._long.discard(run)

    def flush(self, run: Run) -> None:
        """Make a run's events durable now.

        Raises:
            StoreError: they could not be stored; nobody sees them yet.
        """
        with self._lock:
            self._store(run)

    def rest(self, run: Run, waits: bool) -> None:
        """Leave a run alone while it waits for a person, which may take days."""
        if waits:
            self.remove(run)
        else:
            self.add(run)

    def close(self) -> None:
        """End the thread."""
        self._closing.set()
        self._busy.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._closing.is_set():
            self._busy.wait()
            self._closing.wait(INTERVAL_SECONDS)
            with self._lock:
                for run in self._long:
                    self._flush(run)
                self._long = set(self._runs)
                if not self._runs:
                    self._busy.clear()

    def _flush(self, run: Run) -> None:
        try:
            self._store(run)
        except StoreError as error:
            log.warning("events of %s wait for storage: %s", run.execution_id, error)

    def _store(self, run: Run) -> None:
        events = run.pending()
        if not events:
            return
        self._ledger.append_events(run.execution_id, events)
        run.made_durable(events[-1].sequence)
