"""Executions: from a request through the gates to the receipt, once for each mission.

An execution runs in the thread that brought the request and needs nothing of its caller any more once the mission is
claimed: a caller that goes away stops nothing, and the same request finds the execution again.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial

from executor.domain.errors import ExecutorError, NotFoundError, StepBlockedError, StoreError
from executor.domain.events import ExecutionStarted, ReceiptIssued
from executor.domain.ladder import LadderLevel
from executor.domain.receipt import Receipt
from executor.domain.report import Report
from executor.domain.sealed import SealedBytes
from executor.runner.documents import OpenDocuments
from executor.runner.flusher import Flusher
from executor.runner.gates import CheckedRequest, Gates, VerifiedRequest
from executor.runner.ports import Claim, Ended, Event, Executioner, ExecutionRecord, Ledger, Recovery, WorkspaceStanding
from executor.runner.receipts import Issuer, trailer_text
from executor.runner.redacted import redacted_error
from executor.runner.refusal_pace import RefusalPace
from executor.runner.requests import EXECUTE, ExecuteInput, RequestDesk, check_execute, check_same
from executor.runner.revocations import Revocations
from executor.runner.run import Progress, Recorder, Run, Wake
from executor.workspace.workspace import Workspace

LOCK_SECONDS = 30.0
CLAIM_SECONDS = 1.0
STORE_ATTEMPTS = 5
STORE_PAUSE_SECONDS = 0.2

log = logging.getLogger(__name__)


class RefusedError(ExecutorError):
    """The request was refused: nothing was done, and a signed document says so."""

    def __init__(self, cause: ExecutorError, refusal: SealedBytes) -> None:
        fault = cause.fault
        super().__init__(fault.reason, fault.message, fault.remedy, paths=fault.paths)
        self.cause = cause
        self.refusal = refusal


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
        return Progress(
            events=self._ledger.events(self.execution_id, after),
            record=self._record,
            receipt=self._ledger.receipt(self.mission_id),
            failure=None,
        )

    def watch(self, wake: Wake) -> Callable[[], None]:
        """Nothing new comes any more."""
        del wake
        return lambda: None


AnyRun = Run | StoredRun


@dataclass(frozen=True, slots=True, kw_only=True)
class _Started:
    verified: VerifiedRequest
    workspace: Workspace
    recorder: Recorder
    run: Run


class Executions:
    """Takes requests to execute and remembers what runs."""

    def __init__(
        self,
        *,
        gates: Gates,
        ledger: Ledger,
        documents: OpenDocuments,
        issuer: Issuer,
        workspaces: Mapping[str, Workspace],
        executioner: Executioner,
        recovery: Recovery,
        desk: RequestDesk,
        standings: Mapping[str, WorkspaceStanding],
        revocations: Revocations,
        check_caller: Callable[[str], None],
        pace: RefusalPace,
    ) -> None:
        self._pace = pace
        self._check_caller = check_caller
        self._revocations = revocations
        self._standings = standings
        self._gates = gates
        self._ledger = ledger
        self._documents = documents
        self._issuer = issuer
        self._workspaces = workspaces
        self._executioner = executioner
        self._recovery = recovery
        self._desk = desk
        self._flusher = Flusher(ledger)
        self._running: dict[str, Run] = {}
        self._active = 0
        self._changed = threading.Condition()

    def start(self) -> tuple[Receipt, ...]:
        """Bring every execution of a process that died to its end. Call it before the first request is served.

        Whoever dies in the middle of it is followed by one who does it again: an execution gets its receipt once.
        Should there be several for one workspace, the newest goes first: its commits lie on top of the others'.
        """
        receipts = tuple(self._recovered(claim) for claim in reversed(self._ledger.unfinished()))
        for workspace in self._workspaces.values():
            with workspace.lock(LOCK_SECONDS):
                self._recovery.tidy(workspace)
        self._flusher.start()
        return receipts

    def execute(self, request: ExecuteInput, attached: Callable[[AnyRun], None]) -> AnyRun:
        """Check the gates, claim the mission and carry it out in this thread, to its end.

        A request that was taken before returns the execution it started, at once, whether that has ended or not.

        Args:
            request: what arrived.
            attached: called with the execution as soon as there is one.

        Raises:
            RefusedError: nothing was done.
            ExecutorError: reason OVERLOADED; nothing was even looked at.
        """
        self._pace.check(request.caller)
        with ExitStack() as held:
            try:
                with self._desk.turn(request.request_id):
                    started = self._known(request) or self._start(request, held)
            except ExecutorError as error:
                raise self._refused(request, error) from error
            except Exception as error:
                log.exception("the gates failed on request %r", request.request_id)
                raise self._refused(request, _internal()) from error
            if not isinstance(started, _Started):
                attached(started)
                return started
            attached(started.run)
            self._carry_out(started)
            return started.run

    def find(self, *, execution_id: str = "", mission_id: str = "") -> AnyRun:
        """Return an execution by its id or its mission's.

        Raises:
            NotFoundError: there is none.
        """
        record = self._record(execution_id, mission_id)
        if not record.ended:
            with self._changed:  # a claim is in the ledger a moment before its run is in the table
                self._changed.wait_for(lambda: record.execution_id in self._running, timeout=CLAIM_SECONDS)
                run = self._running.get(record.execution_id)
            if run is not None:
                return run
            record = self._record(record.execution_id, "")
        return StoredRun(record, self._ledger)

    def drain(self, seconds: float) -> bool:
        """Wait until nothing runs; returns whether that came in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._active, timeout=seconds)

    def close(self) -> None:
        """End what works in the background."""
        self._flusher.close()

    def _known(self, request: ExecuteInput) -> AnyRun | None:
        check_execute(request)
        known = self._ledger.request(request.request_id)
        if known is None:
            return None
        check_same(known, EXECUTE, request.body_digest)
        return self.find(execution_id=known.reference)

    def _start(self, request: ExecuteInput, held: ExitStack) -> _Started:
        self._check_caller(request.caller)
        checked = self._gates.check(request)
        _check_level(checked, self._standings[checked.plan.workspace_id])
        workspace = self._workspaces[checked.plan.workspace_id]
        held.enter_context(workspace.lock(LOCK_SECONDS))
        verified = self._gates.claim(checked, workspace)
        recorder = Recorder(verified.claim.mission_id, redactor=self._issuer.redactor())
        run = Run(_record_of(verified.claim), recorder)
        with self._changed:
            self._running[run.execution_id] = run
            self._active += 1
            self._changed.notify_all()
        return _Started(verified=verified, workspace=workspace, recorder=recorder, run=run)

    def _carry_out(self, started: _Started) -> None:
        self._flusher.add(started.run)
        try:
            started.recorder(ExecutionStarted(execution_id=started.run.execution_id))
            ended = self._ended(started)
            self._flusher.remove(started.run)
            self._end(started, ended)
        except Exception as error:  # the work is done and its end could not be told; a restart tells it
            log.exception("the receipt of %s could not be issued", started.run.execution_id)
            started.run.fail(redacted_error(_no_receipt(error), self._issuer.redactor()))
        finally:
            self._flusher.remove(started.run)
            self._revocations.ended(started.run.mission_id)
            with self._changed:
                self._active -= 1
                self._changed.notify_all()

    def _ended(self, started: _Started) -> Ended:
        verified, recorder = started.verified, started.recorder
        claim, report = verified.claim, verified.report
        try:
            return self._executioner.run(
                verified.plan,
                report,
                started.workspace,
                recorder,
                claim.execution_id,
                partial(self._revocations.stopped, claim.mission_id),
            )
        except Exception as error:  # whatever it was, the mission is claimed: it is brought to its end as after a crash
            log.exception("execution %s broke off", claim.execution_id)
            ended = self._recovery.recover(claim, report, recorder.after(0), recorder)
            said = self._issuer.redactor().text(str(error))  # before it is cut
            told = f"the execution broke off: {trailer_text(said)}"
            return replace(ended, result=replace(ended.result, errors=(told, *ended.result.errors)))

    def _end(self, started: _Started, ended: Ended) -> None:
        receipt, sealed = self._issuer.receipt(started.verified.claim, started.verified.report, ended.result)
        started.recorder(_issued(receipt, sealed))
        self._store_end(receipt, sealed, started.run.pending(), ended)
        started.run.end(_ended_record(receipt, started.recorder.count), sealed)
        with self._changed:
            del self._running[receipt.execution_id]
        ended.let_go()

    def _store_end(self, receipt: Receipt, sealed: SealedBytes, events: tuple[Event, ...], ended: Ended) -> None:
        for attempt in range(1, STORE_ATTEMPTS + 1):
            try:
                self._ledger.finish(
                    receipt.execution_id,
                    outcome=receipt.result.outcome,
                    ended_at=receipt.completed_at,
                    receipt=sealed,
                    events=events,
                    checkpoints=ended.checkpoints,
                )
            except StoreError:
                if attempt == STORE_ATTEMPTS:
                    raise
                time.sleep(STORE_PAUSE_SECONDS * attempt)
            else:
                return

    def _recovered(self, claim: Claim) -> Receipt:
        report = self._claimed_report(claim)
        events = self._ledger.events(claim.execution_id, 0)
        recorder = Recorder(claim.mission_id, recorded=len(events), redactor=self._issuer.redactor())
        with ExitStack() as held:
            workspace = self._workspaces.get(claim.workspace_id)
            if workspace is not None:
                held.enter_context(workspace.lock(LOCK_SECONDS))
            ended = self._recovery.recover(claim, report, events, recorder)
            receipt, sealed = self._issuer.receipt(claim, report, ended.result)
            recorder(_issued(receipt, sealed))
            self._store_end(receipt, sealed, recorder.after(len(events)), ended)
            ended.let_go()
        log.warning("execution %s had not ended; its receipt says %s", claim.execution_id, ended.result.outcome.value)
        return receipt

    def _record(self, execution_id: str, mission_id: str) -> ExecutionRecord:
        record = self._ledger.execution(execution_id=execution_id, mission_id=mission_id)
        if record is None:
            raise NotFoundError("NOT_FOUND", "there is no such execution", "look the mission's id up")
        return record

    def _claimed_report(self, claim: Claim) -> Report:
        sealed = self._ledger.issued_report(claim.report_digest)
        if sealed is None:
            raise StoreError(
                "INTERNAL",
                f"the ledger holds execution {claim.execution_id} and not its report",
                "restore the executor's ledger from a copy that has both",
            )
        return self._documents.report(sealed)

    def _refused(self, request: ExecuteInput, error: ExecutorError) -> RefusedError:
        self._pace.refused(request.caller)
        redacted_error(error, self._issuer.redactor())
        refusal, sealed = self._issuer.refusal(request, error)
        try:
            self._ledger.record_refusal(refusal, sealed)
        except StoreError:
            log.exception("refusal %s could not be stored", refusal.refusal_id)
        return RefusedError(error, sealed)


