"""Dry runs: one at a time for each mission, and the report that replaces every earlier one."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from gonogo.digests import PREFIX, digest
from orchestrator.domain import events as ev
from orchestrator.domain.decisions import require_dry_runnable
from orchestrator.domain.errors import ContractError, Reason, StateForbidsError
from orchestrator.domain.evidence import ReportFacts, ReportStatus, Sealed
from orchestrator.domain.mission import Mission
from orchestrator.domain.plan import Plan
from orchestrator.domain.signals import Confidence, tool_of
from orchestrator.service.caution import Caution
from orchestrator.service.mission_store import Decision, Happened, MissionStore
from orchestrator.service.ports import Clock, Documents, Executor
from orchestrator.service.requests import Answer, Request, reused

ANNOUNCE_AFTER: Final = 0.05
"""Seconds after which a dry run that is still going is in the log; a shorter one is written once, with its report."""


@dataclass(slots=True, eq=False)
class Running:
    """A dry run under way, and the request it is for."""

    request: Request
    task: "asyncio.Task[Answer]"


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRuns:
    """Has the executor dry-run proposed missions and repair plans. A caller that goes away stops no dry run."""

    store: MissionStore
    executor: Executor
    documents: Documents
    clock: Clock
    caution: Caution
    running: dict[str, Running] = field(default_factory=dict)

    async def dry_run(self, request: Request, reference: str) -> Answer:
        """Dry-run a mission's plan and record the report; earlier approvals are void with the report they were for.

        Raises:
            StateForbidsError: neither the mission nor a repair plan of it is proposed, or a dry run of it is going on.
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

    def reports_of(self, mission: Mission) -> tuple[Sealed, ...]:
        """Return a mission's present report and those of the segments before; at least one.

        Raises:
            StateForbidsError: it has none.
        """
        digests = filter(None, (mission.report_digest, *(segment.report_digest for segment in mission.earlier)))
        reports = (self.store.document(mission.mission_id, digest) for digest in digests)
        return tuple(report for report in reports if report is not None) or (self.report_of(mission),)

    def _start(self, request: Request, mission: Mission) -> Running:
        running = Running(request, asyncio.ensure_future(self._run(request, mission)))
        self.running[mission.mission_id] = running
        running.task.add_done_callback(lambda _task: self.running.pop(mission.mission_id, None))
        return running

    async def report_on(
        self, plan: Plan | Mission, sealed: Sealed, request: Request
    ) -> tuple[Sealed, ev.DryRunCompleted]:
        """Have the executor dry-run a plan; return its report and what that report says of it.

        Raises:
            OrchestratorError: there is no report, or it is about something else.
        """
        report = await self.executor.dry_run(_executor_request(request), sealed)
        facts = self.documents.open_report(report)
        said = (facts.mission_id, facts.plan_id, facts.plan_digest, facts.executor_id)
        if said != (plan.mission_id, plan.plan_id, sealed.digest, plan.executor_id):
            raise ContractError(
                Reason.INTERNAL, "the executor's report is about another plan", "Check which executor answers."
            )
        return report, self._completed(plan, report, facts)

    def _completed(self, plan: Plan | Mission, report: Sealed, facts: ReportFacts) -> ev.DryRunCompleted:
        confidence, notice = self._stated(plan, facts)
        return ev.DryRunCompleted(
            report_id=facts.report_id,
            report_digest=report.digest,
            status=facts.status,
            risk=facts.risk,
            change_count=facts.change_count,
            reason=facts.reason,
            message=facts.message or notice,
            confidence=confidence.stated,
            confidence_samples=confidence.samples,
        )

    def _stated(self, plan: Plan | Mission, facts: ReportFacts) -> tuple[Confidence, str]:
        """Return what can be stated of a plan that an approver is going to see, and what to be careful about."""
        if facts.status is not ReportStatus.SUCCESS:
            return Confidence(), ""
        if isinstance(plan, Mission):
            uses = self.store.planned(plan)
        else:
            uses = tuple((step.kind, tool_of(step.kind, step.target)) for step in plan.steps)
        return self.caution.stated(plan.workspace_id, uses)

    @contextmanager
    def occupied(self, mission_id: str, request: Request) -> Iterator[None]:
        """Count the calling task as the mission's dry run for as long as the block takes."""
        task: asyncio.Task[Answer] | None = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine is always run by a task
        self.running[mission_id] = Running(request, task)
        try:
            yield
        finally:
            self.running.pop(mission_id, None)

    async def _run(self, request: Request, mission: Mission) -> Answer:
        plan = self.store.plan_of(mission)
        if plan is None:
            raise ContractError(Reason.INTERNAL, "the mission has no plan", "Propose it again.")
        started = Happened(
            payload=ev.DryRunStarted(plan_id=mission.plan_id), time=self.clock.now(), actor=request.person
        )
        early = Decision(payloads=(), earlier=(started,))
        announcement = Announcement(
            lambda: self.store.record(mission.mission_id, request.person, lambda _mission: early)
        )
        try:
            report, completed = await self.report_on(mission, plan, request)
        finally:
            announced = await announcement.end()
        earlier = () if announced else (started,)

        def decide(now: Mission | None) -> Decision:
            require_dry_runnable(now or mission)
            _require_same_plan(now or mission, mission)
            return Decision(payloads=(completed,), earlier=earlier, documents=(report,))

        return await self.store.act(mission.mission_id, request, decide, detach=False)


def _require_same_plan(now: Mission, tried: Mission) -> None:
    if now.plan_digest != tried.plan_digest:
        raise StateForbidsError(
            Reason.CONFLICT, "the mission got another plan during its dry run", "Dry-run the mission again."
        )


def _executor_request(request: Request) -> str:
    """Return the id under which the executor knows this request, so that a retry of ours is one of its own."""
    return "dry-run-" + digest(request.command_id.encode()).removeprefix(PREFIX)[:40]


class Announcement:
    """Writes that something began, once it has gone on for a while."""

    def __init__(self, write: Callable[[], Coroutine[Any, Any, Answer]]) -> None:
        self._write = write
        self._task: asyncio.Task[Answer] | None = None
        self._timer = asyncio.get_running_loop().call_later(ANNOUNCE_AFTER, self._begin)

    async def end(self) -> Answer | None:
        """Stop waiting; return what was written, None where nothing was."""
        self._timer.cancel()
        if self._task is None:
            return None
        await asyncio.wait([self._task])
        return None if self._task.exception() is not None else self._task.result()

    def _begin(self) -> None:
        self._task = asyncio.ensure_future(self._write())
