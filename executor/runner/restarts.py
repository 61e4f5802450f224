"""What the start of an executor does about executions that a former process has left.

Those that can be brought to an end are; those that wait for a person, or ask for one now, are there again with a
thread that holds their workspace. Nothing is run again by a start.
"""

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final

from executor.domain.errors import RequestMalformedError, StoreError
from executor.domain.plan import Plan
from executor.domain.receipt import Receipt
from executor.domain.report import Report
from executor.runner.carrying_out import Carrier, Started
from executor.runner.documents import OpenDocuments
from executor.runner.orders import Left, is_doubted
from executor.runner.ports import Claim, Ended, Event
from executor.runner.position import Restored
from executor.runner.run import Recorder
from executor.runner.segments import Segment
from executor.runner.signed_words import recorded_approvals
from executor.workspace.workspace import Workspace

LOCK_SECONDS: Final = 30.0
SETTLE_SECONDS: Final = 2.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _There:
    """An execution that is there again."""

    segments: Sequence[Segment]
    workspace: Workspace
    recorder: Recorder
    restored: Restored
    durable: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Restarts:
    """Settles what a former process has left, once, before the first request is served."""

    carrier: Carrier
    documents: OpenDocuments
    workspaces: Mapping[str, Workspace]

    def all(self) -> tuple[Receipt, ...]:
        """Settle all of it; returns the receipts of what has ended.

        Whoever dies in the middle of it is followed by one who does it again: an execution gets its receipt once.
        Should there be several for one workspace, the newest goes first: its commits lie on top of the others'.
        """
        found = [self._one(claims) for claims in self._unfinished()]
        for workspace in self.workspaces.values():
            with workspace.lock(LOCK_SECONDS):
                self.carrier.recovery.tidy(workspace)
        for one in found:
            if isinstance(one, _There):
                self._wait_on(one)
        return tuple(one for one in found if isinstance(one, Receipt))

    def _unfinished(self) -> Iterator[tuple[Claim, ...]]:
        execution_ids = dict.fromkeys(claim.execution_id for claim in reversed(self.carrier.ledger.unfinished()))
        return map(self.carrier.ledger.claims_of, execution_ids)

    def _one(self, claims: Sequence[Claim]) -> Receipt | _There:
        carrier, claim = self.carrier, claims[0]
        events = carrier.ledger.events(claim.execution_id, 0)
        recorder = Recorder(claim.mission_id, earlier=events, redactor=carrier.issuer.redactor())
        left = self._left(claims, events)
        with ExitStack() as held:
            workspace = self.workspaces.get(claim.workspace_id)
            if workspace is not None:
                held.enter_context(workspace.lock(LOCK_SECONDS))
            found = carrier.recovery.recover(left, recorder)
            if isinstance(found, Ended):
                return self._ended(left, found, recorder)
        if workspace is None:
            raise LookupError(claim.workspace_id)
        log.warning("execution %s had not ended; it waits for a person", claim.execution_id)
        return _There(
            segments=found.position.segments,
            workspace=workspace,
            recorder=recorder,
            restored=found,
            durable=len(events),
        )

    def _ended(self, left: Left, ended: Ended, recorder: Recorder) -> Receipt:
        receipt, sealed = self.carrier.sealed_receipt(left.claims, left.reports, ended, recorder)
        self.carrier.store_end(receipt, sealed, recorder.after(len(left.events)), ended)
        ended.let_go()
        outcome = ended.result.outcome.value
        log.warning("execution %s had not ended; its receipt says %s", receipt.execution_id, outcome)
        return receipt

    def _left(self, claims: Sequence[Claim], events: Sequence[Event]) -> Left:
        ledger, execution_id = self.carrier.ledger, claims[0].execution_id
        controls = ledger.controls(execution_id)
        reports = [self._report(claim) for claim in claims]
        return Left(
            claims=claims,
            plans=[self._plan(claim) for claim in claims],
            reports=reports,
            events=events,
            controls=controls,
            effects=ledger.effects(execution_id),
            approvals=recorded_approvals(controls, self.carrier.words),
            now=self.carrier.issuer.now,
            doubted=is_doubted(reports, ledger.epoch),
        )

    def _plan(self, claim: Claim) -> Plan | None:
        """Return a plan that was kept; what an older release claimed, or can not be read any more, can only end."""
        sealed = self.carrier.ledger.plan_of(claim.execution_id, claim.segment)
        try:
            return None if sealed is None else self.documents.plan(sealed)
        except RequestMalformedError:
            log.exception("the plan of execution %s can not be read", claim.execution_id)
            return None

    def _report(self, claim: Claim) -> Report:
        sealed = self.carrier.ledger.issued_report(claim.report_digest)
        if sealed is None:
            raise StoreError(
                "INTERNAL",
                f"the ledger holds execution {claim.execution_id} and not its report",
                "restore the executor's ledger from a copy that has both",
            )
        return self.documents.report(sealed)

    def _wait_on(self, there: _There) -> None:
        """Start the thread of an execution that is there again, and wait until it has the workspace."""
        started = self.carrier.again(
            there.segments, there.workspace, there.recorder, there.restored, durable=there.durable
        )
        holds, execution_id = threading.Event(), started.run.execution_id
        work = partial(self._carry_out, started, there.workspace, holds)
        threading.Thread(target=work, name=f"run-{execution_id}", daemon=True).start()
        holds.wait(LOCK_SECONDS)
        if there.restored.pause is not None:
            self.carrier.running.settled(execution_id, SETTLE_SECONDS)

    def _carry_out(self, started: Started, workspace: Workspace, holds: threading.Event) -> None:
        try:
            with workspace.lock(LOCK_SECONDS):
                holds.set()
                self.carrier.carry_out(started)
        except Exception:
            log.exception("execution %s could not be waited for; the next start tries again", started.run.execution_id)
        finally:
            holds.set()
            self.carrier.running.done(started.run.execution_id)
