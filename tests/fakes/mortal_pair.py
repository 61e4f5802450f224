"""Both services in one process: the real use cases over a real log, the real core over a real ledger and workspace.

Between them are the real adapters of both sides and a channel that carries bytes. Played are only the far sides, the
clock, and death: of the executor at any of its durable acts (`mortal_executor`), of the orchestrator between any two
steps of its loop.
"""

import asyncio
import itertools
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from executor.adapters.ledger_sqlite import SqliteLedger
from executor.adapters.wire import WireDocuments, sealed_to_proto
from executor.domain.errors import StoreError
from executor.domain.ladder import LadderLevel
from executor.domain.sealed import SealedBytes
from executor.entrypoints.grpc_service import ExecutorService
from executor.runner import carrying_out, control, executions, flusher, live_steps, restarts
from executor.runner.audit import Audit, LogSigner
from executor.runner.clock import EffectiveClock
from executor.runner.drift import FindDrift
from executor.runner.execute import Executioner
from executor.runner.kept_steps import LedgerSteps
from executor.runner.keyring import DocumentSigner
from executor.runner.ports import Capabilities, Ledger, WorkspaceStanding
from executor.runner.recovery import JournalRecovery
from executor.runner.service import ExecutorCore, Parts
from executor.runner.simulate import Simulator
from executor.runner.trust import TrustInForce
from executor.steps.edit import EditLimits
from executor.workspace.globs import Globs
from executor.workspace.objects import ObjectStore
from executor.workspace.workspace import Workspace
from gonogo import sealing
from gonogo.digests import digest
from gonogo.notes import EXECUTOR, log_origin
from gonogo.v1 import evidence_pb2, executor_pb2_grpc
from orchestrator.adapters import executor_grpc, wire
from orchestrator.adapters.executor_grpc import GrpcExecutor
from orchestrator.bootstrap import Orchestrator, compose, open_log
from orchestrator.domain.evidence import Sealed
from orchestrator.entrypoints.grpc_missions import UseCases
from orchestrator.service import dispatcher, execution
from orchestrator.service.requests import Request
from tests.e2e.loopback import Handlers, LoopbackChannel
from tests.fakes.dying import Died
from tests.fakes.mortal_executor import Life, MortalChannel, MortalLedger, mortal_workspaces
from tests.fakes.orchestrator_house import MovableClock, log_key
from tests.fakes.played_far_sides import PlayedFarSides
from tests.unit.executor.house import EXECUTOR_ID, WORKSPACE_ID, House, Person, stamp
from tests.unit.executor.plan_house import LIMITS

IDENTITY: Final = "spiffe://gonogo.local/orchestrator"
QUICKLY: Final = (
    (executions, "LOCK_SECONDS", 0.05),
    (executions, "LOCK_LOOK_SECONDS", 0.01),
    (flusher, "INTERVAL_SECONDS", 0.02),
    (executions, "LEAVE_SECONDS", 0.2),
    (restarts, "SETTLE_SECONDS", 0.2),
    (control, "STORE_SECONDS", 0.005),
    (carrying_out, "STORE_PAUSE_SECONDS", 0.005),
    (live_steps, "SETTLE_PAUSE_SECONDS", 0.005),
    (executor_grpc, "PAUSE_SECONDS", 0.005),
    (execution, "LONGEST_PAUSE", 0.02),
    (dispatcher, "LONGEST_PAUSE", 0.02),
)
"""Waits that are right between machines, and only take time where nothing is far away."""

T = TypeVar("T")
_numbers = itertools.count(1)


