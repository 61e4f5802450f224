"""Dry runs: who may have one now, that one request is one dry run, and the report that comes of it."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from executor.domain.errors import ExecutorError
from executor.domain.events import DryRunStarted
from executor.domain.ladder import LadderLevel
from executor.domain.plan import Plan, Retrieval
from executor.domain.plan_rules import check_plan
from executor.domain.policy import Trust
from executor.domain.sealed import SealedBytes
from executor.runner.documents import OpenDocuments
from executor.runner.ports import Ledger, RequestRecord, Simulator, WorkspaceStanding
from executor.runner.receipts import Issuer
from executor.runner.requests import DRY_RUN, RequestDesk, check_envelope, check_request_id, check_same, malformed
from executor.runner.run import Recorder
from executor.workspace.workspace import Workspace
from gonogo import sealing


class Admission:
    """Lets a number of dry runs in at once; a few more wait for a while, the rest are turned away."""

    def __init__(self, at_once: int, *, waiting: int = 64, patience: float = 10.0) -> None:
        self._places = threading.Semaphore(at_once)
        self._queue = threading.Semaphore(at_once + waiting)
        self._patience = patience

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Hold a place.

        Raises:
            ExecutorError: reason OVERLOADED.
        """
        if not self._queue.acquire(blocking=False):
            raise _overloaded()
        try:
            if not self._places.acquire(timeout=self._patience):
                raise _overloaded()
            try:
                yield
            finally:
                self._places.release()
        finally:
            self._queue.release()


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRuns:
    """Takes requests for dry runs."""

    trust: Trust
    ledger: Ledger
    documents: OpenDocuments
    issuer: Issuer
    workspaces: Mapping[str, Workspace]
    simulator: Simulator
    standings: Mapping[str, WorkspaceStanding]
    admission: Admission
    desk: RequestDesk

    def run(self, request_id: str, sealed: SealedBytes, attached: Callable[[Recorder], None]) -> SealedBytes:
        """Dry run a plan and return the sealed report; a repeated request returns the first one.

        Args:
            request_id: what arrived.
            sealed: the plan.
            attached: called with the dry run's events as soon as it begins; not for a repeated request.

        Raises:
            RequestMalformedError: the request or the plan is not one that can be run here.
            ExecutorError: the dry run could not be made.
        """
        check_request_id(request_id)
        check_envelope(sealed, sealing.PLAN, sealing.MAX_BODY_BYTES)
        with self.desk.turn(request_id):
            body_digest = sealed.envelope_digest
            known = self.ledger.request(request_id)
            if known is not None:
                check_same(known, DRY_RUN, body_digest)
                return self._issued(known.reference)
            plan = self._checked(sealed)
            with self.admission.enter():
                return self._report(request_id, body_digest, plan, sealed.digest, attached)

    def _checked(self, sealed: SealedBytes) -> Plan:
        policy = self.trust.policy
        if not policy.in_force:
            raise ExecutorError(
                "STATE_FORBIDS",
                "the executor's trust file has no policy, so nothing runs",
                "have the operator write a [policy] table into the trust file",
            )
        plan = self.documents.plan(sealed)
        check_plan(
            plan,
            executor_id=self.trust.executor_id,
            workspaces=self.workspaces,
            max_content_bytes=policy.max_content_bytes,
        )
        _check_level(plan, self.standings[plan.workspace_id])
        return plan

    def _report(
        self, request_id: str, body_digest: str, plan: Plan, plan_digest: str, attached: Callable[[Recorder], None]
    ) -> SealedBytes:
        started_at = self.issuer.now()
        recorder = Recorder(plan.mission_id)
        attached(recorder)
        recorder(DryRunStarted(plan_id=plan.plan_id))
        simulation = self.simulator.run(plan, self.workspaces[plan.workspace_id], recorder)
        level = min(simulation.ladder_level, self.standings[plan.workspace_id].ladder_level)
        simulation = replace(simulation, ladder_level=level)
        report, sealed = self.issuer.report(plan, plan_digest, simulation, started_at)
        self.ledger.issue_report(
            report,
            sealed,
            request=RequestRecord(
                request_id=request_id, kind=DRY_RUN, body_digest=body_digest, reference=sealed.digest
            ),
            small_objects=simulation.small_objects,
        )
        self.documents.issued(sealed, report)
        return sealed

    def _issued(self, digest: str) -> SealedBytes:
        sealed = self.ledger.issued_report(digest)
        if sealed is None:
            raise malformed("the report of this request is no longer here", "ask again with a new request_id")
        return sealed


def _check_level(plan: Plan, standing: WorkspaceStanding) -> None:
    """Refuse changes in a workspace that can only be read, before somebody approves what could not be carried out.

    Where the plan itself demands more than there is, its report says so.
    """
    demanded = plan.scope.min_ladder_level
    if standing.ladder_level is not LadderLevel.L0 or (demanded is not None and demanded > LadderLevel.L0):
        return
    for step in plan.steps:
        if not isinstance(step.action, Retrieval):
            raise ExecutorError(
                "UNSUPPORTED",
                f"step {step.step_id} ({step.kind}) would change a workspace that can only be read",
                standing.limitation,
            )


def _overloaded() -> ExecutorError:
    return ExecutorError(
        "OVERLOADED",
        "the executor makes as many dry runs as it may",
        "try again in a moment, or raise max_dry_runs in the trust file",
    )
