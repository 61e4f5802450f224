"""From a draft to a proposed mission, and the ways back out of one."""

from collections.abc import Iterable
from dataclasses import dataclass

from orchestrator.domain import decisions
from orchestrator.domain import events as ev
from orchestrator.domain.errors import ContractError, Reason, RequestRefusedError
from orchestrator.domain.evidence import ExecutorInfo, Sealed, WorkspaceInfo
from orchestrator.domain.mission import GrantedApproval, Mission, MissionStatus, Segment
from orchestrator.domain.plan import FailurePolicy, Plan, PlanDraft, Scope, Stage, Step, shortened
from orchestrator.domain.plan_rules import completed
from orchestrator.service.event_log import EventReader, ProjectionCursor, ProjectionRow
from orchestrator.service.executor_card import ExecutorCard
from orchestrator.service.mission_row import mission_of_row
from orchestrator.service.mission_store import Decision, MissionStore
from orchestrator.service.ports import Clock, Documents, Ids
from orchestrator.service.requests import Answer, Request
from orchestrator.service.streams import CHAT_RESULTS, MISSIONS, REFUSALS
from orchestrator.service.words import Words


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Where a mission comes from: the chain of ids before it."""

    intent_id: str = ""
    session_id: str = ""
    message_id: str = ""
    transcription_id: str = ""
    cloned_from: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentFile:
    """What one earlier segment of an execution stood on."""

    segment: int
    plan: Sealed | None
    report: Sealed | None
    approvals: tuple[Sealed, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MissionFile:
    """A mission with every document it stands on."""

    mission: Mission
    plan: Sealed | None
    report: Sealed | None = None
    approvals: tuple[Sealed, ...] = ()
    receipt: Sealed | None = None
    refusal: Sealed | None = None
    segments: tuple[SegmentFile, ...] = ()
    """What the segments before the present plan's stood on."""
    words: tuple[Sealed, ...] = ()
    """Signed approvals of single steps, and reconciliations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A mission that is ready to be proposed and is not written yet."""

    plan: Plan
    sealed: Sealed
    payloads: tuple[ev.Payload, ...]
    rows: tuple[ProjectionRow, ...]

    @property
    def mission_id(self) -> str:
        return self.plan.mission_id


