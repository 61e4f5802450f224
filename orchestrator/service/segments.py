"""Having a paused execution go on with an approved repair plan.

The executor's answer to such an order is the same execution, whose stream its run follows already. So only the
answer's beginning is read here: the plan was taken, or it was refused and the mission stays paused. An order's request
id follows from the caller's, so that the same request is the same order, also after a crash in between: the executor
that has taken it before says so again, and one that has not takes it now.
"""

import asyncio
import json
from collections.abc import Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from gonogo.digests import PREFIX, digest
from orchestrator.domain import decisions
from orchestrator.domain import events as ev
from orchestrator.domain.errors import ExecutorRefusedError, ExecutorUnavailableError, Reason, StateForbidsError
from orchestrator.domain.evidence import Sealed
from orchestrator.domain.mission import GrantedApproval, Mission
from orchestrator.service.event_log import ProjectionRow
from orchestrator.service.mission_store import Decision, MissionStore
from orchestrator.service.ports import Clock, Documents, ExecutionOrder, Executor
from orchestrator.service.requests import Request
from orchestrator.service.streams import REFUSALS

ORCHESTRATOR: Final = "orchestrator"
CLAIMED: Final = frozenset({Reason.ALREADY_EXECUTED, Reason.ALREADY_CLAIMED})
"""Refusals that say that the executor holds the mission."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """Hands plans over, with all that the executor asks for; what it refuses is recorded."""

    store: MissionStore
    executor: Executor
    documents: Documents
    clock: Clock
    _sending: "set[asyncio.Task[None]]" = field(default_factory=set)

    async def go_on(self, request: Request, mission: Mission) -> None:
        """Have the executor take a mission's repair plan. A caller that goes away does not take the order back.

        Raises:
            StateForbidsError: the plan is not approved, or its approvals ran out.
            ExecutorRefusedError: the plan was refused; nothing was done, and the mission stays paused.
            ExecutorUnavailableError: nobody can tell yet; the same request tells later.
        """
        if mission.repair_pending:
            decisions.require_executable(mission, running=False)
            self._require_lasting(mission)
        order = self.order(mission, _order_id(request, mission))
        await self._alone(self._send(mission, order))

    def order(self, mission: Mission, request_id: str) -> ExecutionOrder:
        """Return the order for a mission's present plan.

        Raises:
            StateForbidsError: there is no report.
        """
        document = self.store.document
        plan, report = self.store.plan_of(mission), document(mission.mission_id, mission.report_digest)
        approvals = (document(mission.mission_id, granted.approval_digest) for granted in self._counting(mission))
        if plan is None or report is None:
            raise StateForbidsError(Reason.REPORT_MISSING, "the mission has no report", "Dry-run the mission.")
        return ExecutionOrder(
            request_id=request_id,
            mission_id=mission.mission_id,
            workspace_id=mission.workspace_id,
            executor_id=mission.executor_id,
            intent_id=mission.intent_id,
            plan=plan,
            report=report,
            approvals=tuple(sealed for sealed in approvals if sealed is not None),
        )

    async def close(self) -> None:
        """Leave the orders that wait for an answer; the same requests ask again."""
        for task in tuple(self._sending):
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)

    def _counting(self, mission: Mission) -> tuple[GrantedApproval, ...]:
        """Return the approvals that go with an order; an order that was taken is sent again just as it was."""
        taken = mission.segment and mission.segment == mission.opened_segment
        return mission.approvals if taken else decisions.standing_approvals(mission, self.clock.now())

    def _require_lasting(self, mission: Mission) -> None:
        if decisions.has_run_out(mission, self.clock.now()):
            raise StateForbidsError(
                Reason.APPROVAL_EXPIRED,
                "the approvals of the mission's repair plan ran out; it stays paused",
                f"Have the same report approved again: gonogo approve {mission.mission_id}.",
            )

    async def _send(self, mission: Mission, order: ExecutionOrder) -> None:
        try:
            async with aclosing(self.executor.execute(order)) as updates:
                async for _update in updates:
                    return
        except ExecutorRefusedError as refused:
            if refused.reason not in CLAIMED:
                await self._refused(mission, refused)
            raise
        raise no_answer()

    async def _refused(self, mission: Mission, error: ExecutorRefusedError) -> None:
        """Record what a refusal does to a repair plan, unless the mission has another one, or has moved on, by now."""
        refused, sealed = self.refusal(error)

        def decide(now: Mission) -> Decision:
            if not now.repair_pending or now.plan_digest != mission.plan_digest:
                return Decision(payloads=())
            return Decision(payloads=decisions.decide_repair_refusal(refused), **kept_refusal(refused, sealed))

        if decisions.decide_repair_refusal(refused):
            await self.store.record(mission.mission_id, ORCHESTRATOR, decide)

    def refusal(self, error: ExecutorRefusedError) -> tuple[ev.GateRefused, Sealed | None]:
        """Return the event that tells of a refusal, and the executor's signed statement where it gave one."""
        sealed = error.refusal
        facts = self.documents.open_refusal(sealed) if sealed is not None else None
        refused = ev.GateRefused(
            refusal_id=facts.refusal_id if facts else "",
            gate=facts.gate if facts else 0,
            reason=error.reason.value,
            message=error.message,
            remedy=error.remedy,
            paths=facts.paths if facts else (),
        )
        return refused, sealed

    async def _alone(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)
        await asyncio.shield(task)


def kept_refusal(refused: ev.GateRefused, sealed: Sealed | None) -> dict[str, Any]:
    """Return the document and the row by which a refusal is found again."""
    if sealed is None:
        return {}
    row = ProjectionRow(
        name=REFUSALS, key=refused.refusal_id, status=sealed.digest, sort_key=refused.refusal_id, data="{}"
    )
    return {"documents": (sealed,), "rows": (row,)}


def no_answer() -> ExecutorUnavailableError:
    """Say that the executor's stream ended before it said anything."""
    return ExecutorUnavailableError(
        Reason.EXECUTOR_UNAVAILABLE,
        "the executor's answer ended before it began",
        "Try again with the same request id; the executor's ledger makes sure that nothing is done twice.",
    )


def _order_id(request: Request, mission: Mission) -> str:
    """Return the id of an order: one request has one plan taken, and another plan is another order."""
    named = json.dumps([request.command_id, mission.plan_digest]).encode()
    return "execute-" + digest(named).removeprefix(PREFIX)[:40]
