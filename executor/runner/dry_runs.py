"""Dry runs: who may have one now, that one request is one dry run, and the report that comes of it."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from executor.domain.errors import ExecutorError, RequestMalformedError
from executor.domain.events import DryRunStarted
from executor.domain.ladder import LadderLevel
from executor.domain.plan import Plan, Retrieval
from executor.domain.plan_rules import check_plan
from executor.domain.policy import Trust
from executor.domain.redaction import Redactor
from executor.domain.sealed import SealedBytes
from executor.runner.approvals import proven_proposer
from executor.runner.clock import EffectiveClock
from executor.runner.control_ports import NothingPaused, Paused
from executor.runner.documents import OpenDocuments
from executor.runner.ports import Ledger, RequestRecord, Simulator, WorkspaceStanding
from executor.runner.receipts import Issuer
from executor.runner.repairs import Repairs
from executor.runner.requests import DRY_RUN, RequestDesk, check_envelope, check_request_id, check_same, malformed
from executor.runner.run import Recorder
from executor.runner.trust import InForce, TrustInForce
from executor.workspace.workspace import Workspace
from gonogo import sealing
from gonogo.policy import Proposer


class Admission:
    """Lets a number of dry runs in at once; a few more wait for a while, the rest are turned away.

    Args:
        at_once: tells how many may run now.
        waiting: how many may wait.
        patience: for how many seconds.
    """

    def __init__(self, at_once: Callable[[], int], *, waiting: int = 64, patience: float = 10.0) -> None:
        self._at_once = at_once
        self._room = waiting
        self._patience = patience
        self._running = 0
        self._waiting = 0
        self._freed = threading.Condition()

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Hold a place.

        Raises:
            ExecutorError: reason OVERLOADED.
        """
        with self._freed:
            if self._waiting or not self._has_place():
                self._wait()
            self._running += 1
        try:
            yield
        finally:
            with self._freed:
                self._running -= 1
                self._freed.notify()

    def _has_place(self) -> bool:
        return self._running < self._at_once()

    def _wait(self) -> None:
        if self._waiting >= self._room:
            raise _overloaded()
        self._waiting += 1
        try:
            if not self._freed.wait_for(self._has_place, self._patience):
                raise _overloaded()
        finally:
            self._waiting -= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRuns:
    """Takes requests for dry runs."""

    trust: TrustInForce
    clock: EffectiveClock
    ledger: Ledger
    documents: OpenDocuments
    issuer: Issuer
    workspaces: Mapping[str, Workspace]
    simulator: Simulator
    standings: Mapping[str, WorkspaceStanding]
    admission: Admission
    desk: RequestDesk
    paused: Paused = field(default_factory=NothingPaused)
    """Knows the executions that wait for a repair plan."""

    def run(self, request_id: str, sealed: SealedBytes, attached: Callable[[Recorder], None]) -> SealedBytes:
        """Dry run a plan and return the sealed report; a repeated request returns the first one.

        Args:
            request_id: what arrived.
            sealed: the plan.
            attached: called with the dry run's events as soon as it begins; not for a repeated request.

        Raises:
            RequestMalformedError: the request or the plan is not one that can be run here.
            GateRefusedError: reason SIGNATURE_INVALID; the plan's own signature is not its proposer's.
            ExecutorError: the dry run could not be made, or nothing can be decided now.
        """
        check_request_id(request_id)
        check_envelope(sealed, sealing.PLAN, sealing.MAX_BODY_BYTES)
        with self.desk.turn(request_id):
            body_digest = sealed.envelope_digest
            known = self.ledger.request(request_id)
            if known is not None:
                check_same(known, DRY_RUN, body_digest)
                return self._issued(known.reference)
            self.clock.checked()
            in_force = self.trust.current()
            plan = self._checked(sealed, in_force.trust)
            proposer = proven_proposer(in_force.keyring, sealed, plan)
            request = RequestRecord(request_id=request_id, kind=DRY_RUN, body_digest=body_digest, reference="")
            with self.admission.enter():
                return self._report(request, plan, sealed.digest, attached, in_force, proposer)

    def _checked(self, sealed: SealedBytes, trust: Trust) -> Plan:
        if not trust.policy.in_force:
            raise ExecutorError(
                "STATE_FORBIDS",
                "the executor's trust file has no policy, so nothing runs",
                "have the operator write a [policy] table into the trust file",
            )
        _check_no_secret(sealed, self.issuer.redactor())
        plan = self.documents.plan(sealed)
        check_plan(
            plan,
            executor_id=trust.executor_id,
            workspaces=self.workspaces,
            max_content_bytes=trust.limits.max_content_bytes,
        )
        Repairs(self.ledger, self.paused).check_dry_run(plan)
        _check_level(plan, self.standings[plan.workspace_id])
        return plan

    def _report(
        self,
        request: RequestRecord,
        plan: Plan,
        plan_digest: str,
        attached: Callable[[Recorder], None],
        in_force: InForce,
        proposer: Proposer,
    ) -> SealedBytes:
        started_at = self.issuer.now()
        recorder = Recorder(plan.mission_id, redactor=self.issuer.redactor())
        attached(recorder)
        recorder(DryRunStarted(plan_id=plan.plan_id))
        simulation = self.simulator.run(plan, self.workspaces[plan.workspace_id], recorder)
        level = min(simulation.ladder_level, self.standings[plan.workspace_id].ladder_level)
        simulation = replace(simulation, ladder_level=level)
        if not self.trust.same(in_force):
            raise ExecutorError(
                "STATE_FORBIDS", "the trust file changed during the dry run", "make the dry run again under the new one"
            )
        report, sealed = self.issuer.report(plan, plan_digest, simulation, started_at, in_force, proposer)
        self.ledger.issue_report(
            report,
            sealed,
            request=replace(request, reference=sealed.digest),
            small_objects=simulation.small_objects,
        )
        self.documents.issued(sealed, report)
        return sealed

    def _issued(self, digest: str) -> SealedBytes:
        sealed = self.ledger.issued_report(digest)
        if sealed is None:
            raise malformed("the report of this request is no longer here", "ask again with a new request_id")
        return sealed


def _check_no_secret(sealed: SealedBytes, redactor: Redactor) -> None:
    """Refuse a plan that holds a secret's value in any form; nothing of it was kept, and nothing is repeated."""
    secret = redactor.find(sealed.body) if redactor else None
    if secret is not None:
        raise RequestMalformedError(
            "SECRET_IN_PLAN",
            f"the plan holds the value of secret {secret}",
            "keep it out of the plan, which is signed, stored and shown as it is; it is known now: replace the secret",
        )


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
