"""The ledger on SQLite: one file, WAL, `synchronous=FULL`, one connection behind a lock.

A commit is on the disk when it returns. What makes "once" true is the unique mission of `executions`: of any number of
claims for one mission, by any number of threads and processes, SQLite takes exactly one.

The write-ahead log is laid out in its full length when the ledger is opened. A commit that makes a file longer has to
wait for the file system's own journal; one that overwrites takes half the time.
"""

import contextlib
import os
import secrets
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

from executor.adapters.ledger_audit import AuditRows, SignRoot, append_entry, state_after, stored_hashes
from executor.adapters.ledger_checkpoints import Checkpoints, insert_checkpoint
from executor.adapters.ledger_claims import claim_from_json, claim_to_json
from executor.adapters.ledger_controls import Controls
from executor.adapters.ledger_effects import Effects
from executor.adapters.ledger_entries import (
    CLAIMED,
    EVENTS_RECORDED,
    EXECUTION_ENDED,
    REFUSED,
    REPORT_ISSUED,
    claim_value,
    end_value,
    events_value,
    refusal_value,
    report_value,
    signed_by,
)
from executor.adapters.ledger_retention import ObjectUses
from executor.adapters.ledger_revocations import Revocations
from executor.adapters.ledger_segments import CONFLICTS, Segments, insert_claim, why_not
from executor.adapters.ledger_trust import TrustSeen
from executor.adapters.migrations import migrate
from executor.adapters.sql_files import named_queries
from executor.adapters.sqlite_driver import sqlite3
from executor.adapters.wire_events import events_from_json, events_to_json, refusal_event
from executor.domain.errors import StoreError
from executor.domain.receipt import Outcome, Refusal
from executor.domain.report import Report
from executor.domain.sealed import SealedBytes, Signature
from executor.runner.ports import Checkpoint, Claim, ClaimConflict, Event, ExecutionRecord, RequestRecord, Standing
from gonogo import sealing
from gonogo.merkle import Frontier, MissingHashesError, stored_frontier
from gonogo.signatures import ED25519

BUSY_MILLISECONDS: Final = 10_000
CHECKPOINT_PAGES: Final = 2_000
# What the log holds at a checkpoint, and a large commit on top of it, in frames of a page and its header.
LOG_BYTES: Final = (CHECKPOINT_PAGES + 200) * (4096 + 24)
EPOCH_OF_TIME: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
UNSEEN: Final = -1
QUERIES: Final = ("ledger.sql", "trust.sql", "retention.sql", "revocations.sql", "audit.sql", "control.sql")


