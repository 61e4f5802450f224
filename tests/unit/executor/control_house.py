"""An executor of real parts whose executions wait for people, and everybody who has them go on."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from executor.adapters.wire import WireDocuments
from executor.domain.control import ControlAction, ExecutionState, Pause, PauseKind
from executor.domain.errors import Fault, StepFailedError
from executor.domain.events import FailureDetected, Payload
from executor.domain.ladder import LadderLevel
from executor.domain.plan import FetchUrl, Live, RunLive, SearchBodies
from executor.domain.policy import Trust
from executor.domain.receipt import EffectState
from executor.domain.report import FetchEvidence, LiveEvidence, SearchEvidence
from executor.domain.sealed import SealedBytes
from executor.runner.clock import EffectiveClock
from executor.runner.control_requests import ControlInput
from executor.runner.desk import Decision
from executor.runner.drift import FindDrift
from executor.runner.execute import Executioner
from executor.runner.keyring import DocumentSigner
from executor.runner.outside import Declared, Performed, Setting
from executor.runner.ports import Capabilities, Ledger, WorkspaceStanding
from executor.runner.recovery import JournalRecovery
from executor.runner.requests import ExecuteInput
from executor.runner.run import Progress
from executor.runner.service import ExecutorCore, Parts
from executor.runner.simulate import Simulator
from executor.runner.stored_run import AnyRun
from executor.runner.trust import TrustInForce
from executor.steps.edit import EditLimits
from executor.workspace.objects import Batch
from executor.workspace.workspace import Workspace
from gonogo import sealing
from gonogo.digests import digest
from gonogo.v1 import evidence_pb2, plan_pb2
from tests.unit.executor.house import EXECUTOR_ID, WORKSPACE_ID, Person, ignore, stamp
from tests.unit.executor.plan_house import LIMITS
from tests.unit.executor.undo_house import TOOLS, UndoHouse, write

MISSION = "m-1"
PATIENCE_SECONDS = 20.0
PAUSE, ROLL_BACK, STOP, CONTINUE = (
    plan_pb2.FAILURE_POLICY_PAUSE,
    plan_pb2.FAILURE_POLICY_ROLL_BACK,
    plan_pb2.FAILURE_POLICY_STOP,
    plan_pb2.FAILURE_POLICY_CONTINUE,
)


@dataclass
class Wall:
    """A wall clock that can be put forward."""

    ahead: timedelta = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class PlayedFarSides:
    """A far side that notes on the disk what was done to it, so that a restart finds it as it was."""

    log: Path
    comes_to: list[Performed] = field(default_factory=list)
    """What the next effects come to; done where there is nothing."""
    meanwhile: Callable[[Setting], None] = ignore

    def done(self) -> list[str]:
        """Return what was done, by its key, in order."""
        return self.log.read_text().split() if self.log.exists() else []

    def fetch(self, action: FetchUrl, setting: Setting, batch: Batch) -> FetchEvidence:
        raise NotImplementedError

    def search(self, action: SearchBodies, setting: Setting) -> SearchEvidence:
        raise NotImplementedError

    def declare(self, action: Live, _setting: Setting) -> Declared:
        assert isinstance(action, RunLive)
        named = digest(json.dumps(action.argv).encode())
        evidence = LiveEvidence(target=" ".join(action.argv), digest=named, not_simulated="it is for real")
        return Declared(evidence=evidence, not_simulated="it is for real", digest=named)

    def perform(self, action: Live, _expected: Declared, setting: Setting, key: str) -> Performed:
        assert isinstance(action, RunLive)
        performed = self.comes_to.pop(0) if self.comes_to else Performed(state=EffectState.DONE, summary="done")
        if performed.state is not EffectState.NOT_DONE:
            with self.log.open("a") as log:
                log.write(f"{key}:{action.argv[0]}\n")
        self.meanwhile(setting)
        return performed


class ControlHouse(UndoHouse):
    """A house whose executions are begun in a thread, and can be waited for."""

    def __init__(self, root: Path, **more: Any) -> None:
        self.wall = Wall()
        self.far = PlayedFarSides(root / "far.log")
        self.threads: list[threading.Thread] = []
        self.fails: dict[int, int] = {}
        """How often the commit of a step, by its number, fails from now on."""
        self.dies = 0
        """The number of the step at whose commit the thread goes, as if its process had ended."""
        self.workspaces: Callable[[], dict[str, Workspace]] = lambda: {WORKSPACE_ID: self.workspace}
        """What the next executor serves."""
        key = root / "owner.key"
        super().__init__(root, **more)
        if not key.exists():
            key.write_bytes(self.owner.key.private_bytes())

    def make_core(self, trust: Trust, ledger: Ledger | None = None) -> ExecutorCore:
        """Compose the core, with a clock and far sides that are played."""
        assert ledger is None
        level = LadderLevel.L1 if self.sandbox is None else LadderLevel.L3
        standing = WorkspaceStanding(workspace_id=WORKSPACE_ID, ladder_level=level, limitation="")
        workspaces = self.workspaces()
        self.clock = EffectiveClock(self.ledger.clock_high_water(), self.wall)
        return ExecutorCore(
            Parts(
                trust=TrustInForce(self.in_force(trust)),
                ledger=self.ledger,
                documents=WireDocuments(),
                signer=DocumentSigner(self.executor_key),
                workspaces=workspaces,
                simulator=Simulator(
                    sandbox=self.sandbox,
                    ladder_level=level,
                    objects=self.objects,
                    edit_limits=EditLimits(),
                    copy_limits=LIMITS,
                    tools=TOOLS,
                    far_sides=self.far,
                ),
                find_drift=FindDrift(objects=self.objects),
                executioner=Failing(
                    house=self,
                    sandbox=self.sandbox,
                    objects=self.objects,
                    copy_limits=LIMITS,
                    tools=TOOLS,
                    far_sides=self.far,
                ),
                recovery=JournalRecovery(workspaces=workspaces, objects=self.objects, ledger=self.ledger),
                objects=self.objects,
                capabilities=Capabilities(ladder_level=level, findings=(), workspaces=(standing,)),
                clock=self.clock,
                look_seconds=0.005,
                **self.more_parts(),
            )
        )

    def restart(self) -> None:
        """End the executor where it stands, and start the next one."""
        self.close()
        self.open()

    def close(self) -> None:
        """End the executor; what waits is left waiting on the disk."""
        self.core.close()
        for thread in self.threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()
        self.threads.clear()
        super().close()

    def mission(
        self,
        *steps: plan_pb2.Step,
        policy: plan_pb2.FailurePolicy.ValueType = PAUSE,
        mission: str = MISSION,
        pause: plan_pb2.PauseRules | None = None,
        **repair: Any,
    ) -> ExecuteInput:
        """Return a request that every gate lets pass."""
        plan = self.plan(mission=mission)
        del plan.steps[:]
        plan.steps.extend(steps)
        plan.failure_policy = policy
        for number, step in enumerate(plan.steps, 1):
            step.step_id = step.step_id or f"s{number}"
            step.stage = plan_pb2.STAGE_EDIT
        if pause is not None:
            plan.pause.CopyFrom(pause)
        for name, value in repair.items():
            setattr(plan, name, value)
        sealed = self.sealed_plan(plan)
        report = self.dry_run(sealed)
        told = sealing.open_sealed(report.body, evidence_pb2.Report)
        assert told.status == evidence_pb2.REPORT_STATUS_SUCCESS, told.problems
        return self.request(sealed, report, self.approve(sealed, report))

    def writing(self, **more: Any) -> ExecuteInput:
        """Return a request for a mission that writes one, two and three."""
        return self.mission(*writes(), **more)

    def repair(self, *steps: plan_pb2.Step, **more: Any) -> ExecuteInput:
        """Return a request with a repair plan for how the mission stands now."""
        progress, pause = self.progress(), self.paused()
        number = progress.segment + 1
        for place, step in enumerate(steps, 1):
            step.step_id = f"r{number}-s{place}"
        return self.mission(
            *steps,
            plan_id=f"p-{MISSION}-{number}",
            segment=number,
            execution_id=progress.record.execution_id,
            journal_digest=pause.results_digest,
            **more,
        )

    def begin(self, request: ExecuteInput) -> None:
        """Have it executed in a thread of its own, and return once there is an execution."""
        there = threading.Event()
        attached: list[AnyRun] = []

        def attach(run: AnyRun) -> None:
            attached.append(run)
            there.set()

        def execute() -> None:
            try:
                self.core.execute(request, attach)
            finally:
                there.set()

        thread = threading.Thread(target=execute)
        self.threads.append(thread)
        thread.start()
        assert there.wait(PATIENCE_SECONDS)
        assert attached, "the request was refused"

    def progress(self, mission: str = MISSION) -> Progress:
        """Return how it stands."""
        return self.core.get_execution(mission_id=mission).progress(0)

    def until(self, holds: Callable[[Progress], bool]) -> Progress:
        """Wait until it stands as wanted."""
        run = self.core.get_execution(mission_id=MISSION)
        woken = threading.Event()
        leave = run.watch(woken.set)
        deadline = time.monotonic() + PATIENCE_SECONDS
        try:
            while not holds(progress := run.progress(0)):
                assert time.monotonic() < deadline, told(progress)
                woken.wait(0.05)
                woken.clear()
        finally:
            leave()
        return progress

    def idle(self) -> None:
        """Wait until its thread has nothing more to do."""
        assert self.core.drain(PATIENCE_SECONDS)

    def die_before_it_takes_effect(self) -> None:
        """Have the next control be recorded and then nothing: as if the process ended in between."""

        def dead(decision: Decision) -> None:
            del decision

        self.core._executions._live(MISSION).desk._decide = dead  # type: ignore[method-assign]  # it dies before

    def failed(self, times: int) -> Pause:
        """Wait until it waits because steps have failed so many times."""
        self.until(lambda _: len(self.payloads(FailureDetected)) == times)
        return self.paused(PauseKind.FAILURE)

    def paused(self, kind: PauseKind | None = None) -> Pause:
        """Wait until it waits, and return for what."""

        def waits(progress: Progress) -> bool:
            assert not progress.ended, told(progress)
            return progress.pause is not None and kind in {None, progress.pause.kind}

        pause = self.until(waits).pause
        assert pause is not None
        return pause

    def ended(self) -> evidence_pb2.Receipt:
        """Wait for its end, and return the receipt."""
        progress = self.until(lambda progress: progress.ended)
        assert progress.receipt is not None, progress.failure
        assert self.core.get_execution(mission_id=MISSION).progress(0).state is ExecutionState.ENDED
        return sealing.open_sealed(progress.receipt.body, evidence_pb2.Receipt)

    def control(self, action: ControlAction, **more: Any) -> AnyRun:
        """Have the owner ask something of it."""
        values = {"request_id": self.next_request(), "mission_id": MISSION, "actor": "owner", **more}
        return self.core.control(ControlInput(action=action, **values))

    def approve_step(self, pause: Pause, *, by: Person | None = None, **changes: object) -> AnyRun:
        """Sign the step that waits, and hand that in."""
        person = by or self.owner
        now = self.wall()
        values: dict[str, object] = {
            "approval_id": f"sa-{self.next_request()}",
            "executor_id": EXECUTOR_ID,
            "workspace_id": WORKSPACE_ID,
            "mission_id": MISSION,
            "execution_id": self.progress().record.execution_id,
            "segment": self.progress().segment,
            "step_id": pause.step_id,
            "change_set_digest": pause.change_set_digest,
            "results_digest": pause.results_digest,
            "approver": person.name,
            "decision": evidence_pb2.DECISION_APPROVE,
            "approved_at": stamp(now),
            "expires_at": stamp(now + timedelta(minutes=30)),
            "nonce": f"n-{self.next_request()}",
            "comment": "",
            **changes,
        }
        body = sealing.seal(evidence_pb2.StepApproval(**values))  # type: ignore[arg-type]  # a test may write anything
        return self.control(ControlAction.APPROVE_STEP, document=person.sign(sealing.STEP_APPROVAL, body))

    def reconcile(self, pause: Pause, *, happened: bool, by: Person | None = None) -> AnyRun:
        """Sign whether the effect happened, and hand that in."""
        return self.control(ControlAction.RECONCILE, document=self.word(pause, happened=happened, by=by))

    def word(self, pause: Pause, *, happened: bool, by: Person | None = None) -> SealedBytes:
        """Sign whether the effect happened."""
        person = by or self.owner
        word = evidence_pb2.Reconciliation(
            reconciliation_id=f"rc-{self.next_request()}",
            executor_id=EXECUTOR_ID,
            mission_id=MISSION,
            execution_id=self.progress().record.execution_id,
            step_id=pause.step_id,
            happened=happened,
            person=person.name,
            reason="looked at the far side",
            decided_at=stamp(self.wall()),
            nonce=f"n-{self.next_request()}",
            results_digest=pause.results_digest,
        )
        return person.sign(sealing.RECONCILIATION, sealing.seal(word))

    def kinds(self) -> list[str]:
        """Return the names of the events so far."""
        return [type(event.payload).__name__ for event in self.progress().events]

    def payloads(self, kind: type[Payload]) -> list[Any]:
        """Return the events of one kind so far."""
        return [event.payload for event in self.progress().events if isinstance(event.payload, kind)]

    def contents(self) -> dict[str, str]:
        """Return what is in the workspace."""
        return {path.name: path.read_text() for path in sorted(self.site.iterdir())}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing(Executioner):
    """An executioner whose commits fail where the house says so; everything else of it is real."""

    house: ControlHouse

    def run(self, order: Any) -> Any:
        self.house.during()
        committer = order.workspace.committer(self.objects)
        real = type(committer).apply
        house = self.house

        def apply(slot: str, changes: Any, **options: Any) -> Any:
            number = int(slot.rpartition("-")[2].partition("_")[0])
            if number == house.dies:
                raise KeyboardInterrupt
            if house.fails.get(number, 0) > 0:
                house.fails[number] -= 1
                raise StepFailedError("CONFLICT", f"step {number} fails", "try again", paths=(changes[0].path,))
            return real(committer, slot, changes, **options)

        committer.apply = apply
        return Executioner.run(self, order)


def writes() -> tuple[plan_pb2.Step, ...]:
    """Three steps, each of which writes a file."""
    return tuple(write(name, f"new {name}\n") for name in ("one", "two", "three"))


def live(word: str = "deploy", *, undo: str = "") -> plan_pb2.Step:
    """A step with an effect outside."""
    step = plan_pb2.Step(run_live=plan_pb2.RunLive(argv=[word], access=plan_pb2.LIVE_ACCESS_HOST))
    if undo:
        step.compensation.description = "take it back"
        step.compensation.run_live.CopyFrom(plan_pb2.RunLive(argv=[undo], access=plan_pb2.LIVE_ACCESS_HOST))
    return step


def unknown() -> Performed:
    """What comes of an effect that nobody knows of."""
    return Performed(state=EffectState.UNKNOWN, summary="the line went dead")


def refused() -> Performed:
    """What comes of an effect that did not happen."""
    fault = Fault(reason="EFFECT_FAILED", message="it is closed today", remedy="come back")
    return Performed(state=EffectState.NOT_DONE, summary="closed", fault=fault)


def told(progress: Progress) -> str:
    """What an assertion shows of how it stands."""
    return f"{progress.state} {progress.pause} {[type(event.payload).__name__ for event in progress.events]}"
