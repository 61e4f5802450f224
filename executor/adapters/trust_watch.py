"""Takes a changed trust file into force while the executor runs, and never one that is older than what was in force.

The file is looked at every second: its status first, its bytes where that differs. A good newer file takes effect at
once; with a bad one nothing is decided any more until it is mended, since nobody can know what its operator wanted.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from executor.adapters.trust_file import parse_trust, read_trust_bytes
from executor.adapters.trust_tables import TrustFileError
from executor.domain.errors import ExecutorError, Fault
from executor.domain.policy import Trust
from executor.runner.trust import InForce, TrustInForce
from gonogo.digests import digest

EVERY_SECONDS: Final = 1.0
# A file that changed just now may change again without its status telling.
SETTLED_SECONDS: Final = 2.0

log = logging.getLogger(__name__)


class TrustRecords(Protocol):
    """What the ledger keeps about trust files."""

    def trust_seen(self) -> tuple[int, str] | None: ...

    def see_trust(self, version: int, digest: str, policy_digest: str, at: datetime) -> None: ...


def check_not_older(trust: Trust, content: str, seen: tuple[int, str] | None) -> None:
    """Refuse a file that is older than one that was in force, or another one of the same version.

    Args:
        trust: the file.
        content: the digest of its bytes.
        seen: version and digest of the newest that was in force.

    Raises:
        TrustFileError: it is; who brings back a file of the past brings back whoever was removed since.
    """
    if seen is None:
        return
    version, known = seen
    if trust.version < version:
        raise TrustFileError(
            f"it has version {trust.version}, and version {version} was in force already",
            f"write the changes into the newest file and raise its version above {version}",
        )
    if trust.version == version and content != known:
        raise TrustFileError(
            f"it has version {version}, as the one that was in force, and says something else",
            f"write version = {version + 1}; every change raises it",
        )


def admit(data: bytes, records: TrustRecords, prepare: Callable[[Trust], InForce], at: datetime) -> InForce:
    """Read a trust file's bytes, and have it kept for ever that it comes into force.

    Args:
        data: the file.
        records: what is kept.
        prepare: loads the file's keys and seals its policy.
        at: when.

    Raises:
        TrustFileError: it is no trust file, or an older one.
        StoreError: it can not be kept.
    """
    trust, content = parse_trust(data), digest(data)
    check_not_older(trust, content, records.trust_seen())
    prepared = prepare(trust)
    records.see_trust(trust.version, content, prepared.policy_digest, at)
    return prepared


class TrustWatch:
    """Looks at the trust file in the background.

    Args:
        path: the file.
        data: the bytes that are in force at the start.
        records: the ledger.
        in_force: where a new one goes.
        prepare: loads its keys and seals its policy.
        now: effective time.
        every: seconds between two looks.
    """

    def __init__(
        self,
        path: Path,
        data: bytes,
        *,
        records: TrustRecords,
        in_force: TrustInForce,
        prepare: Callable[[Trust], InForce],
        now: Callable[[], datetime],
        every: float = EVERY_SECONDS,
    ) -> None:
        self._path = path
        self._content = digest(data)
        self._records = records
        self._in_force = in_force
        self._prepare = prepare
        self._now = now
        self._every = every
        self._looked_at: tuple[int, ...] | None = None
        self._told = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trust", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def look(self) -> None:
        """Look once; whatever is wrong with the file is told to those who ask for what is in force."""
        try:
            self._look()
        except ExecutorError as error:
            self._refuse(error.fault)
        except Exception as error:  # whatever it was, this file is not one to decide by
            log.exception("the trust file can not be looked at")
            self._refuse(
                Fault(
                    reason="INTERNAL",
                    message=f"trust file: it can not be used ({type(error).__name__})",
                    remedy="look into the executor's log",
                )
            )

    def _look(self) -> None:
        status = _status(self._path)
        if status is not None and status == self._looked_at:
            return
        data = read_trust_bytes(self._path)
        if digest(data) == self._content:
            self._in_force.mended()
            self._told = ""
        else:
            self._take(data)
        self._looked_at = status if status is not None and status == _status(self._path) else None

    def _take(self, data: bytes) -> None:
        trust = parse_trust(data)
        running = self._in_force.last().trust.executor_id
        if trust.executor_id != running:
            raise TrustFileError(
                f"it is for executor {trust.executor_id!r}, and this is {running!r}",
                f"write executor_id = {running!r}; an executor keeps its id",
            )
        prepared = admit(data, self._records, self._prepare, self._now())
        self._in_force.replace(prepared)
        self._content, self._told = digest(data), ""
        log.warning("trust file version %d is in force, policy %s", trust.version, prepared.policy_digest)

    def _refuse(self, fault: Fault) -> None:
        self._looked_at = None  # a fault of the ledger's, or of the disk's, may pass without a change of the file
        # Callers are told of it, too, and where the file lies is none of their business.
        self._in_force.refuse(replace(fault, message=fault.message.replace(str(self._path), self._path.name)))
        if fault.message != self._told:
            self._told = fault.message
            log.error("nothing is decided any more: %s; %s", fault.message, fault.remedy)

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            self.look()


def _status(path: Path) -> tuple[int, ...] | None:
    """Return what tells one state of a file from another; None where it may change without telling."""
    try:
        found = path.stat()
    except OSError:
        return None
    if time.time() - max(found.st_mtime, found.st_ctime) < SETTLED_SECONDS:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
