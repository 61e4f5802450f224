"""Executions: from a request through the gates to the receipt, once for each mission.

An execution runs in the thread that brought the request and needs nothing of its caller any more once the mission is
claimed: a caller that goes away stops nothing, and the same request finds the execution again. A request with a repair
plan goes through the same gates; then the thread that waits goes on with it, and its caller sees that execution.
"""

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from typing import Final

from executor.domain.control import ControlAction
from executor.domain.errors import ExecutorError, NotFoundError, StepBlockedError, StoreError
from executor.domain.ladder import LadderLevel
from executor.domain.receipt import Receipt
from executor.domain.sealed import SealedBytes
from executor.runner.carrying_out import Carrier, Started
from executor.runner.control_requests import CONTROL, ControlInput, check_control
from executor.runner.gates import CheckedRequest, Gates, VerifiedRequest
from executor.runner.ports import ExecutionRecord, WorkspaceStanding
from executor.runner.redacted import redacted_error
from executor.runner.refusal_pace import RefusalPace
from executor.runner.requests import EXECUTE, ExecuteInput, RequestDesk, check_execute, check_same
from executor.runner.restarts import Restarts
from executor.runner.running import Live
from executor.runner.segments import Segment
from executor.runner.stored_run import AnyRun, StoredRun
from executor.workspace.workspace import Workspace, WorkspaceBusyError

LOCK_SECONDS: Final = 30.0
LOCK_LOOK_SECONDS: Final = 0.5
LEAVE_SECONDS: Final = 5.0
ALWAYS_TAKEN: Final = frozenset({ControlAction.PAUSE, ControlAction.STOP})
"""Whatever is wrong with whoever brings them: they only keep things from happening."""

log = logging.getLogger(__name__)


class RefusedError(ExecutorError):
    """The request was refused: nothing was done, and a signed document says so."""

    def __init__(self, cause: ExecutorError, refusal: SealedBytes) -> None:
        fault = cause.fault
        super().__init__(fault.reason, fault.message, fault.remedy, paths=fault.paths)
        self.cause = cause
        self.refusal = refusal


