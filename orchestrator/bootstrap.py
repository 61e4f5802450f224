"""The composition root: the only place that knows which adapter stands behind which port."""

import asyncio
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Self

import grpc

from orchestrator.adapters.audit_key import load_executor_key, load_log_key
from orchestrator.adapters.callers_file import CallersFile
from orchestrator.adapters.certificates import CertificateFiles, Certificates
from orchestrator.adapters.chat_grammar import GrammarPlanner
from orchestrator.adapters.clock import SystemClock
from orchestrator.adapters.event_codec import JsonEventCodec
from orchestrator.adapters.event_log_reader import SqliteEventReader
from orchestrator.adapters.event_log_sqlite import SqliteEventLog
from orchestrator.adapters.executor_channel import ReloadingChannel
from orchestrator.adapters.executor_grpc import GrpcExecutor, open_channel
from orchestrator.adapters.ids import TimeOrderedIds
from orchestrator.adapters.mirror_files import MirrorFolder
from orchestrator.adapters.repair_command import RepairCommand
from orchestrator.adapters.sealed_documents import SealedDocuments
from orchestrator.domain.intent import Planner
from orchestrator.entrypoints.door import Door
from orchestrator.entrypoints.grpc_audit import AuditFace
from orchestrator.entrypoints.grpc_callers import CallerFace
from orchestrator.entrypoints.grpc_chat import ChatFace, WhiteboardFace
from orchestrator.entrypoints.grpc_missions import MissionFace, UseCases
from orchestrator.entrypoints.grpc_server import Addresses, Faces, Server
from orchestrator.entrypoints.grpc_signals import SignalFace
from orchestrator.service.approvals import Approvals
from orchestrator.service.audit import Audit
from orchestrator.service.audit_check import require_unforked
from orchestrator.service.audit_log import CheckpointSigner
from orchestrator.service.callers import Callers
from orchestrator.service.caution import Caution
from orchestrator.service.controlling import Controls
from orchestrator.service.dispatcher import Dispatcher
from orchestrator.service.dry_runs import DryRuns
from orchestrator.service.execution import Executions
from orchestrator.service.executor_card import ExecutorCard
from orchestrator.service.exporting import Exports
from orchestrator.service.feedback import Feedbacks
from orchestrator.service.intake import Intake
from orchestrator.service.kept_policies import KeptPolicies
from orchestrator.service.mirrors import Mirrors, mirrors_of
from orchestrator.service.mission_store import MissionStore
from orchestrator.service.missions import Missions
from orchestrator.service.plan_signing import PlanSigning
from orchestrator.service.ports import Clock, Executor, RepairProposer
from orchestrator.service.repair_proposals import RevertingProposer
from orchestrator.service.repairing import Repairs
from orchestrator.service.run import Run
from orchestrator.service.segments import Segments
from orchestrator.service.signals import Signals
from orchestrator.service.tried_proposals import TriedProposals
from orchestrator.service.watching import Watching
from orchestrator.service.witnessed_executor import WitnessedExecutor
from orchestrator.service.witnessing import Witness
from orchestrator.service.words import Words
from orchestrator.settings import Settings

GRACE_SECONDS: Final = 5.0
MIRROR_CACHE_KIB: Final = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class Orchestrator:
    """All use cases over one event log and one executor."""

    use_cases: UseCases
    intake: Intake
    witness: Witness
    audit: Audit
    draining: asyncio.Event

    def start(self) -> None:
        """Take up what a former process left; needs a running event loop."""
        self.witness.start()
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
        await self.witness.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ground:
    """What all use cases stand on."""

    log: SqliteEventLog
    executor: Executor
    """Asked for nothing before its log was seen to go on."""
    clock: Clock
    ids: TimeOrderedIds
    codec: JsonEventCodec
    documents: SealedDocuments
    store: MissionStore
    card: ExecutorCard
    witness: Witness
    words: Words
    signals: Signals
    caution: Caution

    @classmethod
    def of(cls, log: SqliteEventLog, executor: Executor, executor_key: str, clock: Clock, caution: int) -> Self:
        codec, documents = JsonEventCodec(), SealedDocuments()
        store = MissionStore(log, codec, clock)
        policies = KeptPolicies(log=log, executor=executor)
        card = ExecutorCard(policies, clock)
        witness = Witness(log=log, executor=executor, card=card, pinned_key=executor_key)
        signals = Signals(reader=log, clock=clock, beside=log.beside)
        return cls(
            log=log,
            executor=WitnessedExecutor(executor=executor, witness=witness, policies=policies),
            clock=clock,
            ids=TimeOrderedIds(),
            codec=codec,
            documents=documents,
            store=store,
            card=card,
            witness=witness,
            words=Words(log=log, documents=documents),
            signals=signals,
            caution=Caution(signals=signals, store=store, below=caution),
        )


def compose(
    log: SqliteEventLog,
    executor: Executor,
    *,
    executor_key: str = "",
    clock: Clock | None = None,
    planner: Planner | None = None,
    proposer: RepairProposer | None = None,
    caution: int = 0,
) -> Orchestrator:
    """Build the use cases over a log and an executor, whose public key is given where the operator put it here."""
    ground = _Ground.of(log, executor, executor_key, clock or SystemClock(), caution)
    audit = Audit(log=log, executor=ground.executor, witness=ground.witness)
    draining = asyncio.Event()
    use_cases = _use_cases(ground, audit, proposer or RevertingProposer(), draining)
    intake = Intake(
        log=log,
        codec=ground.codec,
        store=ground.store,
        missions=use_cases.missions,
        executions=use_cases.executions,
        controls=use_cases.controls,
        planner=planner or GrammarPlanner(),
        clock=ground.clock,
        ids=ground.ids,
    )
    ground.store.ended_listeners.append(intake.ended)
    return Orchestrator(use_cases=use_cases, intake=intake, witness=ground.witness, audit=audit, draining=draining)


