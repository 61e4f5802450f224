"""An execution of the past, as the ledger tells it."""

from collections.abc import Callable

from executor.runner.ports import ExecutionRecord, Ledger
from executor.runner.run import Progress, Run, Wake


class StoredRun:
    """An execution of the past, read from the ledger."""

    def __init__(self, record: ExecutionRecord, ledger: Ledger) -> None:
        self._record = record
        self._ledger = ledger

    @property
    def execution_id(self) -> str:
        return self._record.execution_id

    @property
    def mission_id(self) -> str:
        return self._record.mission_id

    def progress(self, after: int) -> Progress:
        """Return the events after a place and the receipt."""
        claims = self._ledger.claims_of(self.execution_id)
        return Progress(
            events=self._ledger.events(self.execution_id, after),
            record=self._record,
            receipt=self._ledger.receipt(self.mission_id),
            failure=None,
            segment=claims[-1].segment if claims else 0,
        )

    def watch(self, wake: Wake) -> Callable[[], None]:
        """Nothing new comes any more."""
        del wake
        return lambda: None


AnyRun = Run | StoredRun
