"""A workspace with a simulator and an executioner over it, all real, for tests that run plans."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from executor.domain.events import Payload
from executor.domain.ladder import LadderLevel
from executor.domain.plan import Action, FailurePolicy, NetworkAccess, Plan, RunCommand, RunTests, Scope, Stage, Step
from executor.domain.plan import TestExpectation as Expectation
from executor.domain.receipt import EffectRecord, ExecutionResult
from executor.domain.redaction import NO_SECRETS, Redactor
from executor.domain.report import Report, SelfApproval
from executor.runner.control_ports import EffectClaim
from executor.runner.drift import FindDrift
from executor.runner.execute import Executioner
from executor.runner.orders import Order
from executor.runner.outside import NOTHING_OUTSIDE, FarSides
from executor.runner.ports import Claim, Simulation
from executor.runner.segments import Segment
from executor.runner.simulate import Simulator
from executor.runner.working_copy import CopyLimits
from executor.sandbox.bubblewrap import Bubblewrap
from executor.sandbox.sandbox import Sandbox
from executor.steps.edit import EditLimits
from executor.workspace.globs import Globs
from executor.workspace.objects import ObjectStore
from executor.workspace.workspace import Workspace

LIMITS = CopyLimits(change_bytes=64 << 20, change_count=10_000, output_bytes=1 << 16, processes=256, open_files=1024)
TOOLS = tuple({Path(sys.prefix), Path(sys.base_prefix)})


def command(*argv: str, success_codes: tuple[int, ...] = ()) -> RunCommand:
    return RunCommand(argv=argv, cwd="", env={}, success_codes=success_codes)


def shell(script: str) -> RunCommand:
    return command("sh", "-c", script)


def suite(script: str, junit: str = "", expect: Expectation = Expectation.PASS) -> RunTests:
    return RunTests(argv=("sh", "-c", script), junit=junit, cwd="", env={}, expect=expect)


class NoEffects:
    """The ledger of an execution without live steps."""

    def claim_effect(self, claim: EffectClaim) -> None:
        raise AssertionError(claim)

    def settle_effect(self, effect_id: str, record: EffectRecord, at: datetime) -> None:
        raise AssertionError(effect_id, record, at)


def claim_of(plan: Plan, execution_id: str) -> Claim:
    """Return the claim that a plan would be executed under, approved by nobody."""
    return Claim(
        mission_id=plan.mission_id,
        segment=plan.segment,
        execution_id=execution_id,
        intent_id=plan.intent_id,
        message_id="",
        transcription_id="",
        plan_id=plan.plan_id,
        plan_digest="sha256:plan",
        report_digest="sha256:report",
        workspace_id=plan.workspace_id,
        approvals=(),
        nonces=(),
        self_approval=SelfApproval.ALLOWED,
        policy_digest="",
        claimed_at=datetime.now(UTC),
        failure_policy=plan.failure_policy,
        targets=(),
    )


@dataclass
class PlanHouse:
    """One workspace and what runs plans on it."""

    folder: Path
    sandbox: Sandbox | None
    volatile: tuple[str, ...] = ("**/__pycache__/**",)
    hidden: tuple[str, ...] = (".env",)
    level: LadderLevel | None = None
    redactor: Redactor = NO_SECRETS
    far_sides: FarSides = NOTHING_OUTSIDE
    small: dict[str, bytes] = field(default_factory=dict)
    events: list[Payload] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.root = self.folder / "site"
        self.staging = self.folder / "staging"
        for path in (self.root, self.staging):
            path.mkdir()
        self.objects = ObjectStore(self.folder / "objects", self.small.get)
        self.workspace = Workspace(
            workspace_id="site",
            root=self.root,
            staging=self.staging,
            locks=self.folder / "locks",
            hidden=Globs(self.hidden),
            volatile=Globs(self.volatile),
        )

    def plan(
        self,
        *actions: Action,
        paths: tuple[str, ...] = (),
        policy: FailurePolicy = FailurePolicy.ROLL_BACK,
        seconds: int = 20,
        max_bytes: int | None = None,
        least: LadderLevel | None = None,
    ) -> Plan:
        """Return a plan of some actions, with steps s1, s2 and so on."""
        scope = Scope(
            paths=paths,
            domains=(),
            network=NetworkAccess.NONE,
            max_pages=1,
            max_duration_seconds=seconds,
            max_bytes=max_bytes,
            min_ladder_level=least,
        )
        steps = tuple(
            Step(step_id=f"s{number}", description="", stage=Stage.EDIT, action=action)
            for number, action in enumerate(actions, 1)
        )
        return Plan(
            plan_id="p-1",
            mission_id="m-1",
            intent_id="i-1",
            message_id="",
            transcription_id="",
            objective="try",
            workspace_id="site",
            executor_id="executor-1",
            proposer="owner",
            created_at=datetime.now(UTC),
            scope=scope,
            failure_policy=policy,
            steps=steps,
        )

    def simulate(self, plan: Plan) -> Simulation:
        """Dry-run a plan and keep its small objects, as the ledger does."""
        simulator = Simulator(
            sandbox=self.sandbox,
            ladder_level=self.level or (LadderLevel.L1 if self.sandbox is None else self.sandbox.level),
            objects=self.objects,
            edit_limits=EditLimits(),
            copy_limits=LIMITS,
            tools=TOOLS,
            redactor=self.redactor,
            far_sides=self.far_sides,
        )
        found = simulator.run(plan, self.workspace, self.events.append)
        self.small.update(found.small_objects)
        return found

    def report(self, plan: Plan, found: Simulation) -> Report:
        """Return the report that a simulation would be issued as."""
        now = datetime.now(UTC)
        return Report(
            report_id="r-1",
            mission_id=plan.mission_id,
            intent_id=plan.intent_id,
            plan_id=plan.plan_id,
            plan_digest="",
            workspace_id=plan.workspace_id,
            executor_id=plan.executor_id,
            ledger_epoch="",
            nonce="",
            status=found.status,
            problems=found.problems,
            started_at=now,
            completed_at=now,
            ladder_level=found.ladder_level,
            self_approval=SelfApproval.ALLOWED,
            policy_digest="",
            base_fingerprint=found.base_fingerprint,
            after_fingerprint=found.after_fingerprint,
            manifest_digest=found.manifest_digest,
            steps=found.steps,
            risk_level=found.risk_level,
            risk_facts=found.risk_facts,
        )

    def drift(self, plan: Plan, found: Simulation) -> tuple[bytes, ...]:
        find_drift = FindDrift(objects=self.objects, redactor=lambda: self.redactor)
        return find_drift(plan, self.report(plan, found), self.workspace)

    def execute(self, plan: Plan, found: Simulation, execution_id: str = "x-1") -> ExecutionResult:
        """Execute what a simulation found."""
        house = Executioner(
            sandbox=self.sandbox, objects=self.objects, copy_limits=LIMITS, tools=TOOLS, redactor=self.redactor
        )
        segment = Segment(claim=claim_of(plan, execution_id), plan=plan, report=self.report(plan, found))
        order = Order(segment=segment, workspace=self.workspace, emit=self.events.append, effects=NoEffects())
        ended = house.run(order)
        ended.let_go()
        return ended.result

    def tree(self) -> dict[str, tuple[object, ...]]:
        """Return everything the workspace holds, times included."""
        found: dict[str, tuple[object, ...]] = {}
        for path in sorted(self.root.rglob("*")):
            info = path.lstat()
            content: object = path.readlink() if path.is_symlink() else path.is_file() and path.read_bytes()
            found[str(path.relative_to(self.root))] = (info.st_mode, info.st_mtime_ns, content)
        return found


@contextmanager
def plan_house(folder: Path, *, sandboxed: bool = True, hidden: tuple[str, ...] = (".env",)) -> Iterator[PlanHouse]:
    """Open a house in an empty folder."""
    house = PlanHouse(folder, Bubblewrap.on_this_machine() if sandboxed else None, hidden=hidden)
    try:
        yield house
    finally:
        house.workspace.close()
