"""The orchestrator's use cases over a real event log and the executor simulator."""

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gonogo.digests import digest
from gonogo.signatures import new_signing_key
from orchestrator.adapters.audit_key import LogKey, load_log_key
from orchestrator.adapters.event_log_sqlite import SqliteEventLog
from orchestrator.bootstrap import Orchestrator, compose, open_log
from orchestrator.domain import events as ev
from orchestrator.domain.evidence import Sealed
from orchestrator.domain.mission import Mission
from orchestrator.domain.plan import PlanDraft, Step, WriteFile
from orchestrator.service.execution import MissionUpdate
from orchestrator.service.intake import ChatTurn, Reply
from orchestrator.service.requests import Request
from tests.fakes.executor_simulator import Approver, ExecutorSimulator

_numbers = itertools.count(1)


class MovableClock:
    """A clock that tests set forward."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead


def request(request_id: str = "", body: str = "", person: str = "owner") -> Request:
    """Return a request; without an id, one that was never made before."""
    name = request_id or f"request-{next(_numbers)}"
    return Request(request_id=name, digest=digest(body.encode() or name.encode()), person=person)


def draft(*steps: Step, objective: str = "Write a file", workspace: str = "site") -> PlanDraft:
    """Return a draft, of one written file where no steps are given."""
    some = steps or (Step(action=WriteFile(path="notes.txt", content="hello\n")),)
    return PlanDraft(objective=objective, workspace=workspace, steps=some)


def log_key(folder: Path) -> LogKey:
    """Return the key of a house's audit log, the same in each of its lives."""
    path = folder / "keys" / "orchestrator"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(new_signing_key().private_bytes())
    return load_log_key(path)


class House:
    """One life of the orchestrator; `reopen` begins the next on the same log and executor."""

    def __init__(self, folder: Path, executor: ExecutorSimulator, approver: Approver, *, caution: int = 0) -> None:
        self.folder = folder
        self.executor = executor
        self.approver = approver
        self.clock = MovableClock()
        self.log: SqliteEventLog = open_log(folder / "orchestrator" / "events.db", log_key(folder))
        self.orchestrator: Orchestrator = compose(self.log, executor, clock=self.clock, caution=caution)
        self.orchestrator.use_cases.executions.first_pause = 0.001
        self.orchestrator.use_cases.dispatcher.first_pause = 0.001
        self.use = self.orchestrator.use_cases
        self.intake = self.orchestrator.intake

    async def close(self) -> None:
        await self.orchestrator.close()
        self.log.close()

    async def reopen(self) -> "House":
        """End this life and begin the next."""
        await self.close()
        following = House(self.folder, self.executor, self.approver)
        following.orchestrator.start()
        return following

    async def proposed(self, *steps: Step) -> Mission:
        answer = await self.use.missions.propose(request(), draft(*steps))
        return answer.mission

    async def dry_run(self, mission: Mission) -> Sealed:
        answer = await self.use.dry_runs.dry_run(request(), mission.mission_id)
        return self.use.dry_runs.report_of(answer.mission)

    async def approved(self, *steps: Step) -> Mission:
        """Return a mission that is dry-run and approved."""
        mission = await self.proposed(*steps)
        return await self.approve(mission)

    async def approve(self, mission: Mission, approver: Approver | None = None, **changes: Any) -> Mission:
        report = await self.dry_run(mission) if not mission.report_id else self.use.dry_runs.report_of(mission)
        approval = (approver or self.approver).approve(report, **changes)
        answer = await self.use.approvals.approve(request(), mission.mission_id, approval)
        return answer.mission

    async def execute(self, mission: Mission, asked: Request | None = None) -> list[MissionUpdate]:
        return [update async for update in self.use.executions.execute(asked or request(), mission.mission_id)]

    async def execute_detached(self, mission: Mission, asked: Request | None = None) -> Mission:
        """Have a mission executed without staying."""
        return await self.use.executions.begin(asked or request(), mission.mission_id)

    async def queue(self, mission: Mission, asked: Request | None = None) -> list[MissionUpdate]:
        return [update async for update in self.use.dispatcher.enqueue(asked or request(), mission.mission_id)]

    async def say(self, text: str, session_id: str = "", asked: Request | None = None) -> Reply:
        turn = ChatTurn(session_id=session_id, text=text, transcription=None, workspace_id="")
        return await self.intake.send(asked or request(), turn)

    def mission(self, mission_id: str) -> Mission:
        return self.use.missions.store.state(mission_id)

    def events(self, mission_id: str) -> list[ev.Event]:
        return list(self.use.missions.store.events(mission_id))

    def types(self, mission_id: str) -> list[str]:
        """Return the types of a mission's events as the log has them."""
        return [ev.TYPES[type(event.payload)] for event in self.events(mission_id)]