class MortalHouse(House):
    """An executor of real parts whose lives end; far sides and clock go on."""

    def __init__(self, root: Path, far_sides: PlayedFarSides, wall: Callable[[], datetime]) -> None:
        self.far_sides = far_sides
        self.wall = wall
        self.slots = root / "staging"
        self.dooms: list[tuple[int, bool]] = []
        """At which of its acts each of the next lives ends, and whether when that is done already."""
        self.stillborn = 0
        """How many lives ended before their start was over."""
        super().__init__(root)

    def open(self) -> None:
        """Begin a life on whatever the files hold; where its start ends it, begin another."""
        while True:
            self._compose()
            try:
                self.core.start()
            except (Died, StoreError):
                self.stillborn += 1
                self.close()
            else:
                return

    def _compose(self) -> None:
        self.life = self.far_sides.life = Life()
        if self.dooms:
            acts, late = self.dooms.pop(0)
            self.life.ends_in(acts, late=late)
        signer = LogSigner(self.executor_key, log_origin(EXECUTOR, EXECUTOR_ID))
        self.ledger = SqliteLedger(self.own / "ledger.db", sign_root=signer)
        self.far_sides.rows = self.ledger.effects
        self.mortal: Any = MortalLedger(self.ledger, self.life)
        self.objects = ObjectStore(self.own / "objects", self.ledger.small_object)
        self.clock = EffectiveClock(self.ledger.clock_high_water(), self.wall)
        self.audit = Audit(self.mortal, signer, log_key_of=lambda _: "", now=self.clock.now)
        self.workspace = Workspace(
            workspace_id=WORKSPACE_ID,
            root=self.site,
            staging=self.slots,
            locks=self.own / "locks",
            hidden=Globs(()),
            volatile=Globs(()),
        )
        self.core = self.make_core(self.trust)
        self.service = ExecutorService(self.core)
        self.handlers = Handlers()
        server: Any = self.handlers
        executor_pb2_grpc.add_ExecutorServiceServicer_to_server(self.service, server)

    def make_core(self, trust: Any, ledger: Ledger | None = None) -> ExecutorCore:
        """Compose the core."""
        workspaces, objects = {WORKSPACE_ID: self.workspace}, self.objects
        standing = WorkspaceStanding(workspace_id=WORKSPACE_ID, ladder_level=LadderLevel.L1, limitation="")
        kept = LedgerSteps(ledger=ledger or self.mortal, objects=objects, lifetime=timedelta, now=self.clock.now)
        return ExecutorCore(
            Parts(
                trust=TrustInForce(self.in_force(trust)),
                ledger=self.mortal,
                documents=WireDocuments(),
                signer=DocumentSigner(self.executor_key),
                workspaces=workspaces,
                simulator=Simulator(
                    sandbox=None,
                    ladder_level=LadderLevel.L1,
                    objects=objects,
                    edit_limits=EditLimits(),
                    copy_limits=LIMITS,
                    tools=(),
                    kept_steps=kept,
                    far_sides=self.far_sides,
                ),
                find_drift=FindDrift(objects=objects),
                executioner=Executioner(
                    sandbox=None, objects=objects, copy_limits=LIMITS, tools=(), far_sides=self.far_sides
                ),
                recovery=JournalRecovery(workspaces=workspaces, objects=objects, ledger=self.mortal),
                objects=objects,
                capabilities=Capabilities(ladder_level=LadderLevel.L1, findings=(), workspaces=(standing,)),
                clock=self.clock,
                audit=self.audit,
                look_seconds=0.005,
            )
        )

    def close(self) -> None:
        """End this life, where it has not ended, and wait until none of its threads is left."""
        self.life.end()
        with suppress(Died, RuntimeError):  # what was never begun can not be joined
            self.core.close()
        for pool in (self.service._runners, self.service._dry_runners, self.service._readers):
            pool.shutdown(wait=True)
        for thread in threading.enumerate():
            if thread.name.startswith("run-"):
                thread.join()
        self.ledger.close()
        self.workspace.close()

    def reopen(self) -> None:
        """End this life and begin the next."""
        self.close()
        self.open()