class SqliteLedger(Segments, Controls, Effects, Checkpoints, ObjectUses, Revocations, TrustSeen, AuditRows):
    """The port `executor.runner.ports.Ledger` on one SQLite file."""

    def __init__(self, path: Path, *, sign_root: SignRoot | None = None) -> None:
        """Open the ledger, and make it where there is none.

        Args:
            path: the file.
            sign_root: signs a checkpoint of the audit log at each decision; without it none are made.

        Raises:
            StoreError: the file can not be opened, or is no ledger.
        """
        self._lock = threading.Lock()
        self._sql = {name: text for file in QUERIES for name, text in named_queries(file).items()}
        self._sign_root = sign_root
        self._tail = Frontier()
        self._seen_version = UNSEEN
        try:
            self._connection = _connect(path)
            migrate(self._connection)
            for key, value in (("epoch", secrets.token_hex(16)), ("clock_high_water_us", "0")):
                self._connection.execute(self._sql["set_meta_once"], (key, value))
        except (sqlite3.Error, OSError) as error:
            raise _store_error(error) from error
        self._epoch = self._meta("epoch")
        with self._commit(0):
            pass  # reads the audit log's right edge

    @property
    def epoch(self) -> str:
        return self._epoch

    def close(self) -> None:
        """Close the file; the ledger is of no use afterwards."""
        with self._lock:
            self._connection.close()

    def clock_high_water(self) -> datetime:
        return _time(int(self._meta("clock_high_water_us")))

    def request(self, request_id: str) -> RequestRecord | None:
        row = self._row("request", request_id)
        if row is None:
            return None
        return RequestRecord(request_id=row[0], kind=row[1], body_digest=row[2], reference=row[3])

    def issue_report(
        self,
        report: Report,
        sealed: SealedBytes,
        *,
        request: RequestRecord,
        small_objects: Mapping[str, bytes],
    ) -> None:
        issued_at = _micros(report.completed_at)
        with self._commit(issued_at) as execute:
            execute(
                "insert_report",
                sealed.digest,
                report.report_id,
                report.mission_id,
                report.plan_digest,
                report.ledger_epoch,
                report.status.value,
                issued_at,
                *_signed(sealed),
            )
            for digest, body in small_objects.items():
                execute("insert_small_object", digest, body)
            execute("insert_request", *_request(request))
            append_entry(execute, REPORT_ISSUED, report.mission_id, _report_value(report, sealed))

    def report_epoch(self, digest: str) -> str | None:
        row = self._row("report_epoch", digest)
        return None if row is None else str(row[0])

    def issued_report(self, digest: str) -> SealedBytes | None:
        return _sealed(sealing.REPORT, self._row("report", digest))

    def small_object(self, digest: str) -> bytes | None:
        row = self._row("small_object", digest)
        return None if row is None else bytes(row[0])

    def claim(self, claim: Claim, request: RequestRecord, plan: SealedBytes) -> ClaimConflict | None:
        claimed_at = _micros(claim.claimed_at)
        text = claim_to_json(claim)
        if self._anchor is not None:
            self._anchor.check()
        try:
            with self._commit(claimed_at) as execute:
                _check_inserted(insert_claim(execute, claim, text, plan))
                for approval, nonce in zip(claim.approvals, claim.nonces, strict=True):
                    execute("insert_used_approval", approval.approval_id, nonce, claim.execution_id)
                execute("insert_request", *_request(request))
                append_entry(execute, CLAIMED, claim.mission_id, claim_value(claim, text, request))
                self._sign(execute)
                state = state_after(execute, self._epoch)
        except StoreError as error:
            if isinstance(error.__cause__, sqlite3.IntegrityError):
                return self._conflict(claim, error)
            raise
        except _DoesNotFitError:
            return self._why_not(claim) or ClaimConflict.REVOKED
        if self._anchor is not None:
            self._anchor.move(state)
        return None

    def append_events(self, execution_id: str, events: Sequence[Event]) -> None:
        last, text = events[-1], events_to_json(events)
        with self._commit(_micros(last.time)) as execute:
            _one(execute("insert_event_batch", last.sequence, text, execution_id))
            [(mission_id,)] = execute.rows("mission_of_execution", execution_id)
            append_entry(execute, EVENTS_RECORDED, mission_id, events_value(execution_id, last.sequence, text))

    def finish(
        self,
        execution_id: str,
        *,
        outcome: Outcome,
        ended_at: datetime,
        receipt: SealedBytes,
        events: Sequence[Event],
        checkpoints: Sequence[Checkpoint] = (),
    ) -> None:
        last_sequence = events[-1].sequence if events else 0
        text = events_to_json(events)
        with self._commit(_micros(ended_at)) as execute:
            rows = execute.rows("end_execution", _micros(ended_at), outcome.value, execution_id)
            _one(len(rows))
            [(number, mission_id)] = rows
            execute("insert_receipt", number, *_signed(receipt), last_sequence, text)
            for checkpoint in checkpoints:
                insert_checkpoint(execute, checkpoint)
            value = end_value(
                execution_id=execution_id,
                outcome=outcome.value,
                receipt_digest=receipt.digest,
                signature=_signature(receipt),
                last_sequence=last_sequence,
                events=text,
            )
            append_entry(execute, EXECUTION_ENDED, mission_id, value)

    def record_refusal(self, refusal: Refusal, sealed: SealedBytes) -> None:
        refused_at = _micros(refusal.refused_at)
        event = refusal_event(refusal)
        with self._commit(refused_at) as execute:
            execute(
                "insert_refusal",
                refusal.refusal_id,
                refusal.mission_id,
                refusal.gate,
                refusal.abort_reason,
                refused_at,
                *_signed(sealed),
                event,
            )
            value = refusal_value(
                refusal_id=refusal.refusal_id,
                gate=refusal.gate,
                reason=refusal.abort_reason,
                refusal_digest=sealed.digest,
                signature=_signature(sealed),
                event=event,
            )
            append_entry(execute, REFUSED, refusal.mission_id, value)
            self._sign(execute)

    def execution(self, *, execution_id: str = "", mission_id: str = "") -> ExecutionRecord | None:
        if execution_id:
            row = self._row("execution_by_id", execution_id)
            if row is not None and mission_id not in {"", row[1]}:
                return None
        else:
            row = self._row("execution_by_mission", mission_id)
        if row is None:
            return None
        return ExecutionRecord(
            execution_id=row[0],
            mission_id=row[1],
            claimed_at=_time(row[2]),
            ended_at=None if row[3] is None else _time(row[3]),
            outcome=None if row[4] is None else Outcome(row[4]),
            last_sequence=row[5],
        )

    def events(self, execution_id: str, after: int) -> tuple[Event, ...]:
        batches = [events_from_json(row[0]) for row in self._rows("events_after", execution_id, after)]
        return tuple(event for batch in batches for event in batch if event.sequence > after)

    def receipt(self, mission_id: str) -> SealedBytes | None:
        return _sealed(sealing.RECEIPT, self._row("receipt", mission_id))

    def unfinished(self) -> tuple[Claim, ...]:
        return tuple(claim_from_json(row[0]) for row in self._rows("unfinished"))

    def _conflict(self, claim: Claim, error: StoreError) -> ClaimConflict:
        standing = self.standing(claim.mission_id, claim.segment)
        if standing is not Standing.FREE:
            return CONFLICTS[standing]
        for approval, nonce in zip(claim.approvals, claim.nonces, strict=True):
            if self._row("used_approval", approval.approval_id, nonce) is not None:
                return ClaimConflict.APPROVAL_USED
        raise error

    def _why_not(self, claim: Claim) -> ClaimConflict | None:
        first, own = self.standing(claim.mission_id), self.standing(claim.mission_id, claim.segment)
        return why_not(claim, first, own, self.revocations(claim.mission_id))

    @contextmanager
    def _commit(self, at: int) -> Iterator["_Execute"]:
        """Make some writes and the clock's high water durable together, or none of them."""
        with self._lock:
            connection = self._connection
            try:
                connection.execute("BEGIN IMMEDIATE")
                execute = _Execute(connection, self._sql, self._newest_tail(), at)
                yield execute
                connection.execute(self._sql["raise_clock"], (str(at), at))
                connection.execute("COMMIT")
                self._tail = execute.tail
            except sqlite3.Error as error:
                self._seen_version = UNSEEN  # what a commit that failed has left, only the file tells
                raise _store_error(error) from error
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def _newest_tail(self) -> Frontier:
        """Return the audit log's right edge, read again where another connection wrote since. The lock is held."""
        version = self._connection.execute(self._sql["data_version"]).fetchone()[0]
        if version != self._seen_version:
            self._tail = self._stored_tail()
            self._seen_version = version
        return self._tail

    def _stored_tail(self) -> Frontier:
        execute = _Execute(self._connection, self._sql, Frontier(), 0)
        [(size,)] = execute.rows("audit_size")
        try:
            return stored_frontier(size, partial(stored_hashes, execute.rows))
        except MissingHashesError as error:
            raise StoreError(
                "AUDIT_FORKED",
                f"the executor's audit log has holes: {error}",
                "look at it with: python -m executor audit check; then restore the ledger from a copy",
            ) from error

    def _meta(self, key: str) -> str:
        row = self._row("meta", key)
        if row is None:
            raise StoreError("INTERNAL", f"the ledger has no {key}", "restore the ledger from a copy")
        return str(row[0])

    def _row(self, query: str, *values: object) -> tuple[Any, ...] | None:
        rows = self._rows(query, *values)
        return rows[0] if rows else None

    def _rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._connection.execute(self._sql[query], values).fetchall()
            except sqlite3.Error as error:
                raise _store_error(error) from error


