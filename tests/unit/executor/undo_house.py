"""An executor of real parts, for tests that execute missions and take them back."""

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from executor.adapters.ledger_sqlite import SqliteLedger
from executor.adapters.wire import WireDocuments
from executor.domain.ladder import LadderLevel
from executor.domain.policy import Trust
from executor.domain.sealed import SealedBytes
from executor.runner.clock import EffectiveClock
from executor.runner.drift import FindDrift
from executor.runner.execute import Executioner
from executor.runner.kept_steps import LedgerSteps
from executor.runner.keyring import DocumentSigner
from executor.runner.orders import Order
from executor.runner.ports import Capabilities, Ended, Ledger, WorkspaceStanding
from executor.runner.recovery import JournalRecovery
from executor.runner.retention import Retention
from executor.runner.service import ExecutorCore, Parts
from executor.runner.simulate import Simulator
from executor.runner.trust import TrustInForce
from executor.sandbox.bubblewrap import Bubblewrap
from executor.sandbox.sandbox import Sandbox
from executor.steps.edit import EditLimits
from executor.workspace.globs import Globs
from executor.workspace.objects import ObjectStore, data_ranges
from executor.workspace.workspace import Workspace
from gonogo import sealing
from gonogo.v1 import evidence_pb2, plan_pb2
from tests.unit.executor.house import WORKSPACE_ID, House
from tests.unit.executor.plan_house import LIMITS

