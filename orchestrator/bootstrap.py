"""The composition root: the only place that knows which adapter stands behind which port."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator.adapters.chat_grammar import GrammarPlanner
from orchestrator.adapters.clock import SystemClock
from orchestrator.adapters.event_codec import JsonEventCodec
from orchestrator.adapters.event_log_sqlite import SqliteEventLog
from orchestrator.adapters.executor_grpc import GrpcExecutor, open_channel
from orchestrator.adapters.ids import TimeOrderedIds
from orchestrator.adapters.sealed_documents import SealedDocuments
from orchestrator.domain.intent import Planner
from orchestrator.entrypoints.grpc_chat import ChatFace, WhiteboardFace
from orchestrator.entrypoints.grpc_missions import MissionFace, UseCases
from orchestrator.entrypoints.grpc_server import Faces, Identity, Server
from orchestrator.service.approvals import Approvals
from orchestrator.service.dispatcher import Dispatcher
from orchestrator.service.dry_runs import DryRuns
from orchestrator.service.event_log import EventLog
from orchestrator.service.execution import Executions
from orchestrator.service.executor_card import ExecutorCard
from orchestrator.service.intake import Intake
from orchestrator.service.mission_store import MissionStore
from orchestrator.service.missions import Missions
from orchestrator.service.ports import Clock, Executor
from orchestrator.service.run import Run
from orchestrator.service.tried_proposals import TriedProposals
from orchestrator.service.watching import Watching
from orchestrator.settings import Settings

GRACE_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Orchestrator:
    """All use cases over one event log and one executor."""

    use_cases: UseCases
    intake: Intake
    draining: asyncio.Event

    def start(self) -> None:
        """Take up what a former process left; needs a running event loop."""
        self.use_cases.dispatcher.start()
        self.intake.start()

    async def close(self) -> None:
        """Stop all that goes on by itself; the log is left to whoever opened it."""
        await self.use_cases.dispatcher.close()
        await self.use_cases.tried_proposals.close()
        await self.use_cases.dry_runs.close()
        await self.use_cases.executions.close()
        await self.use_cases.missions.store.settle()
        await self.intake.close()


def compose(
    log: EventLog, executor: Executor, *, clock: Clock | None = None, planner: Planner | None = None
) -> Orchestrator:
    """Build the use cases over a log and an executor."""
    clock, ids, codec, documents = clock or SystemClock(), TimeOrderedIds(), JsonEventCodec(), SealedDocuments()
    draining = asyncio.Event()
    store = MissionStore(log, codec, clock)
    card = ExecutorCard(executor, clock)
    missions = Missions(store=store, reader=log, card=card, documents=documents, clock=clock, ids=ids)
    runs: dict[str, Run] = {}
    approvals = Approvals(store=store, card=card, documents=documents, clock=clock, is_running=runs.__contains__)
    executions = Executions(
        store=store, executor=executor, documents=documents, clock=clock, ids=ids, approvals=approvals, runs=runs
    )
    dry_runs = DryRuns(store=store, executor=executor, documents=documents, clock=clock)
    use_cases = UseCases(
        missions=missions,
        tried_proposals=TriedProposals(store=store, missions=missions, dry_runs=dry_runs, clock=clock),
        approvals=approvals,
        dry_runs=dry_runs,
        executions=executions,
        dispatcher=Dispatcher(executions=executions, reader=log),
        watching=Watching(log=log, store=store, codec=codec, draining=draining),
        card=card,
        executor=executor,
    )
    intake = Intake(
        log=log,
        codec=codec,
        store=store,
        missions=missions,
        executions=executions,
        planner=planner or GrammarPlanner(),
        clock=clock,
        ids=ids,
    )
    store.ended_listeners.append(intake.ended)
    return Orchestrator(use_cases=use_cases, intake=intake, draining=draining)


def faces_of(orchestrator: Orchestrator) -> Faces:
    """Return the gRPC faces of the use cases."""
    return Faces(
        missions=MissionFace(orchestrator.use_cases),
        chat=ChatFace(orchestrator.intake),
        whiteboard=WhiteboardFace(orchestrator.use_cases.watching),
    )


def open_log(path: Path) -> SqliteEventLog:
    """Open the event log for writing, making its folder where it is missing."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return SqliteEventLog(path)


class Service:
    """The orchestrator as a process serves it."""

    def __init__(self, settings: Settings) -> None:
        identity = _identity(settings.state)
        self._log = open_log(settings.database)
        channel = open_channel(
            settings.executor, authority=identity.authority, key=identity.key, certificate=identity.certificate
        )
        self._executor = GrpcExecutor(channel)
        self._orchestrator = compose(self._log, self._executor)
        self._server = Server(faces_of(self._orchestrator), identity, with_reflection=settings.reflection)
        self._listen = settings.listen

    async def start(self) -> str:
        """Begin to serve; return the address."""
        port = await self._server.start(self._listen)
        self._orchestrator.start()
        return f"{self._listen.rpartition(':')[0]}:{port}"

    async def stop(self) -> None:
        """Drain, then let go of everything."""
        await self._server.drain(self._orchestrator.draining, GRACE_SECONDS)
        await self._orchestrator.close()
        await self._executor.close()
        self._log.close()


def _identity(state: Path) -> Identity:
    tls = state / "tls"
    return Identity(
        authority=(tls / "ca.pem").read_bytes(),
        certificate=(tls / "orchestrator.pem").read_bytes(),
        key=(tls / "orchestrator.key").read_bytes(),
    )
