"""The newest trust file that was ever in force, as the SQLite ledger keeps it: an older one never comes back."""

import json
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Protocol

from executor.adapters.ledger_audit import append_entry
from executor.adapters.ledger_retention import Execute
from executor.adapters.sqlite_driver import sqlite3

TRUST_CHANGED: Final = "trust_changed"

_KEY: Final = "trust_seen"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class TrustSeen(ABC):
    """The part of the SQLite ledger that knows which trust file came last."""

    def trust_seen(self) -> tuple[int, str] | None:
        rows = self._rows("meta", _KEY)
        return _seen(rows[0][0]) if rows else None

    def see_trust(self, version: int, digest: str, policy_digest: str, at: datetime) -> None:
        before = self.trust_seen()
        if before is not None and before[0] >= version:
            return
        kept = {"version": version, "digest": digest}
        with self._commit((at - _EPOCH) // _MICROSECOND) as execute:
            execute("keep_trust", json.dumps(kept))
            append_entry(execute, TRUST_CHANGED, "", {**kept, "policy_digest": policy_digest})

    @abstractmethod
    def _commit(self, at: int) -> AbstractContextManager[Execute]: ...

    @abstractmethod
    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]: ...


class TrustAnchor(Protocol):
    """Keeps the same outside of the ledger, and of what is restored with it; version 0 where there is nothing yet."""

    def trust_seen(self) -> tuple[int, str]: ...

    def see_trust(self, version: int, digest: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchoredTrust:
    """The port `executor.adapters.trust_watch.TrustRecords` in two places, of which the newer one counts.

    The ledger goes first: an executor that dies in between has the file in its audit log, and an older one is refused.
    """

    ledger: TrustSeen
    anchor: TrustAnchor

    def trust_seen(self) -> tuple[int, str] | None:
        seen = [one for one in (self.ledger.trust_seen(), self.anchor.trust_seen()) if one is not None and one[0]]
        return max(seen, key=lambda one: one[0], default=None)

    def see_trust(self, version: int, digest: str, policy_digest: str, at: datetime) -> None:
        self.ledger.see_trust(version, digest, policy_digest, at)
        if self.anchor.trust_seen()[0] < version:
            self.anchor.see_trust(version, digest)


def read_trust_seen(path: Path) -> tuple[int, str] | None:
    """Look into a ledger that an executor may be using; None where there is none yet.

    Raises:
        sqlite3.Error: it can not be read.
    """
    if not path.exists():
        return None
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA query_only = ON")
        row = connection.execute("SELECT value FROM meta WHERE key = ?", (_KEY,)).fetchone()
    return None if row is None else _seen(row[0])


def _seen(value: str) -> tuple[int, str]:
    found = json.loads(value)
    return int(found["version"]), str(found["digest"])