TOOLS = tuple({Path(sys.prefix), Path(sys.base_prefix)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """A mission from its plan to its receipt."""

    plan: SealedBytes
    sealed_report: SealedBytes
    report: evidence_pb2.Report
    receipt: evidence_pb2.Receipt


@dataclass(frozen=True, slots=True)
class Interrupted:
    """An executioner, and what somebody does between the gates and its first step."""

    executioner: Executioner
    house: "UndoHouse"

    def run(self, order: Order) -> Ended:
        self.house.during()
        return self.executioner.run(order)


class UndoHouse(House):
    """A house whose simulator, executioner and staging directory are the real ones."""

    def __init__(self, root: Path, *, sandbox: Sandbox | None = None, **policy: object) -> None:
        self.sandbox = sandbox
        self.slots = root / "staging"
        self.during: Callable[[], object] = lambda: None
        super().__init__(root, **policy)

    def open(self) -> None:
        """Start the executor on whatever its state directory holds."""
        self.ledger = SqliteLedger(self.own / "ledger.db")
        self.objects = ObjectStore(self.own / "objects", self.ledger.small_object)
        self.workspace = Workspace(
            workspace_id=WORKSPACE_ID,
            root=self.site,
            staging=self.slots,
            locks=self.own / "locks",
            hidden=Globs(self.trust.limits.hidden),
            volatile=Globs(()),
        )
        self.clock = EffectiveClock(self.ledger.clock_high_water())
        self.core = self.make_core(self.trust)
        self.core.start()

    def make_core(self, trust: Trust, ledger: Ledger | None = None) -> ExecutorCore:
        """Compose the core."""
        assert ledger is None
        level = LadderLevel.L1 if self.sandbox is None else LadderLevel.L3
        standing = WorkspaceStanding(workspace_id=WORKSPACE_ID, ladder_level=level, limitation="")
        return ExecutorCore(
            Parts(
                trust=TrustInForce(self.in_force(trust)),
                ledger=self.ledger,
                documents=WireDocuments(),
                signer=DocumentSigner(self.executor_key),
                workspaces={WORKSPACE_ID: self.workspace},
                simulator=Simulator(
                    sandbox=self.sandbox,
                    ladder_level=level,
                    objects=self.objects,
                    edit_limits=EditLimits(),
                    copy_limits=LIMITS,
                    tools=TOOLS,
                    kept_steps=LedgerSteps(
                        ledger=self.ledger,
                        objects=self.objects,
                        lifetime=lambda: trust.limits.checkpoint_lifetime,
                        now=self.clock.now,
                    ),
                ),
                find_drift=FindDrift(objects=self.objects),
                executioner=Interrupted(
                    Executioner(sandbox=self.sandbox, objects=self.objects, copy_limits=LIMITS, tools=TOOLS),
                    self,
                ),
                recovery=JournalRecovery(
                    workspaces={WORKSPACE_ID: self.workspace}, objects=self.objects, ledger=self.ledger
                ),
                objects=self.objects,
                capabilities=Capabilities(ladder_level=level, findings=(), workspaces=(standing,)),
                **self.more_parts(),
            )
        )

    def next_request(self) -> str:
        """A new request id, also after a restart."""
        return f"q-{secrets.token_hex(8)}"

    def retention(self, later: timedelta = timedelta(0), *, young: timedelta = timedelta(0)) -> Retention:
        """What lets go of things in this house, as if some time had passed."""
        return Retention(
            records=self.ledger,
            objects=self.objects,
            workspaces={WORKSPACE_ID: self.workspace},
            limits=lambda: self.trust.limits,
            now=lambda: self.clock.now() + later,
            young=young,
        )

    def steps(
        self,
        mission: str,
        *steps: plan_pb2.Step,
        paths: tuple[str, ...] = (),
        policy: plan_pb2.FailurePolicy.ValueType = plan_pb2.FAILURE_POLICY_ROLL_BACK,
    ) -> SealedBytes:
        """Seal a plan of some steps, s1, s2 and so on where they have no id."""
        plan = self.plan(mission=mission)
        del plan.steps[:], plan.scope.paths[:]
        plan.steps.extend(steps)
        plan.scope.paths.extend(paths)
        plan.failure_policy = policy
        for number, step in enumerate(plan.steps, 1):
            step.step_id = step.step_id or f"s{number}"
            step.stage = plan_pb2.STAGE_EDIT
        return self.sealed_plan(plan)

    def tried(self, plan: SealedBytes) -> evidence_pb2.Report:
        """Have the executor dry run a plan."""
        return sealing.open_sealed(self.dry_run(plan).body, evidence_pb2.Report)

    def run(self, plan: SealedBytes) -> Ran:
        """Take a plan to its receipt."""
        sealed = self.dry_run(plan)
        report = sealing.open_sealed(sealed.body, evidence_pb2.Report)
        assert report.status == evidence_pb2.REPORT_STATUS_SUCCESS, report.problems
        progress = self.execute(self.request(plan, sealed, self.approve(plan, sealed)))
        assert progress.receipt is not None
        receipt = sealing.open_sealed(progress.receipt.body, evidence_pb2.Receipt)
        return Ran(plan=plan, sealed_report=sealed, report=report, receipt=receipt)

    def undoing(self, mission: str, *steps: str, name: str = "undo", paths: tuple[str, ...] = ()) -> SealedBytes:
        """Seal a plan that takes steps of a mission back, in the order given."""
        return self.steps(name, *(undo_step(mission, step) for step in steps), paths=paths)

    def undone(self, mission: str, *steps: str, name: str = "undo") -> Ran:
        """Take steps of a mission back."""
        ran = self.run(self.undoing(mission, *steps, name=name))
        assert ran.receipt.execution_status == evidence_pb2.OUTCOME_SUCCESS, ran.receipt.errors
        return ran

    def refused(self, plan: SealedBytes) -> tuple[str, str, list[str]]:
        """Dry run a plan that does not work: the report's status, the reason, and the paths of its problems."""
        report = self.tried(plan)
        status = evidence_pb2.ReportStatus.Name(report.status).removeprefix("REPORT_STATUS_").lower()
        [reason] = {problem.reason for problem in report.problems}
        assert all(problem.remedy for problem in report.problems)
        return status, reason, [problem.path for problem in report.problems]

    def tree(self) -> dict[str, tuple[object, ...]]:
        """Everything about the workspace that an undo restores, its own directory included."""
        return {str(path.relative_to(self.site)): seen(path) for path in (self.site, *sorted(self.site.rglob("*")))}


def seen(path: Path) -> tuple[object, ...]:
    """What a path is: mode, modification time, attributes, and content with its holes."""
    info = path.lstat()
    content: object = None
    if path.is_symlink():
        content = path.readlink()
    elif path.is_file():
        fd = os.open(path, os.O_RDONLY)
        content = path.read_bytes(), tuple(data_ranges(fd, info.st_size))
        os.close(fd)
    names = os.listxattr(path, follow_symlinks=False)
    attributes = {name: os.getxattr(path, name, follow_symlinks=False) for name in names if name.startswith("user.")}
    return info.st_mode, info.st_mtime_ns, attributes, content


def undo_step(mission: str, step: str) -> plan_pb2.Step:
    return plan_pb2.Step(undo_step=plan_pb2.UndoStep(mission_id=mission, step_id=step))


def shell(script: str) -> plan_pb2.Step:
    return plan_pb2.Step(run_command=plan_pb2.RunCommand(argv=["sh", "-ec", script]))


def write(path: str, content: str) -> plan_pb2.Step:
    return plan_pb2.Step(write_file=plan_pb2.WriteFile(path=path, content=content))


def delete(path: str) -> plan_pb2.Step:
    return plan_pb2.Step(delete_path=plan_pb2.DeletePath(path=path, recursive=True))


def move(path: str, to: str) -> plan_pb2.Step:
    return plan_pb2.Step(move_path=plan_pb2.MovePath(path=path, to=to))


@contextmanager
def undo_house(root: Path, *, sandboxed: bool = False, **policy: object) -> Iterator[UndoHouse]:
    """Open a house in an empty folder."""
    house = UndoHouse(root, sandbox=Bubblewrap.on_this_machine() if sandboxed else None, **policy)
    try:
        yield house
    finally:
        house.close()
