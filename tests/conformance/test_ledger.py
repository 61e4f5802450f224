"""Each ledger backend runs the suite."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.adapters.ledger_sqlite import SqliteLedger
from tests.conformance.ledger_suite import AuditedLedger, LedgerSuite


class TestSqliteLedger(LedgerSuite):
    """The ledger on one SQLite file."""

    @pytest.fixture(autouse=True)
    def close_all(self) -> Iterator[None]:
        """Close what the tests open."""
        self.opened: list[SqliteLedger] = []
        yield
        for ledger in self.opened:
            ledger.close()

    def open(self, directory: Path) -> AuditedLedger:
        """Open a ledger."""
        ledger = SqliteLedger(directory / "ledger.db")
        self.opened.append(ledger)
        return ledger