def _check_level(checked: CheckedRequest, standing: WorkspaceStanding) -> None:
    """Refuse what this executor can do no more, though its report is from a time when it could."""
    level, demanded = standing.ladder_level, checked.plan.scope.min_ladder_level
    changing = any(step.changes for step in checked.report.steps)
    if (level is LadderLevel.L0 and changing) or (demanded is not None and level < demanded):
        raise StepBlockedError(
            "LADDER_TOO_LOW",
            f"workspace {standing.workspace_id!r} is at ladder level {level.name} now; this mission needs more",
            standing.limitation or "start the executor with a higher --max-ladder-level, or see gonogo doctor",
        )


def _record_of(claim: Claim) -> ExecutionRecord:
    return ExecutionRecord(
        execution_id=claim.execution_id,
        mission_id=claim.mission_id,
        claimed_at=claim.claimed_at,
        ended_at=None,
        outcome=None,
        last_sequence=0,
    )


def _ended_record(receipt: Receipt, last_sequence: int) -> ExecutionRecord:
    return ExecutionRecord(
        execution_id=receipt.execution_id,
        mission_id=receipt.mission_id,
        claimed_at=receipt.started_at,
        ended_at=receipt.completed_at,
        outcome=receipt.result.outcome,
        last_sequence=last_sequence,
    )


def _issued(receipt: Receipt, sealed: SealedBytes) -> ReceiptIssued:
    return ReceiptIssued(receipt_id=receipt.receipt_id, receipt_digest=sealed.digest, execution_id=receipt.execution_id)


def _no_receipt(error: Exception) -> StoreError:
    return StoreError(
        "STORE_FULL" if isinstance(error, StoreError) else "INTERNAL",
        f"the execution ended and its receipt could not be stored: {error}",
        "make room for the executor's state, then restart it: it issues the receipt then",
    )


def _internal() -> ExecutorError:
    return ExecutorError(
        "INTERNAL",
        "the executor failed while it checked the request; nothing was done",
        "look into the executor's log, and try again",
    )
