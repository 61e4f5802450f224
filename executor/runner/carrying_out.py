"""Carrying an execution out in its own thread, from its claim to its receipt."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from executor.domain.errors import StoreError
from executor.domain.events import ExecutionStarted, ReceiptIssued
from executor.domain.receipt import Receipt
from executor.domain.report import Report
from executor.domain.sealed import SealedBytes
from executor.runner.control import ControlDesk, DeskParts
from executor.runner.desk import LeftError
from executor.runner.flusher import Flusher
from executor.runner.orders import Executioner, Left, Order, Recovery, is_doubted
from executor.runner.ports import Claim, Ended, Event, ExecutionRecord, Ledger
from executor.runner.position import Restored
from executor.runner.receipts import Issuer, trailer_text
from executor.runner.redacted import redacted_error
from executor.runner.revocations import Revocations
from executor.runner.run import Recorder, Run
from executor.runner.running import Live, Running
from executor.runner.segments import Segment
from executor.runner.signed_words import SignedWords, recorded_approvals
from executor.workspace.workspace import Workspace

STORE_ATTEMPTS: Final = 5
STORE_PAUSE_SECONDS: Final = 0.2
MOST_BREAKS: Final = 3

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """An execution that is claimed, and whose thread has the workspace."""

    live: Live
    recorder: Recorder
    order: Order

    @property
    def run(self) -> Run:
        return self.live.run


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrier:
    """Carries executions out, each in the thread that asks for it.

    Args:
        executioner: does the steps.
        recovery: finds out what was done where that broke off.
        look_seconds: how long a wait for people lasts at most before the clock is asked again.
    """

    executioner: Executioner
    recovery: Recovery
    ledger: Ledger
    issuer: Issuer
    flusher: Flusher
    revocations: Revocations
    running: Running
    words: SignedWords
    look_seconds: float

    def began(self, segment: Segment, workspace: Workspace) -> Started:
        """Take note of an execution that was claimed just now."""
        recorder = Recorder(segment.claim.mission_id, redactor=self.issuer.redactor())
        started = self._started((segment,), workspace, Run(_record_of(segment.claim), recorder), recorder)
        recorder(ExecutionStarted(execution_id=started.run.execution_id))
        return started

    def again(
        self, segments: Sequence[Segment], workspace: Workspace, recorder: Recorder, restored: Restored, durable: int
    ) -> Started:
        """Take note of an execution that is there again after a restart; its events up to a place are durable."""
        run = Run(_record_of(segments[0].claim), recorder, durable=durable)
        started = self._started(segments, workspace, run, recorder)
        controls, unheeded = self.ledger.controls(run.execution_id), self.ledger.unheeded_control(run.mission_id)
        started.live.desk.remember(controls, unheeded)
        self.revocations.stands_on(segments[-1].claim)
        run.stands(None, segments[-1].number)
        return replace(started, order=replace(started.order, restored=restored))

    def carry_out(self, started: Started) -> None:
        """Do it, to its receipt, and raise nothing; the caller says when the thread is done with all of it."""
        run = started.run
        self.flusher.add(run)
        try:
            ended = self._ended(started)
            self.flusher.remove(run)
            self._end(started, ended)
        except LeftError:
            log.warning("execution %s waits for a person; the next start waits on", run.execution_id)
        except Exception as error:  # the work is done; its end is told later, at the latest by a restart
            log.exception("the receipt of %s could not be issued", run.execution_id)
            run.fail(redacted_error(_no_receipt(error), self.issuer.redactor()))
        finally:
            self.flusher.remove(run)
            self.revocations.ended(run.mission_id)

    def store_end(self, receipt: Receipt, sealed: SealedBytes, events: tuple[Event, ...], ended: Ended) -> None:
        """Store an execution's end, and try again where the storage fails."""
        for attempt in range(1, STORE_ATTEMPTS + 1):
            try:
                self._finish(receipt, sealed, events, ended)
            except StoreError:
                if attempt == STORE_ATTEMPTS:
                    raise
                time.sleep(STORE_PAUSE_SECONDS * attempt)
            else:
                return

    def _finish(self, receipt: Receipt, sealed: SealedBytes, events: tuple[Event, ...], ended: Ended) -> None:
        self.ledger.finish(
            receipt.execution_id,
            outcome=receipt.result.outcome,
            ended_at=receipt.completed_at,
            receipt=sealed,
            events=events,
            checkpoints=ended.checkpoints,
        )

    def sealed_receipt(
        self, claims: Sequence[Claim], reports: Sequence[Report], ended: Ended, recorder: Recorder
    ) -> tuple[Receipt, SealedBytes]:
        """Write and sign the receipt, and say so."""
        receipt, sealed = self.issuer.receipt(claims, reports, ended.result)
        recorder(
            ReceiptIssued(
                receipt_id=receipt.receipt_id, receipt_digest=sealed.digest, execution_id=receipt.execution_id
            )
        )
        return receipt, sealed

    def _started(self, segments: Sequence[Segment], workspace: Workspace, run: Run, recorder: Recorder) -> Started:
        desk = ControlDesk(self._desk_parts(), run, recorder, segments)
        live = Live(run=run, desk=desk, workspace_id=workspace.workspace_id)
        self.running.add(live)
        order = Order(
            segment=segments[0],
            workspace=workspace,
            emit=recorder,
            desk=desk,
            effects=self.ledger,
            now=self.issuer.now,
        )
        return Started(live=live, recorder=recorder, order=order)

    def _desk_parts(self) -> DeskParts:
        return DeskParts(
            words=self.words,
            revoked=self.revocations.stopped,
            stands_on=self.revocations.stands_on,
            now=self.issuer.now,
            flush=self.flusher.flush,
            rest=self.flusher.rest,
            look=self.running.look,
            look_seconds=self.look_seconds,
        )

    def _ended(self, started: Started) -> Ended:
        """Have it done; where that breaks off, it is brought to its end, or waits for a person, as after a crash."""
        order, breaks = started.order, 0
        while True:
            try:
                return self.executioner.run(order)
            except LeftError:
                raise
            except Exception as error:
                log.exception("execution %s broke off", order.execution_id)
                breaks += 1
                if breaks > MOST_BREAKS:
                    raise
                found = self.recovery.recover(self._left(started), started.recorder)
                if isinstance(found, Ended):
                    said = self.issuer.redactor().text(str(error))  # before it is cut
                    told = f"the execution broke off: {trailer_text(said)}"
                    return replace(found, result=replace(found.result, errors=(told, *found.result.errors)))
                order = replace(order, restored=found)

    def _left(self, started: Started) -> Left:
        segments, execution_id = started.live.desk.segments, started.run.execution_id
        controls = self.ledger.controls(execution_id)
        return Left(
            claims=[one.claim for one in segments],
            plans=[one.plan for one in segments],
            reports=[one.report for one in segments],
            events=started.recorder.after(0),
            controls=controls,
            effects=self.ledger.effects(execution_id),
            approvals=recorded_approvals(controls, self.words),
            now=self.issuer.now,
            doubted=is_doubted([one.report for one in segments], self.ledger.epoch),
        )

    def _end(self, started: Started, ended: Ended) -> None:
        segments = started.live.desk.segments
        claims, reports = [one.claim for one in segments], [one.report for one in segments]
        receipt, sealed = self.sealed_receipt(claims, reports, ended, started.recorder)
        try:
            self.store_end(receipt, sealed, started.run.pending(), ended)
        except StoreError:
            started.live.untold.append(partial(self._told_late, started, receipt, sealed, ended))
            raise
        self._told(started, receipt, sealed, ended)

    def _told(self, started: Started, receipt: Receipt, sealed: SealedBytes, ended: Ended) -> None:
        started.run.end(_ended_record(receipt, started.recorder.count), sealed)
        self.running.ended(receipt.execution_id)
        ended.let_go()

    def _told_late(self, started: Started, receipt: Receipt, sealed: SealedBytes, ended: Ended) -> bool:
        """Store an end once more, with the receipt that was signed then; returns whether it is stored.

        A commit of which the disk said that it failed may be there all the same.
        """
        try:
            if self.ledger.receipt(receipt.mission_id) != sealed:
                self._finish(receipt, sealed, started.run.pending(), ended)
        except StoreError as error:
            log.info("the receipt of %s waits for storage: %s", receipt.execution_id, error)
            return False
        log.warning("the receipt of %s is stored by now", receipt.execution_id)
        self._told(started, receipt, sealed, ended)
        return True


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


def _no_receipt(error: Exception) -> StoreError:
    return StoreError(
        "STORE_FULL" if isinstance(error, StoreError) else "INTERNAL",
        f"the execution ended and its receipt could not be stored: {error}",
        "make room for the executor's state; where no receipt is there soon, restart it: it issues one then",
    )
