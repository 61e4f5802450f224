"""Repair plans: another plan for a mission that did not go as planned.

A proposed mission whose dry run came to no success gets a new plan instead of the old one. A paused one gets the plan
of the next segment of its execution: for the workspace as it stands, sealed with the execution's id, the segment's
number and the digest of what was done so far, so that it fits this one pause and no other. Either way nothing follows
from it before it has a dry run and approvals of its own.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from orchestrator.domain import decisions
from orchestrator.domain import events as ev
from orchestrator.domain.errors import OrchestratorError, Reason, RequestRefusedError, StateForbidsError
from orchestrator.domain.evidence import ExecutorInfo
from orchestrator.domain.findings import Findings
from orchestrator.domain.mission import Mission, MissionStatus
from orchestrator.domain.plan import FailurePolicy, Plan, PlanDraft, Scope, Step
from orchestrator.domain.whiteboard import steps_of
from orchestrator.service.dry_runs import DryRuns
from orchestrator.service.mission_store import Decision, MissionStore
from orchestrator.service.missions import Missions, plan_sealed
from orchestrator.service.ports import Clock, Documents, Executor, Ids, RepairCase, RepairProposer
from orchestrator.service.requests import Answer, Request, part_of

MAX_OUTPUT: Final = 64 * 1024
OBJECT_PART: Final = 1 << 20
MAX_OBJECT: Final = 64 << 20
MAX_STEP_ID: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Repairs:
    """Gives missions repair plans."""

    store: MissionStore
    missions: Missions
    dry_runs: DryRuns
    executor: Executor
    documents: Documents
    clock: Clock
    ids: Ids
    proposer: RepairProposer | None = None

    async def repair(self, request: Request, reference: str, draft: PlanDraft | None, *, dry_run: bool) -> Answer:
        """Seal a repair plan, given or proposed here; `told["explanation"]` says where it comes from.

        With `dry_run` it is dry-run as well; where that can not be done now, the mission has the plan and no report.

        Raises:
            RequestRefusedError: the draft breaks a rule, or nothing can be proposed.
            StateForbidsError: the mission stands where it takes no repair plan.
            ExecutorUnavailableError: what a proposal needs can not be read now.
        """
        answer = self.store.answered(request)
        if answer is None:
            answer = await self._planned(request, self.store.find(reference).mission_id, draft)
        return await self._tried(request, answer) if dry_run else answer

    async def _planned(self, request: Request, mission_id: str, given: PlanDraft | None) -> Answer:
        await self.store.write_out(mission_id)  # a proposal is made from what the log says
        mission = self.store.state(mission_id)
        decisions.require_repairable(mission)
        draft = given or await self._proposed(mission)
        plan = self._plan(request, mission, *await self.missions.checked(self._fitted(mission, draft)))
        sealed = self.documents.seal_plan(plan)
        told = {"explanation": _explanation(draft, plan, self._first_scope(mission), given=given is not None)}

        def decide(now: Mission | None) -> Decision:
            _require_unmoved(now or mission, mission)
            return Decision(payloads=(plan_sealed(plan, sealed),), documents=(sealed,), told=told)

        return await self.store.act(mission_id, request, decide)

    async def _tried(self, request: Request, answer: Answer) -> Answer:
        mission = answer.mission
        if self.store.state(mission.mission_id).plan_digest != mission.plan_digest:
            return answer  # the mission has moved on since
        try:
            tried = await self.dry_runs.dry_run(part_of(request, "repair", "dry-run"), mission.mission_id)
        except OrchestratorError:
            return answer  # asking for the dry run again tells why
        return Answer(mission=tried.mission, told=answer.told)

    async def _proposed(self, mission: Mission) -> PlanDraft:
        draft = await self.proposer.propose(await self._case(mission)) if self.proposer is not None else None
        if draft is None:
            raise RequestRefusedError(
                Reason.UNSUPPORTED,
                "no repair can be proposed for what went wrong",
                "Give a plan of your own, or stop the mission: what is done stays, unless you have it rolled back.",
            )
        return replace(draft, scope=None)  # only what a person asks for may reach further than the first plan

    def _fitted(self, mission: Mission, draft: PlanDraft) -> PlanDraft:
        """Return a draft for the mission's workspace, with the first plan's rules where it has none of its own."""
        if draft.workspace not in {"", mission.workspace_id}:
            raise RequestRefusedError(
                Reason.WORKSPACE_MISMATCH,
                f"the mission is for the workspace {mission.workspace_id}, and stays there",
                "Leave `workspace` out, or propose a mission for the other one.",
            )
        first = self._opened(mission, mission.first_plan_digest)
        return replace(
            draft,
            workspace=mission.workspace_id,
            objective=draft.objective or f"Repair: {mission.objective}",
            scope=draft.scope or first.scope,
            failure_policy=draft.failure_policy or first.failure_policy,
            pause=draft.pause or first.pause,
        )

    def _plan(self, request: Request, mission: Mission, draft: PlanDraft, info: ExecutorInfo) -> Plan:
        paused = mission.status is MissionStatus.PAUSED
        segment = mission.opened_segment + 1 if paused else 0
        if info.executor_id != mission.executor_id:
            raise StateForbidsError(
                Reason.EXECUTOR_MISMATCH, "the mission is another executor's", "Have that executor serve its workspace."
            )
        return Plan(
            plan_id=self.ids.new("p-"),
            mission_id=mission.mission_id,
            intent_id=mission.intent_id,
            message_id=mission.message_id,
            transcription_id=mission.transcription_id,
            cloned_from=mission.cloned_from,
            objective=draft.objective,
            workspace_id=mission.workspace_id,
            executor_id=mission.executor_id,
            proposer=request.person,
            created_at=self.clock.now(),
            scope=draft.scope or Scope(),
            failure_policy=draft.failure_policy or FailurePolicy.PAUSE,
            steps=_renamed(draft.steps, segment, self._had(mission)) if paused else draft.steps,
            pause=draft.pause,
            segment=segment,
            execution_id=mission.execution_id if paused else "",
            journal_digest=mission.pause.results_digest if paused and mission.pause else "",
        )

    async def _case(self, mission: Mission) -> RepairCase:
        plan_digest, report_digest = _failed_documents(mission)
        report = self.store.document(mission.mission_id, report_digest)
        events = tuple(self.store.events(mission.mission_id)) if mission.execution_id else ()
        failure = _last_failure(events)
        return RepairCase(
            mission=mission,
            plan=self._opened(mission, plan_digest),
            findings=self.documents.open_findings(report) if report is not None else Findings(),
            failure=failure,
            output=_output(events, failure.step_id) if failure is not None else "",
            standing=frozenset(step.step_id for step in steps_of(events) if step.status == "succeeded"),
            read_object=self._read_object,
            max_content_bytes=(await self.missions.card.get()).max_content_bytes,
        )

    def _opened(self, mission: Mission, digest: str) -> PlanDraft:
        plan = self.store.document(mission.mission_id, digest)
        if plan is None:
            raise RequestRefusedError(Reason.NOT_FOUND, "the mission has no plan", "Propose it again.")
        return self.documents.open_plan(plan)

    def _had(self, mission: Mission) -> frozenset[str]:
        """Return the ids of the steps that an execution has had: those of the plans that were handed over to it."""
        plans = [segment.plan_digest for segment in mission.earlier]
        plans += [] if mission.repair_pending else [mission.plan_digest]
        return frozenset(step.step_id for digest in plans for step in self._opened(mission, digest).steps)

    def _first_scope(self, mission: Mission) -> Scope | None:
        return self._opened(mission, mission.first_plan_digest).scope

    async def _read_object(self, digest: str) -> bytes:
        data = b""
        while True:
            part = await self.executor.read_object(digest, len(data), OBJECT_PART)
            data += part.data
            if not part.data or len(data) >= part.total_bytes:
                return data
            if part.total_bytes > MAX_OBJECT:
                raise RequestRefusedError(
                    Reason.TOO_LARGE, f"the object {digest} is too large to repair", "Give a plan of your own."
                )


def _require_unmoved(now: Mission, planned: Mission) -> None:
    """Refuse a plan for a mission that meanwhile stands elsewhere than when the plan was made."""
    decisions.require_repairable(now)
    if (now.plan_digest, now.report_digest, now.pause) != (planned.plan_digest, planned.report_digest, planned.pause):
        raise StateForbidsError(
            Reason.CONFLICT, "the mission moved on while its repair was planned", "Look at it, then ask again."
        )


def _failed_documents(mission: Mission) -> tuple[str, str]:
    """Return the digests of the plan that went wrong and of its report: not those of a repair plan not taken yet."""
    if mission.repair_pending and mission.earlier:
        return mission.earlier[-1].plan_digest, mission.earlier[-1].report_digest
    return mission.plan_digest, mission.report_digest


def _renamed(steps: tuple[Step, ...], segment: int, had: frozenset[str]) -> tuple[Step, ...]:
    """Return the steps with ids that no earlier segment has, whatever its steps are called."""
    prefix = f"r{segment}-"
    if all(step.step_id.startswith(prefix) and step.step_id not in had for step in steps):
        return steps
    used, renamed = set(had), []
    for step in steps:
        name = _prefixed(prefix, step.step_id)
        while name in used:
            name = _prefixed(prefix, name)
        used.add(name)
        renamed.append(replace(step, step_id=name))
    return tuple(renamed)


def _prefixed(prefix: str, step_id: str) -> str:
    if len(prefix + step_id) > MAX_STEP_ID:
        raise RequestRefusedError(
            Reason.PLAN_INVALID,
            f"the step id {step_id} is too long for a repair plan",
            f"Use at most {MAX_STEP_ID - len(prefix)} characters; {prefix!r} is put in front.",
        )
    return prefix + step_id


def _last_failure(events: Iterable[ev.Event]) -> ev.FailureDetected | None:
    """Return the failure that an execution waits for, which nobody has retried or repaired since."""
    found: ev.FailureDetected | None = None
    for event in events:
        match event.payload:
            case ev.FailureDetected():
                found = event.payload
            case ev.ExecutionResumed():
                found = None
            case _:
                continue
    return found


def _output(events: Iterable[ev.Event], step_id: str) -> str:
    """Return the end of what a step printed when it was begun last."""
    text = ""
    for event in events:
        match event.payload:
            case ev.StepStarted(step_id=started) if started == step_id:
                text = ""
            case ev.StepOutput(step_id=printing) if printing == step_id:
                text = (text + event.payload.text)[-MAX_OUTPUT:]
            case _:
                continue
    return text


def _explanation(draft: PlanDraft, plan: Plan, first: Scope | None, *, given: bool) -> str:
    origin = "The plan is the one that was given." if given else f"The plan was proposed: {draft.objective}."
    reach = " Its scope is not the first plan's." if plan.scope != first else ""
    what = f" It opens segment {plan.segment} of the paused execution." if plan.segment else ""
    return f"{origin}{what}{reach} Nothing happens until it is dry-run and approved."