def _use_cases(ground: _Ground, audit: Audit, proposer: RepairProposer, draining: asyncio.Event) -> UseCases:
    log, store, documents, clock = ground.log, ground.store, ground.documents, ground.clock
    missions = Missions(
        store=store, reader=log, card=ground.card, documents=documents, words=ground.words, clock=clock, ids=ground.ids
    )
    executions = _executions(ground)
    dry_runs = DryRuns(store=store, executor=ground.executor, documents=documents, clock=clock, caution=ground.caution)
    return UseCases(
        missions=missions,
        tried_proposals=TriedProposals(store=store, missions=missions, dry_runs=dry_runs, clock=clock),
        plan_signing=PlanSigning(
            store=store, card=ground.card, documents=documents, is_running=executions.runs.__contains__
        ),
        approvals=executions.approvals,
        dry_runs=dry_runs,
        executions=executions,
        dispatcher=Dispatcher(executions=executions, reader=log),
        watching=Watching(log=log, store=store, codec=ground.codec, draining=draining),
        card=ground.card,
        executor=ground.executor,
        exports=Exports(missions=missions, reader=log, codec=ground.codec, documents=documents, audit=audit),
        controls=Controls(executions=executions, executor=ground.executor, words=ground.words),
        feedbacks=Feedbacks(store=store),
        signals=ground.signals,
        repairs=Repairs(
            store=store,
            missions=missions,
            dry_runs=dry_runs,
            executor=ground.executor,
            documents=documents,
            clock=clock,
            ids=ground.ids,
            proposer=proposer,
        ),
    )


def _executions(ground: _Ground) -> Executions:
    store, documents, clock = ground.store, ground.documents, ground.clock
    runs: dict[str, Run] = {}
    approvals = Approvals(
        store=store,
        card=ground.card,
        documents=documents,
        clock=clock,
        is_running=runs.__contains__,
        caution=ground.caution,
    )
    return Executions(
        store=store,
        executor=ground.executor,
        documents=documents,
        clock=clock,
        approvals=approvals,
        runs=runs,
        segments=Segments(store=store, executor=ground.executor, documents=documents, clock=clock),
        words=ground.words,
    )


def faces_of(orchestrator: Orchestrator, callers: Callers) -> Faces:
    """Return the gRPC faces of the use cases, behind one door."""
    find = orchestrator.use_cases.missions.store.find
    door = Door(callers, lambda reference: find(reference).proposer)
    return Faces(
        door=door,
        audit=AuditFace(orchestrator.audit, door),
        callers=CallerFace(callers, door),
        missions=MissionFace(orchestrator.use_cases, door),
        chat=ChatFace(orchestrator.intake, door),
        whiteboard=WhiteboardFace(orchestrator.use_cases.watching, door),
        signals=SignalFace(orchestrator.use_cases.signals, door),
    )


def open_log(path: Path, signer: CheckpointSigner | None = None) -> SqliteEventLog:
    """Open the event log for writing, making its folder where it is missing.

    Raises:
        LogForked: what is stored is not what its last checkpoint says.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    log = SqliteEventLog(path, signer=signer)
    if signer is not None:
        try:
            require_unforked(log, signer)
        except BaseException:
            log.close()
            raise
    return log


class Service:
    """The orchestrator as a process serves it."""

    def __init__(self, settings: Settings) -> None:
        certificates = CertificateFiles(settings.tls, "orchestrator")
        self._log = open_log(settings.database, load_log_key(settings.log_key))
        self._executor = GrpcExecutor(ReloadingChannel(certificates, partial(_channel_to, settings.executor)))
        self._orchestrator = compose(
            self._log,
            self._executor,
            executor_key=load_executor_key(settings.executor_key),
            caution=settings.caution,
            proposer=_proposer(settings.repair_command),
        )
        # A connection of their own: they read in a thread, every page once.
        self._mirrored = SqliteEventReader(settings.database, cache_kib=MIRROR_CACHE_KIB)
        self._mirrors: Mirrors = mirrors_of(self._mirrored, JsonEventCodec(), MirrorFolder(settings.mirrors))
        callers = Callers(records=CallersFile(settings.callers), clock=SystemClock())
        faces = faces_of(self._orchestrator, callers)
        self._server = Server(faces, certificates, with_reflection=settings.reflection)
        self._wanted = Addresses(calls=settings.listen, tokens=settings.token_listen, health=settings.health_listen)

    async def start(self) -> Addresses:
        """Begin to serve; return the addresses."""
        addresses = await self._server.start(self._wanted)
        self._orchestrator.start()
        self._mirrors.start()
        return addresses

    async def stop(self) -> None:
        """Drain, then let go of everything."""
        await self._server.drain(self._orchestrator.draining, GRACE_SECONDS)
        await self._orchestrator.close()
        await self._executor.close()
        if await self._mirrors.close():
            self._mirrored.close()
        self._log.close()


def _proposer(command: str) -> RepairProposer:
    reverting = RevertingProposer()
    return RepairCommand(command=command, otherwise=reverting) if command else reverting


def _channel_to(address: str, held: Certificates) -> grpc.aio.Channel:
    return open_channel(address, authority=held.authority, key=held.key, certificate=held.certificate)