@dataclass(frozen=True, slots=True, kw_only=True)
class MissionPage:
    missions: tuple[Mission, ...]
    next_page: ProjectionCursor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Missions:
    """Proposes, finds, lists, rejects and cancels missions. Nothing here makes one run."""

    store: MissionStore
    reader: EventReader
    card: ExecutorCard
    documents: Documents
    words: Words
    clock: Clock
    ids: Ids

    async def propose(self, request: Request, draft: PlanDraft, origin: Origin | None = None) -> Answer:
        """Seal a plan and propose it as a mission.

        Raises:
            RequestRefusedError: the draft breaks a rule, or its workspace is not known.
            ExecutorUnavailableError: no executor is known yet and it can not be asked.
        """
        return await self._proposed(request, await self.prepare(request, draft, origin))

    async def clone(self, request: Request, reference: str) -> Answer:
        """Propose the plan of a mission once more; the new mission has its own dry run and approvals."""
        return await self._proposed(request, await self.prepare_clone(request, reference))

    async def prepare_clone(self, request: Request, reference: str) -> Prepared:
        """Make a mission of another one's plan without writing it; where that was repaired, of what it began with."""
        mission = self.store.find(reference)
        plan = self.store.document(mission.mission_id, mission.first_plan_digest)
        if plan is None:
            raise RequestRefusedError(Reason.NOT_FOUND, "the mission has no plan", "Propose the plan itself.")
        return await self.prepare(request, self.documents.open_plan(plan), Origin(cloned_from=mission.mission_id))

    async def prepare(self, request: Request, draft: PlanDraft, origin: Origin | None = None) -> Prepared:
        """Check a draft and seal its plan without writing anything; raises what `propose` raises."""
        origin = origin or Origin()
        draft, info = await self.checked(draft)
        plan = self._plan(draft, origin, info.executor_id, request.person)
        return _prepared(plan, self.documents.seal_plan(plan), origin)

    async def checked(self, draft: PlanDraft) -> tuple[PlanDraft, ExecutorInfo]:
        """Return a draft with all that it leaves open filled in, and the executor that it is for.

        Raises:
            RequestRefusedError: the draft breaks a rule, or its workspace is not known.
            ExecutorUnavailableError: no executor is known yet and it can not be asked.
        """
        info = await self.card.holding(lambda known: _serves(known.workspaces, draft.workspace))
        draft = completed(draft, max_content_bytes=info.max_content_bytes)
        if not _serves(info.workspaces, draft.workspace):
            known = ", ".join(workspace.workspace_id for workspace in info.workspaces) or "none"
            raise RequestRefusedError(
                Reason.WORKSPACE_UNKNOWN,
                f"the executor has no workspace {shortened(draft.workspace, 64)!r}; it serves: {known}",
                "Name one of these, or start the executor with that workspace.",
            )
        return draft, info

    async def _proposed(self, request: Request, prepared: Prepared) -> Answer:
        decision = Decision(payloads=prepared.payloads, documents=(prepared.sealed,), rows=prepared.rows)
        return await self.store.create(prepared.mission_id, request, decision)

    def _plan(self, draft: PlanDraft, origin: Origin, executor_id: str, proposer: str) -> Plan:
        return Plan(
            plan_id=self.ids.new("p-"),
            mission_id=self.ids.new("m-"),
            intent_id=origin.intent_id or self.ids.new("i-"),
            message_id=origin.message_id,
            transcription_id=origin.transcription_id,
            cloned_from=origin.cloned_from,
            objective=draft.objective,
            workspace_id=draft.workspace,
            executor_id=executor_id,
            proposer=proposer,
            created_at=self.clock.now(),
            scope=draft.scope or Scope(),
            failure_policy=draft.failure_policy or FailurePolicy.PAUSE,
            steps=draft.steps,
            pause=draft.pause,
        )

    def file(self, reference: str) -> MissionFile:
        """Return a mission with its sealed documents."""
        return self.file_of(self.store.find(reference))

    def file_of(self, mission: Mission) -> MissionFile:
        receipt = self._receipt(mission)
        return MissionFile(
            mission=mission,
            plan=self.store.plan_of(mission),
            report=self.store.document(mission.mission_id, mission.report_digest),
            approvals=self._approvals(mission, mission.approvals),
            receipt=receipt,
            refusal=self._refusal(mission),
            segments=tuple(self._segment(mission, segment) for segment in mission.earlier),
            words=self.words.of(mission, receipt) if mission.execution_id else (),
        )

    def _segment(self, mission: Mission, segment: Segment) -> SegmentFile:
        return SegmentFile(
            segment=segment.segment,
            plan=self.store.signed_plan(mission.mission_id, segment.plan_digest, segment.plan_signatures),
            report=self.store.document(mission.mission_id, segment.report_digest),
            approvals=self._approvals(mission, segment.approvals),
        )

    def _approvals(self, mission: Mission, granted: Iterable[GrantedApproval]) -> tuple[Sealed, ...]:
        sealed = (self.store.document(mission.mission_id, one.approval_digest) for one in granted)
        return tuple(approval for approval in sealed if approval is not None)

    def page(self, *, size: int, before: ProjectionCursor | None, status: MissionStatus | None) -> MissionPage:
        """Return missions, newest first."""
        wanted = status.value if status else None
        rows = self.reader.projections(MISSIONS, status=wanted, before=before, limit=size + 1)
        last = rows[size - 1] if len(rows) > size else None
        cursor = ProjectionCursor(sort_key=last.sort_key, key=last.key) if last else None
        return MissionPage(missions=tuple(map(mission_of_row, rows[:size])), next_page=cursor)

    async def reject(self, request: Request, reference: str, reason: str) -> Answer:
        """Reject a proposed mission."""
        mission_id = self.store.find(reference).mission_id
        return await self.store.act(
            mission_id,
            request,
            lambda mission: Decision(payloads=decisions.decide_rejection(_there(mission), shortened(reason, 2000))),
        )

    def _receipt(self, mission: Mission) -> Sealed | None:
        """Return a mission's receipt; one that was announced and is still to come, or to be written, is not there."""
        try:
            return self.store.document(mission.mission_id, mission.receipt_digest)
        except ContractError:
            goes_on = not mission.has_ended and not decisions.outcome_unknown(mission)
            if goes_on or self.store.has_unwritten(mission.mission_id):
                return None
            raise

    def _refusal(self, mission: Mission) -> Sealed | None:
        row = self.reader.projection(REFUSALS, mission.refusal_id) if mission.refusal_id else None
        return self.store.document(mission.mission_id, row.status) if row else None


def _there(mission: Mission | None) -> Mission:
    if mission is None:
        raise RequestRefusedError(Reason.NOT_FOUND, "no such mission", "List the missions with `gonogo list`.")
    return mission


def _serves(workspaces: tuple[WorkspaceInfo, ...], wanted: str) -> bool:
    return any(workspace.workspace_id == wanted for workspace in workspaces)


def _prepared(plan: Plan, sealed: Sealed, origin: Origin) -> Prepared:
    proposed = ev.MissionProposed(
        intent_id=plan.intent_id,
        objective=plan.objective,
        workspace_id=plan.workspace_id,
        executor_id=plan.executor_id,
        proposer=plan.proposer,
        session_id=origin.session_id,
        message_id=plan.message_id,
        transcription_id=plan.transcription_id,
        cloned_from=plan.cloned_from,
    )
    planned = plan_sealed(plan, sealed)
    rows = _result_wanted(plan.mission_id, origin.session_id)
    return Prepared(plan=plan, sealed=sealed, payloads=(proposed, planned), rows=rows)


def plan_sealed(plan: Plan, sealed: Sealed) -> ev.PlanSealed:
    """Return the event that gives a mission its plan."""
    steps = tuple(_planned(step) for step in plan.steps)
    return ev.PlanSealed(plan_id=plan.plan_id, plan_digest=sealed.digest, steps=steps, segment=plan.segment)


def _planned(step: Step) -> ev.PlannedStep:
    return ev.PlannedStep(
        step_id=step.step_id,
        kind=step.kind,
        stage=step.stage or Stage.EDIT,
        description=shortened(step.description),
        target=step.target,
    )


def _result_wanted(mission_id: str, session_id: str) -> tuple[ProjectionRow, ...]:
    """Note that a chat waits to hear how the mission ends."""
    if not session_id:
        return ()
    return (ProjectionRow(name=CHAT_RESULTS, key=mission_id, status="waiting", sort_key=mission_id, data="{}"),)