class _DoesNotFitError(Exception):
    """Leaves a transaction in which a claim met a revocation, or another segment than the one before it."""


class _Execute:
    """Runs the named queries of one transaction, and tells how many rows each changed."""

    def __init__(self, connection: sqlite3.Connection, sql: Mapping[str, str], tail: Frontier, at_us: int) -> None:
        self._connection = connection
        self._sql = sql
        self._tail = tail.copy()
        self._at_us = at_us

    @property
    def at_us(self) -> int:
        return self._at_us

    @property
    def tail(self) -> Frontier:
        return self._tail

    def __call__(self, query: str, *values: object) -> int:
        return self._connection.execute(self._sql[query], values).rowcount

    def rows(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return self._connection.execute(self._sql[query], values).fetchall()


def _connect(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # nobody else reads plans and reports
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=128)
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    connection.execute("PRAGMA journal_size_limit = -1")  # a checkpoint leaves the log as long as it is
    _lay_out_log(connection, path.with_name(f"{path.name}-wal"))
    return connection


def _lay_out_log(connection: sqlite3.Connection, log: Path) -> None:
    """Make the log as long as it will get, once for its life.

    Zeros behind the last commit are no frames to SQLite: it stops reading at the first checksum that is not right.
    Nobody else appends meanwhile, since the write lock is ours. A disk too full for this is no reason not to start.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        with contextlib.suppress(OSError):
            fd = os.open(log, os.O_WRONLY | os.O_CLOEXEC)
            try:
                _lengthen(fd)
            finally:
                os.close(fd)
    finally:
        connection.execute("ROLLBACK")


def _lengthen(fd: int) -> None:
    size = os.fstat(fd).st_size
    if size < LOG_BYTES:
        os.pwrite(fd, bytes(LOG_BYTES - size), size)
        os.fsync(fd)


def _check_inserted(inserted: bool) -> None:
    if not inserted:
        raise _DoesNotFitError


def _one(rows: int) -> None:
    if rows != 1:
        raise StoreError("INTERNAL", "the ledger has no such execution", "restore the ledger from a copy")


def _micros(time: datetime) -> int:
    return (time - EPOCH_OF_TIME) // MICROSECOND


def _time(micros: int) -> datetime:
    return EPOCH_OF_TIME + micros * MICROSECOND


def _request(request: RequestRecord) -> tuple[str, str, str, str]:
    return (request.request_id, request.kind, request.body_digest, request.reference)


def _signed(sealed: SealedBytes) -> tuple[str, bytes, bytes]:
    [signature] = sealed.signatures
    return (signature.key_id, signature.signature, sealed.body)


def _signature(sealed: SealedBytes) -> str:
    [signature] = sealed.signatures
    return signed_by(signature.key_id, signature.signature)


def _report_value(report: Report, sealed: SealedBytes) -> Mapping[str, object]:
    return report_value(
        report_digest=sealed.digest,
        report_id=report.report_id,
        plan_digest=report.plan_digest,
        epoch=report.ledger_epoch,
        status=report.status.value,
        signature=_signature(sealed),
    )


def _sealed(media_type: str, row: tuple[Any, ...] | None) -> SealedBytes | None:
    if row is None:
        return None
    body, key_id, signature = row
    return SealedBytes(
        media_type=media_type,
        body=body,
        signatures=(Signature(key_id=key_id, scheme=ED25519, signature=signature),),
    )


def _store_error(error: Exception) -> StoreError:
    name = getattr(error, "sqlite_errorname", "")
    if name == "SQLITE_FULL":
        return StoreError(
            "STORE_FULL",
            "the disk that holds the executor's ledger is full",
            "make room on that disk; nothing was done meanwhile",
        )
    return StoreError(
        "INTERNAL",
        f"the executor's ledger can not be used: {name or type(error).__name__}: {error}",
        "look at the state directory's disk and permissions; nothing was done meanwhile",
    )