class Pair:
    """Both services, and everybody who speaks with them. Used within one event loop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = MovableClock()
        self.far_sides = PlayedFarSides()
        self.house = MortalHouse(folder / "box", self.far_sides, self.clock.now)
        self.deaths = 0
        self.refused = 0
        """How many writes of former lives found no room."""
        self.opened = False
        self._undertaker: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin the orchestrator's first life, and bury the executor whenever it dies."""
        self._watch_life()
        self._undertaker = asyncio.ensure_future(self._bury())
        self._open_orchestrator()
        self.opened = True

    async def close(self) -> None:
        """End everything."""
        if self._undertaker is not None:
            self._undertaker.cancel()
        self.house.life.goes_on()
        await self.orchestrator.close()
        self.log.close()
        self.house.close()

    @property
    def use(self) -> UseCases:
        """The orchestrator's use cases."""
        return self.orchestrator.use_cases

    def restart_executor(self) -> None:
        """Have the executor die wherever it is, and begin its next life; dies that at its start, it is the next one."""
        self.refused += self.house.life.refused
        self.house.reopen()
        self._watch_life()
        self.deaths += 1

    async def restart_orchestrator(self, *, cleanly: bool) -> None:
        """End the orchestrator's life, with or without letting it write what it knows, and begin the next."""
        if cleanly:
            await self.orchestrator.close()
        else:
            others = asyncio.all_tasks() - {asyncio.current_task(), self._undertaker}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        self.log.close()
        self._open_orchestrator()

    def _open_orchestrator(self) -> None:
        self.log = open_log(self.folder / "orchestrator" / "events.db", log_key(self.folder))
        channel: Any = MortalChannel(self._current)
        key = self.house.executor_key.public.line
        self.orchestrator: Orchestrator = compose(self.log, GrpcExecutor(channel), executor_key=key, clock=self.clock)
        self.use.executions.first_pause = self.use.dispatcher.first_pause = 0.001
        self.orchestrator.start()

    def _current(self) -> tuple[Life, LoopbackChannel]:
        return self.house.life, LoopbackChannel(self.house.handlers, IDENTITY)

    def _watch_life(self) -> None:
        self.house.life.watched_from(asyncio.get_running_loop())

    async def _bury(self) -> None:
        while True:
            await self.house.life.died.wait()
            self.restart_executor()

    def asked(self, person: str = "owner") -> Request:
        """Return a request that was never made before."""
        name = f"q-{next(_numbers)}"
        return Request(request_id=name, digest=digest(name.encode()), person=person)

    def approval(self, mission_id: str, by: Person, *, seconds: int, deny: bool = False) -> Sealed:
        """Sign that a mission's present plan may, or may not, be executed."""
        file = self.use.missions.file(mission_id)
        assert file.plan is not None
        assert file.report is not None
        now = self.clock.now()
        plan: Any = file.plan
        report: Any = file.report
        signed = self.house.approve(
            plan,
            report,
            by=by,
            approval_id=f"a-{next(_numbers)}",
            nonce=f"n-{next(_numbers)}",
            approved_at=stamp(now),
            not_before=stamp(now),
            expires_at=stamp(now + timedelta(seconds=seconds)),
            decision=evidence_pb2.DECISION_DENY if deny else evidence_pb2.DECISION_APPROVE,
        )
        return _handed(signed)

    def step_approval(self, mission_id: str, by: Person, *, deny: bool) -> Sealed:
        """Sign that the step at which a mission waits may, or may not, be made."""
        mission = self.use.missions.store.state(mission_id)
        assert mission.pause is not None
        now = self.clock.now()
        word = evidence_pb2.StepApproval(
            approval_id=f"sa-{next(_numbers)}",
            executor_id=EXECUTOR_ID,
            workspace_id=WORKSPACE_ID,
            mission_id=mission_id,
            execution_id=mission.execution_id,
            segment=mission.opened_segment,
            step_id=mission.pause.step_id,
            change_set_digest=mission.pause.change_set_digest,
            results_digest=mission.pause.results_digest,
            approver=by.name,
            decision=evidence_pb2.DECISION_DENY if deny else evidence_pb2.DECISION_APPROVE,
            approved_at=stamp(now),
            expires_at=stamp(now + timedelta(hours=1)),
            nonce=f"n-{next(_numbers)}",
        )
        return _handed(by.sign(sealing.STEP_APPROVAL, sealing.seal(word)))

    def reconciliation(self, mission_id: str, by: Person) -> Sealed:
        """Sign what the far side says of the effect that nobody is sure of."""
        mission = self.use.missions.store.state(mission_id)
        assert mission.pause is not None
        key = f"{mission.execution_id}-{mission.pause.step_id}"
        word = evidence_pb2.Reconciliation(
            reconciliation_id=f"rn-{next(_numbers)}",
            executor_id=EXECUTOR_ID,
            mission_id=mission_id,
            execution_id=mission.execution_id,
            step_id=mission.pause.step_id,
            happened=bool(self.far_sides.happened[key]),
            person=by.name,
            decided_at=stamp(self.clock.now()),
            nonce=f"n-{next(_numbers)}",
            results_digest=mission.pause.results_digest,
        )
        return _handed(by.sign(sealing.RECONCILIATION, sealing.seal(word)))

    def withdraw(self, mission_id: str, by: Person) -> None:
        """Have a person take an approval back, where the executor listens for that."""
        self.house.core.revoke(self.house.revocation(by=by, mission=mission_id, revoked_at=stamp(self.clock.now())))


@contextmanager
def quick_lives(pair: Callable[[], Pair]) -> Iterator[None]:
    """Patch what makes lives mortal, and waits short."""
    with ExitStack() as stack:
        patched = stack.enter_context(pytest.MonkeyPatch.context())
        for module, name, value in QUICKLY:
            patched.setattr(module, name, value)
        stack.enter_context(mortal_workspaces(lambda: pair().house.life))
        yield


def _handed(sealed: SealedBytes) -> Sealed:
    return wire.sealed_from_proto(sealed_to_proto(sealed))


async def in_time(holds: Callable[[], Awaitable[str]], seconds: float) -> str:
    """Wait until two looks in a row find nothing missing; return what is missing still."""
    until, found = asyncio.get_running_loop().time() + seconds, 0
    while True:
        missing = await holds()
        found = 0 if missing else found + 1
        if found > 1 or asyncio.get_running_loop().time() > until:
            return missing
        await asyncio.sleep(0.001)
