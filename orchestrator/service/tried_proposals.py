"""Proposals that are dry-run before they are answered: one call of the caller's, and one write where all goes well.

Proposal and dry run stay what they are, with the same events; they are only written together. A dry run that takes
longer than a moment must not hide the mission, so what is known then is written at once and the report follows with a
write of its own, under a command that follows from the request's.

The proposal does not depend on its dry run: where none can be made, the mission is proposed and has no report. A
retry finds the mission, and has the dry run made that it lacks, unless something has happened to the mission since.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from orchestrator.domain import events as ev
from orchestrator.domain.decisions import require_dry_runnable
from orchestrator.domain.errors import OrchestratorError
from orchestrator.domain.evidence import Sealed
from orchestrator.domain.mission import Mission
from orchestrator.domain.plan import PlanDraft
from orchestrator.service.dry_runs import Announcement, DryRuns, Running
from orchestrator.service.mission_store import Decision, Happened, MissionStore
from orchestrator.service.missions import Missions, Prepared
from orchestrator.service.ports import Clock
from orchestrator.service.requests import Answer, Request, part_of, reused


@dataclass(frozen=True, slots=True, kw_only=True)
class TriedProposals:
    """Proposes missions together with their dry run. A caller that goes away stops neither."""

    store: MissionStore
    missions: Missions
    dry_runs: DryRuns
    clock: Clock
    running: dict[str, Running] = field(default_factory=dict)

    async def propose(self, request: Request, draft: PlanDraft) -> Answer:
        """Propose a draft and dry-run it; the mission has no report where the dry run could not be made.

        Raises:
            RequestRefusedError: the draft breaks a rule, or its workspace is not known.
            ExecutorUnavailableError: no executor is known yet and it can not be asked.
        """
        return await self._once(request, lambda: self.missions.prepare(request, draft))

    async def clone(self, request: Request, reference: str) -> Answer:
        """Propose the plan of a mission once more and dry-run it."""
        return await self._once(request, lambda: self.missions.prepare_clone(request, reference))

    async def close(self) -> None:
        """Leave what is going on; the requests may be made again."""
        tasks = [running.task for running in self.running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _once(self, request: Request, prepare: Callable[[], Awaitable[Prepared]]) -> Answer:
        running = self.running.get(request.command_id)
        if running is None:
            answer = self.store.answered(request)
            if answer is not None:
                return await self._again(request, answer)
            running = Running(request, asyncio.ensure_future(self._run(request, prepare)))
            self.running[request.command_id] = running
            running.task.add_done_callback(lambda _task: self.running.pop(request.command_id, None))
        elif running.request.digest != request.digest:
            raise reused(request)
        return await asyncio.shield(running.task)

    async def _run(self, request: Request, prepare: Callable[[], Awaitable[Prepared]]) -> Answer:
        prepared, part = await prepare(), _dry_run_part(request)
        begun = self._begun(prepared, request.person)
        early = Decision(payloads=(), earlier=begun, documents=(prepared.sealed,), rows=prepared.rows)
        announcement = Announcement(lambda: self.store.create(prepared.mission_id, request, early))
        found: tuple[Sealed, ev.DryRunCompleted] | None = None
        with self.dry_runs.occupied(prepared.mission_id, part):
            try:
                found = await self.dry_runs.report_on(prepared.plan, prepared.sealed, part)
            except OrchestratorError:
                found = None  # asking for the dry run again tells why
            finally:
                proposed = await announcement.end()
            if proposed is None:
                together = _together(prepared, begun, found)
                return await self.store.create(prepared.mission_id, request, together, detach=False)
            return await self._reported(part, proposed, found) if found is not None else proposed

    async def _reported(self, part: Request, proposed: Answer, found: tuple[Sealed, ev.DryRunCompleted]) -> Answer:
        """Write the report of a mission that was written before; one that was rejected meanwhile stays as it is."""
        report, completed = found

        def decide(now: Mission | None) -> Decision:
            require_dry_runnable(now or proposed.mission)
            return Decision(payloads=(completed,), documents=(report,))

        try:
            return await self.store.act(proposed.mission.mission_id, part, decide, detach=False)
        except OrchestratorError:
            return proposed

    async def _again(self, request: Request, answer: Answer) -> Answer:
        part, mission = _dry_run_part(request), answer.mission
        reported = self.store.answered(part)
        if reported is not None:
            return reported
        if mission.report_digest or self.store.state(mission.mission_id).last_sequence != mission.last_sequence:
            return answer
        try:
            return await self.dry_runs.dry_run(part, mission.mission_id)
        except OrchestratorError:
            return answer

    def _begun(self, prepared: Prepared, actor: str) -> tuple[Happened, ...]:
        started = ev.DryRunStarted(plan_id=prepared.plan.plan_id)
        now = self.clock.now()
        return tuple(Happened(payload=payload, time=now, actor=actor) for payload in (*prepared.payloads, started))


def _together(
    prepared: Prepared, begun: tuple[Happened, ...], found: tuple[Sealed, ev.DryRunCompleted] | None
) -> Decision:
    """Return proposal and report as one decision, or the proposal alone where there was no dry run."""
    if found is None:
        return Decision(payloads=(), earlier=begun[:-1], documents=(prepared.sealed,), rows=prepared.rows)
    report, completed = found
    return Decision(payloads=(completed,), earlier=begun, documents=(prepared.sealed, report), rows=prepared.rows)


def _dry_run_part(request: Request) -> Request:
    return part_of(request, "propose", "dry-run")
