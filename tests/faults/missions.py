"""What is cut: a whole mission of three steps in a real executor, from the gates to the receipt, and its next start."""

import json
import os
import shutil
import threading
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from executor import bootstrap, machines
from executor.adapters import epochs, ledger_sqlite
from executor.adapters.sqlite_driver import sqlite3
from executor.domain.changes import Change, net_states, states_fingerprint
from executor.domain.control import ControlAction
from executor.domain.errors import NotFoundError
from executor.domain.events import StepStarted
from executor.domain.ladder import LadderLevel
from executor.domain.plan import Plan
from executor.domain.report import ReportStatus, RiskLevel, StepReport
from executor.runner.control_requests import ControlInput
from executor.runner.executions import RefusedError
from executor.runner.ports import Emit, Simulation
from executor.runner.requests import ExecuteInput
from executor.runner.service import ExecutorCore
from executor.runner.simulate import Simulator
from executor.sandbox.self_test import Probe
from executor.settings import Settings
from executor.workspace.objects import ObjectStore
from executor.workspace.workspace import Workspace
from gonogo import sealing
from gonogo.signatures import new_signing_key
from gonogo.v1 import evidence_pb2, plan_pb2
from tests.faults.rich_tree import build_old
from tests.faults.scenarios import NEW, CommitScenario, State, whole_state
from tests.faults.snapshot import Snapshot, Tree, look
from tests.faults.traced import Act, GetReady, run
from tests.unit.executor.house import WORKSPACE_ID, House, Person, trust_text

MISSION = "m-1"
# A ledger lays out megabytes when it is made; each point makes one.
_LOG_BYTES = 1 << 18
_CONTENT = (b"modify", b"caf", b"new-", b"made", b"link", b"sparse", b"bits", b"noted", b"open")
_PLACES = (b"dir/", b"moved", b"was-")

