"""Dry runs: one at a time for each mission, and the report that replaces every earlier one."""

import asyncio
from dataclasses import dataclass, field
from typing import Final

from gonogo.digests import PREFIX, digest
from orchestrator.domain import events as ev
from orchestrator.domain.decisions import require_dry_runnable
from orchestrator.domain.errors import ContractError, Reason, StateForbidsError
from orchestrator.domain.evidence import Sealed
from orchestrator.domain.mission import Mission
from orchestrator.service.mission_store import Decision, MissionStore
from orchestrator.service.ports import Documents, Executor
from orchestrator.service.requests import Answer, Request, reused

ANNOUNCE_AFTER: Final = 0.05
"""Seconds after which a dry run that is still going is in the log; a shorter one is written once, with its report."""


@dataclass(slots=True, eq=False)
class _Running:
    request: Request
    task: "asyncio.Task[Answer]"


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRuns:
    """Has the executor dry-run proposed missions. A caller that goes away stops no dry run."""

    store: MissionStore
    executor: Executor
    documents: Documents
    running: dict[str, _Running] = field(default_factory=dict)

    async def dry_run(self, request: Request, reference: str) -> Answer:
        """Dry-run a mission's plan and record the report; earlier approvals are void with the report they were for.

        Raises:
            StateForbidsError: the mission is not proposed, or a dry run of it is going on.
            ExecutorUnavailableError: the executor can not be reached; nothing has changed.
        """
        mission = self.store.find(reference)
        running = self.running.get(mission.mission_id)
        if running is None:
            answer = self.store.answered(request)
            if answer is not None:
                return answer
            require_dry_runnable(mission)
            running = self._start(request, mission)
        elif running.request.command_id != request.command_id:
            raise StateForbidsError(
                Reason.CONFLICT, "a dry run of this mission is going on", "Wait for its report, then try again."
            )
        elif running.request.digest != request.digest:
            raise reused(request)
        return await asyncio.shield(running.task)

    async def close(self) -> None:
        """Leave the dry runs that are going on; their requests may be made again."""
        tasks = [running.task for running in self.running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def report_of(self, mission: Mission) -> Sealed:
        """Return the report of a mission's last dry run."""
        report = self.store.document(mission.mission_id, mission.report_digest)
        if report is None:
            raise StateForbidsError(Reason.REPORT_MISSING, "the mission has no report", "Dry-run the mission.")
        return report

    def _start(self, request: Request, mission: Mission) -> _Running:
        running = _Running(request, asyncio.ensure_future(self._run(request, mission)))
        self.running[mission.mission_id] = running
        running.task.add_done_callback(lambda _task: self.running.pop(mission.mission_id, None))
        return running

    async def _run(self, request: Request, mission: Mission) -> Answer:
        plan = self.store.document(mission.mission_id, mission.plan_digest)
        if plan is None:
            raise ContractError(Reason.INTERNAL, "the mission has no plan", "Propose it again.")
        announcement = _Announcement(self.store, mission, request.person)
        try:
            report = await self.executor.dry_run(_executor_request(request), plan)
        finally:
            announced = await announcement.end()
        completed = self._completed(mission, report)
        payloads = (completed,) if announced else (ev.DryRunStarted(plan_id=mission.plan_id), completed)

        def decide(now: Mission | None) -> Decision:
            require_dry_runnable(now or mission)
            return Decision(payloads=payloads, documents=(report,))

        return await self.store.act(mission.mission_id, request, decide)

    def _completed(self, mission: Mission, report: Sealed) -> ev.DryRunCompleted:
        facts = self.documents.open_report(report)
        said = (facts.mission_id, facts.plan_id, facts.plan_digest, facts.executor_id)
        if said != (mission.mission_id, mission.plan_id, mission.plan_digest, mission.executor_id):
            raise ContractError(
                Reason.INTERNAL, "the executor's report is about another plan", "Check which executor answers."
            )
        return ev.DryRunCompleted(
            report_id=facts.report_id,
            report_digest=report.digest,
            status=facts.status,
            risk=facts.risk,
            change_count=facts.change_count,
            reason=facts.reason,
            message=facts.message,
        )


def _executor_request(request: Request) -> str:
    """Return the id under which the executor knows this request, so that a retry of ours is one of its own."""
    return "dry-run-" + digest(request.command_id.encode()).removeprefix(PREFIX)[:40]


class _Announcement:
    """Writes that a dry run began, once it has gone on for a while."""

    def __init__(self, store: MissionStore, mission: Mission, actor: str) -> None:
        self._store = store
        self._mission = mission
        self._actor = actor
        self._task: asyncio.Task[Answer] | None = None
        self._timer = asyncio.get_running_loop().call_later(ANNOUNCE_AFTER, self._begin)

    async def end(self) -> bool:
        """Stop waiting; tell whether the beginning is written."""
        self._timer.cancel()
        if self._task is None:
            return False
        await asyncio.wait([self._task])
        return self._task.exception() is None

    def _begin(self) -> None:
        started = ev.DryRunStarted(plan_id=self._mission.plan_id)
        write = self._store.record(
            self._mission.mission_id, self._actor, lambda _mission: Decision(payloads=(started,))
        )
        self._task = asyncio.ensure_future(write)