class Executions:
    """Takes requests to execute, and controls of what runs.

    Args:
        gates: decide whether anything happens.
        carrier: does it.
        restarts: settle what a former process has left.
        desk: lets requests with the same id in one after the other.
        workspaces: those that are served.
        standings: their ladder levels.
        check_caller: refuses a caller whose own audit log has forked.
        pace: how many refusals are recorded for one caller.
    """

    def __init__(
        self,
        *,
        gates: Gates,
        carrier: Carrier,
        restarts: Restarts,
        desk: RequestDesk,
        workspaces: Mapping[str, Workspace],
        standings: Mapping[str, WorkspaceStanding],
        check_caller: Callable[[str], None],
        pace: RefusalPace,
    ) -> None:
        self._gates = gates
        self._carrier = carrier
        self._restarts = restarts
        self._desk = desk
        self._workspaces = workspaces
        self._standings = standings
        self._check_caller = check_caller
        self._pace = pace
        self._ledger = carrier.ledger
        self._running = carrier.running

    def start(self) -> tuple[Receipt, ...]:
        """Settle every execution of a process that died. Call it before the first request is served."""
        receipts = self._restarts.all()
        self._carrier.flusher.start()
        return receipts

    def execute(self, request: ExecuteInput, attached: Callable[[AnyRun], None]) -> AnyRun:
        """Check the gates, claim the mission and carry it out in this thread, to its end.

        A request that was taken before returns the execution it started, at once, whether that has ended or not; so
        does one with a repair plan.

        Args:
            request: what arrived.
            attached: called with the execution as soon as there is one.

        Raises:
            RefusedError: nothing was done.
            ExecutorError: reason OVERLOADED; nothing was even looked at.
        """
        self._pace.check(request.caller)
        started: Started | AnyRun | None = None
        with ExitStack() as held:
            held.callback(lambda: self._done(started))  # when the workspace is free again
            try:
                with self._desk.turn(request.request_id):
                    started = self._known(request) or self._start(request, held)
            except ExecutorError as error:
                raise self._refused(request, error) from error
            except Exception as error:
                log.exception("the gates failed on request %r", request.request_id)
                raise self._refused(request, _internal()) from error
            if not isinstance(started, Started):
                attached(started)
                return started
            attached(started.run)
            self._carrier.carry_out(started)
            return started.run

    def control(self, request: ControlInput) -> AnyRun:
        """Have an execution pause, go on or end, or take a signed word about one of its steps; returns the execution.

        A request that was taken before does nothing once more.

        Raises:
            RequestMalformedError: not a request, or its id stood for another one.
            NotFoundError: the mission was never executed.
            ExecutorError: it does not fit how the execution stands, or the document does not hold; nothing was done.
        """
        check_control(request)
        if request.action not in ALWAYS_TAKEN:
            self._check_caller(request.caller)
        try:
            with self._desk.turn(request.request_id):
                known = self._ledger.request(request.request_id)
                if known is None:
                    live = self._live(request.mission_id)
                    live.desk.take(request)
                    return live.run
                check_same(known, CONTROL, request.body_digest)
                return self.find(execution_id=known.reference)
        except ExecutorError as error:
            redacted_error(error, self._carrier.issuer.redactor())
            raise

    def find(self, *, execution_id: str = "", mission_id: str = "") -> AnyRun:
        """Return an execution by its id or its mission's.

        Raises:
            NotFoundError: there is none.
        """
        record = self._record(execution_id, mission_id)
        if not record.ended:
            live = self._running.find(record.execution_id)
            if live is not None:
                self._tell_late(live)
                return live.run
            record = self._record(record.execution_id, "")
        return StoredRun(record, self._ledger)

    def drain(self, seconds: float) -> bool:
        """Wait until nothing is at work but what waits for a person; returns whether that came in time."""
        return self._running.drain(seconds)

    def close(self) -> None:
        """End what works in the background, and what waits: that is on the disk."""
        self._running.leave(LEAVE_SECONDS)
        self._carrier.flusher.close()

    def _done(self, started: Started | AnyRun | None) -> None:
        if isinstance(started, Started):
            self._running.done(started.run.execution_id)

    def _live(self, mission_id: str) -> Live:
        record = self._record("", mission_id)
        live = None if record.ended else self._running.find(record.execution_id)
        if live is None:
            raise ExecutorError(
                "STATE_FORBIDS",
                "the mission's execution has ended, or its end could not be stored",
                "look how it ended: gonogo show MISSION",
            )
        return live

    def _known(self, request: ExecuteInput) -> AnyRun | None:
        check_execute(request)
        known = self._ledger.request(request.request_id)
        if known is None:
            return None
        check_same(known, EXECUTE, request.body_digest)
        return self.find(execution_id=known.reference)

    def _start(self, request: ExecuteInput, held: ExitStack) -> Started | AnyRun:
        self._check_caller(request.caller)
        checked = self._gates.check(request)
        _check_level(checked, self._standings[checked.plan.workspace_id])
        workspace = self._workspaces[checked.plan.workspace_id]
        if checked.plan.segment:
            return self._repair(checked, workspace)
        self._lock(workspace, held)
        return self._carrier.began(_segment(self._gates.claim(checked, workspace)), workspace)

    def _repair(self, checked: CheckedRequest, workspace: Workspace) -> AnyRun:
        """Have the execution that waits go on with a repair plan; its thread holds the workspace all along."""
        live = self._live(checked.plan.mission_id)
        live.desk.repair(lambda: _segment(self._gates.claim(checked, workspace)))
        return live.run

    def _lock(self, workspace: Workspace, held: ExitStack) -> None:
        """Take the workspace for this execution; whoever waits for a person there is not waited for.

        Raises:
            ExecutorError: reason EXECUTION_PAUSED or STORE_FULL, or the workspace was held all the time.
        """
        until = time.monotonic() + LOCK_SECONDS
        while True:
            paused = self._running.paused_in(workspace.workspace_id)
            if paused:
                raise ExecutorError(
                    "EXECUTION_PAUSED",
                    f"mission {paused} waits for a person, and holds workspace {workspace.workspace_id!r}",
                    f"have it go on or end first: gonogo show {paused} says what it waits for",
                )
            try:
                held.enter_context(workspace.lock(LOCK_LOOK_SECONDS))
            except WorkspaceBusyError:
                if time.monotonic() >= until:
                    raise
            else:
                return self._check_told(workspace)

    def _check_told(self, workspace: Workspace) -> None:
        """Refuse to build on what an execution has left whose end is not stored: a start would find it out from that.

        Raises:
            ExecutorError: reason STORE_FULL.
        """
        untold = self._running.untold_in(workspace.workspace_id)
        if untold is not None and not untold.told():
            raise ExecutorError(
                "STORE_FULL",
                f"the end of mission {untold.run.mission_id} in {workspace.workspace_id!r} could not be stored",
                "make room for the executor's state and try again; where that does not help, restart the executor",
            )

    def _tell_late(self, live: Live) -> None:
        """Store the end of an execution for which there was no room, unless somebody is at that."""
        workspace = self._workspaces.get(live.workspace_id)
        if live.untold and workspace is not None:
            with suppress(WorkspaceBusyError), workspace.lock(0):
                live.told()

    def _record(self, execution_id: str, mission_id: str) -> ExecutionRecord:
        record = self._ledger.execution(execution_id=execution_id, mission_id=mission_id)
        if record is None:
            raise NotFoundError("NOT_FOUND", "there is no such execution", "look the mission's id up")
        return record

    def _refused(self, request: ExecuteInput, error: ExecutorError) -> RefusedError:
        self._pace.refused(request.caller)
        issuer = self._carrier.issuer
        redacted_error(error, issuer.redactor())
        refusal, sealed = issuer.refusal(request, error)
        try:
            self._ledger.record_refusal(refusal, sealed)
        except StoreError:
            log.exception("refusal %s could not be stored", refusal.refusal_id)
        return RefusedError(error, sealed)


def _segment(verified: VerifiedRequest) -> Segment:
    return Segment(claim=verified.claim, plan=verified.plan, report=verified.report)


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


def _internal() -> ExecutorError:
    return ExecutorError(
        "INTERNAL",
        "the executor failed while it checked the request; nothing was done",
        "look into the executor's log, and try again",
    )