POLICIES = {
    "roll_back": plan_pb2.FAILURE_POLICY_ROLL_BACK,
    "stop": plan_pb2.FAILURE_POLICY_STOP,
    "pause": plan_pb2.FAILURE_POLICY_PAUSE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldSimulator:
    """A dry run that is told what each step comes to; the executor commits what a report says, whoever found it."""

    change_sets: tuple[tuple[Change, ...], ...]
    small_objects: Mapping[str, bytes]

    def run(self, plan: Plan, workspace: Workspace, emit: Emit) -> Simulation:
        del workspace
        steps = []
        for step, changes in zip(plan.steps, self.change_sets, strict=True):
            emit(StepStarted(step_id=step.step_id, kind=step.kind, stage=step.stage, target=""))
            steps.append(
                StepReport(
                    step_id=step.step_id,
                    kind=step.kind,
                    stage=step.stage,
                    success=True,
                    changes=changes,
                    evidence=None,
                    duration_ms=0,
                )
            )
        before, after = net_states(self.change_sets)
        return Simulation(
            status=ReportStatus.SUCCESS,
            problems=(),
            steps=tuple(steps),
            base_fingerprint=states_fingerprint(before),
            after_fingerprint=states_fingerprint(after),
            manifest_digest="",
            risk_level=RiskLevel.LOW,
            risk_facts=(),
            small_objects=self.small_objects,
            ladder_level=LadderLevel.L1,
        )


class Documents(House):
    """What orchestrator and approver of a house do, around an executor that somebody else starts and stops."""

    def __init__(self) -> None:
        self.owner = Person("owner")
        self.executor_key = new_signing_key()
        self.requests = 0

    def mission(self, policy: str, steps: int) -> plan_pb2.Plan:
        """Return a plan of some steps."""
        plan = self.plan(mission=MISSION)
        plan.failure_policy = POLICIES[policy]
        [step] = plan.steps
        del plan.steps[:]
        for number in range(1, steps + 1):
            plan.steps.add().CopyFrom(step)
            plan.steps[-1].step_id = f"s{number}"
        return plan

    def approved(self, core: ExecutorCore, plan: plan_pb2.Plan) -> ExecuteInput:
        """Return a request that every gate lets pass."""
        self.core = core
        sealed = self.sealed_plan(plan)
        report = self.dry_run(sealed)
        return self.request(sealed, report, self.approve(sealed, report))


@dataclass
class MissionScenario:
    """The three steps are the rich change set: new contents, then new places, then what comes and goes."""

    home: Path
    policy: str
    states: dict[str, Snapshot] = field(init=False)

    def __post_init__(self) -> None:
        ledger_sqlite.LOG_BYTES = _LOG_BYTES  # type: ignore[misc]  # final for the executor
        # The self-test starts sandboxes; typed steps need none.
        machines.probe_here = lambda *_: Probe(level=LadderLevel.L1, findings=())
        # Every case has a copy of one ledger, which would refuse the report that the original issued.
        setattr(epochs, "ledger_file", lambda _: "the template's")  # noqa: B010 - mypy takes no assignment here
        self._commit = CommitScenario(self.home)
        self.change_sets = _in_three(self._commit.changes)
        told = ToldSimulator(change_sets=self.change_sets, small_objects=dict(self._commit.objects.small))
        setattr(Simulator, "run", lambda _, *parts: told.run(*parts))  # noqa: B010 - mypy takes no assignment here
        self.states = self._all_states()
        self._documents = Documents()
        self._template = self.home / "template"
        self.request = self._approved()

    def build(self, place: Path) -> Tree:
        place.mkdir()
        objects = place / "state" / "executor" / "objects"
        shutil.copytree(self._template / "state", place / "state", ignore=shutil.ignore_patterns("objects"))
        shutil.copytree(self._template / "state" / "executor" / "objects", objects, copy_function=os.link)
        build_old(place / "site")
        return look(os.fsencode(place / "site"))

    def act(self, place: Path) -> GetReady:
        def get_ready() -> Act:
            core = bootstrap.build_core(_settings(place), ExitStack())

            def execute() -> str:
                try:
                    run_ = core.execute(self.request, lambda _: None)
                except RefusedError as error:
                    return f"refused {error.fault.reason}"
                core.drain(20)
                progress = run_.progress(0)
                if progress.receipt is None:
                    return "no receipt"
                return _outcome(sealing.open_sealed(progress.receipt.body, evidence_pb2.Receipt))

            return execute

        return get_ready

    def recover(self, place: Path) -> GetReady:
        """Return the next start of the executor, and what it can tell afterwards."""

        def start() -> str:
            with ExitStack() as closing:
                core = bootstrap.build_core(_settings(place), closing)
                resume(core)
                return json.dumps(self._told(core, place))

        return lambda: start

    def state(self, place: Path, start: Tree) -> State:
        return whole_state(place / "site", start, self.states)

    def leftovers(self, place: Path) -> tuple[str, ...]:
        """Return nothing: what staging keeps of a mission are its checkpoints."""
        del place
        return ()

    def _told(self, core: ExecutorCore, place: Path) -> dict[str, object]:
        """Return what the ledger knows of the mission, and how it answers the same request under another name."""
        # By the ledger's own driver: a second SQLite in one process would take the first one's locks for its own.
        connection = sqlite3.connect(place / "state" / "executor" / "ledger.db")
        [[claims]] = connection.execute("SELECT count(*) FROM executions").fetchall()
        [[receipts]] = connection.execute("SELECT count(*) FROM receipts").fetchall()
        connection.close()
        told: dict[str, object] = {"claims": claims, "receipts": receipts, "outcome": "", "replay": "", "words": []}
        if receipts:
            receipt = sealing.open_sealed(core.get_receipt(MISSION).body, evidence_pb2.Receipt)
            told["outcome"] = _outcome(receipt)
            told["words"] = [*receipt.errors, *receipt.divergence_details]
        if claims:
            try:
                core.execute(_renamed(self.request), lambda _: None)
            except RefusedError as error:
                told["replay"] = error.fault.reason
        return told

    def _all_states(self) -> dict[str, Snapshot]:
        """Return what the workspace is after each step."""
        place = self.home / "steps"
        self._commit.build(place)
        states = {}
        for number, changes in enumerate(self.change_sets, 1):
            said = run(partial(self._step, place, number, changes), self.home / "log").said
            assert said == "applied", said
            states[NEW if number == len(self.change_sets) else f"s{number}"] = look(os.fsencode(place / "site")).entries
        return states

    def _step(self, place: Path, number: int, changes: tuple[Change, ...]) -> Act:
        committer = self._commit.open(place)

        def apply() -> str:
            committer.discard(committer.apply(f"x-{number}", changes))
            return "applied"

        return apply

    def _approved(self) -> ExecuteInput:
        """Have the executor of the template dry run the mission, and approve it."""
        place = self._template
        place.mkdir()
        build_old(place / "site")
        state = place / "state"
        (state / "keys").mkdir(parents=True)
        _settings(place).signing_key.write_bytes(self._documents.executor_key.private_bytes())
        (state / "trust.toml").write_text(trust_text({"owner": [self._documents.owner]}))
        self._large_objects(state / "executor" / "objects")
        with ExitStack() as closing:
            core = bootstrap.build_core(_settings(place), closing)
            plan = self._documents.mission(self.policy, len(self.change_sets))
            request = self._documents.approved(core, plan)
        shutil.rmtree(state / "staging", ignore_errors=True)
        return request

    def _large_objects(self, folder: Path) -> None:
        """Put the large contents where the executor keeps them."""
        batch = ObjectStore(folder, lambda _: None).batch()
        for path in self._commit.objects._large.values():
            fd = os.open(path, os.O_RDONLY)
            batch.put_fd(fd, limit=64 << 20)
            os.close(fd)
        batch.sync()


def resume(core: ExecutorCore) -> None:
    """Have the mission go on, as a person would, where it waits for one; returns when it has ended."""
    try:
        run_ = core.get_execution(mission_id=MISSION)
    except NotFoundError:
        return
    pause = run_.progress(0).pause
    if pause is None:
        return
    resuming = ControlAction.RESUME in pause.actions
    action = ControlAction.RESUME if resuming else ControlAction.RETRY
    core.control(ControlInput(request_id="q-resume", mission_id=MISSION, action=action, actor="owner"))
    ended = threading.Event()
    leave = run_.watch(ended.set)
    while not run_.progress(0).ended and ended.wait(20):
        ended.clear()
    leave()


def _settings(place: Path) -> Settings:
    return Settings(
        state=place / "state",
        workspaces={WORKSPACE_ID: place / "site"},
        staging={},
        tools=(),
        listen="",
        ready_file=None,
        die_with_parent=False,
        reflection=False,
        grace_seconds=1.0,
    )


def _in_three(changes: tuple[Change, ...]) -> tuple[tuple[Change, ...], ...]:
    groups: dict[int, list[Change]] = {0: [], 1: [], 2: []}
    for change in changes:
        if change.path.startswith(_CONTENT):
            groups[0].append(change)
        else:
            groups[1 if change.path.startswith(_PLACES) else 2].append(change)
    return tuple(tuple(group) for group in groups.values())


def _outcome(receipt: evidence_pb2.Receipt) -> str:
    return evidence_pb2.Outcome.Name(receipt.execution_status).removeprefix("OUTCOME_").lower()


def _renamed(request: ExecuteInput) -> ExecuteInput:
    return ExecuteInput(
        request_id="q-again",
        plan=request.plan,
        report=request.report,
        approvals=request.approvals,
        named=request.named,
    )
