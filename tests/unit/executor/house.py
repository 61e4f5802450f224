"""A whole executor core on real files, real keys and a real ledger, with the orchestrator and the approver played."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from executor.adapters.ledger_sqlite import SqliteLedger
from executor.adapters.trust_file import parse_trust
from executor.adapters.wire import WireDocuments
from executor.domain.changes import Change, ChangeKind, Node, NodeType, net_states, states_fingerprint
from executor.domain.events import CheckpointCreated, ExecutionCompleted, StepCompleted, StepStarted
from executor.domain.gates import NamedIds
from executor.domain.ladder import LadderLevel
from executor.domain.plan import Plan, WriteFile
from executor.domain.policy import Trust, limits_digest
from executor.domain.receipt import ExecutionResult, Outcome, StepReceipt
from executor.domain.report import Report, ReportStatus, RiskLevel, StepReport
from executor.domain.sealed import SealedBytes, Signature
from executor.runner.keyring import DocumentSigner
from executor.runner.orders import Order
from executor.runner.ports import Capabilities, Emit, Ended, Finding, Ledger, Simulation, WorkspaceStanding
from executor.runner.recovery import JournalRecovery
from executor.runner.requests import ExecuteInput
from executor.runner.run import Progress
from executor.runner.service import ExecutorCore, Parts
from executor.runner.stored_run import AnyRun
from executor.runner.trust import InForce, TrustInForce, in_force
from executor.workspace.globs import Globs
from executor.workspace.objects import ObjectStore
from executor.workspace.workspace import Workspace
from gonogo import sealing
from gonogo.digests import digest
from gonogo.signatures import ED25519, SSHSIG, SigningKey, new_signing_key
from gonogo.v1 import evidence_pb2, plan_pb2

EXECUTOR_ID = "executor-test"
WORKSPACE_ID = "site"


def ignore(*_: object) -> None:
    """Nobody looks."""


@dataclass
class WritingSimulator:
    """Foresees the files that write_file steps would leave; the status is whatever a test wants."""

    status: ReportStatus = ReportStatus.SUCCESS
    runs: int = 0

    def run(self, plan: Plan, workspace: Workspace, emit: Emit) -> Simulation:
        self.runs += 1
        steps = tuple(self._step(plan, number, workspace, emit) for number in range(len(plan.steps)))
        before, after = net_states([step.changes for step in steps])
        contents = [step.action.content for step in plan.steps if isinstance(step.action, WriteFile)]
        return Simulation(
            status=self.status,
            problems=(),
            steps=steps,
            base_fingerprint=states_fingerprint(before),
            after_fingerprint=states_fingerprint(after),
            manifest_digest="",
            risk_level=RiskLevel.LOW,
            risk_facts=(),
            small_objects={digest(content): content for content in contents},
            ladder_level=LadderLevel.L1,
        )

    def _step(self, plan: Plan, number: int, workspace: Workspace, emit: Emit) -> StepReport:
        step = plan.steps[number]
        assert isinstance(step.action, WriteFile)
        emit(StepStarted(step_id=step.step_id, kind=step.kind, stage=step.stage, target=step.action.path))
        old = node_of(workspace.root / step.action.path)
        new = Node(type=NodeType.FILE, mode=0o644, digest=digest(step.action.content), size=len(step.action.content))
        kind = ChangeKind.CREATE if old is None else ChangeKind.MODIFY
        change = Change(path=step.action.path.encode(), kind=kind, old=old, new=new)
        return StepReport(
            step_id=step.step_id,
            kind=step.kind,
            stage=step.stage,
            success=True,
            changes=(change,),
            evidence=None,
            duration_ms=0,
        )


def node_of(path: Path) -> Node | None:
    """What a plain file is now."""
    if not path.exists():
        return None
    data = path.read_bytes()
    return Node(type=NodeType.FILE, mode=path.stat().st_mode & 0o7777, digest=digest(data), size=len(data))


def find_drift(plan: Plan, report: Report, workspace: Workspace) -> tuple[bytes, ...]:
    """Compares each file that the report changes."""
    before, _ = net_states([step.changes for step in report.steps])
    return tuple(path for path, node in before.items() if node_of(workspace.root / path.decode()) != node)


@dataclass
class WritingExecutioner:
    """Writes the files that write_file steps name; `during` is called before the first."""

    during: Callable[[str], None] = ignore
    runs: list[str] = field(default_factory=list)

    def run(self, order: Order) -> Ended:
        plan, report, workspace, emit = order.plan, order.report, order.workspace, order.emit
        execution_id = order.execution_id
        self.runs.append(execution_id)
        self.during(execution_id)
        steps = []
        for step, told in zip(plan.steps, report.steps, strict=True):
            assert isinstance(step.action, WriteFile)
            emit(StepStarted(step_id=step.step_id, kind=step.kind, stage=step.stage, target=step.action.path))
            emit(CheckpointCreated(step_id=step.step_id, checkpoint_id="c1", path_count=1))
            path = workspace.root / step.action.path
            path.write_bytes(step.action.content)
            path.chmod(0o644)
            emit(
                StepCompleted(
                    step_id=step.step_id,
                    kind=step.kind,
                    stage=step.stage,
                    success=True,
                    duration_ms=0,
                    change_count=1,
                )
            )
            steps.append(step_receipt(told))
        before, after = net_states([step.changes for step in report.steps])
        emit(ExecutionCompleted(execution_id=execution_id, outcome=Outcome.SUCCESS))
        result = ExecutionResult(
            outcome=Outcome.SUCCESS,
            steps=tuple(steps),
            before=tuple(sorted(before.items())),
            after=tuple(sorted(after.items())),
            after_fingerprint=states_fingerprint(after),
            divergence_details=(),
            abort_reason="",
            errors=(),
        )
        return Ended(result=result)


def step_receipt(step: StepReport) -> StepReceipt:
    """The receipt of a step that did what its report says."""
    now = datetime.now(UTC)
    return StepReceipt(
        step_id=step.step_id,
        operation=step.kind,
        target="",
        action_type="commit",
        stage=step.stage,
        started_at=now,
        completed_at=now,
        duration_ms=0,
        precondition_met=True,
        precondition_detail="",
        expected_vs_actual_match=True,
        actual_state_change=step.changes,
        success=True,
        rollback_invoked=False,
        rollback_succeeded=False,
        error_message="",
        test_verdict=None,
    )


class Person:
    """Somebody with a key."""

    def __init__(self, name: str, *, scheme: str = SSHSIG, key: SigningKey | None = None) -> None:
        self.name = name
        self.scheme = scheme
        self.key = key or new_signing_key()

    def sign(self, media_type: str, body: bytes, *, scheme: str | None = None) -> SealedBytes:
        """Seal a body under this person's signature."""
        used = scheme or self.scheme
        raw = self.key.sign(used, media_type, body)
        signature = Signature(key_id=self.key.public.key_id, scheme=used, signature=raw)
        return SealedBytes(media_type=media_type, body=body, signatures=(signature,))


def stamp(time: datetime) -> Timestamp:
    """A time as documents carry it."""
    message = Timestamp()
    message.FromDatetime(time)
    return message


def trust_text(persons: Mapping[str, list[Person]], **policy: object) -> str:
    """The text of a trust file."""
    rules = {"approvals_required": 1, "self_approval": '"allowed"', **policy}
    lines = [
        "version = 1",
        "expires = 2100-01-01T00:00:00Z",
        f'executor_id = "{EXECUTOR_ID}"',
        'orchestrators = ["spiffe://gonogo.local/orchestrator"]',
        "[policy]",
        *(f"{name} = {value}" for name, value in rules.items()),
    ]
    for name, keys in persons.items():
        lines += ["[[persons]]", f'id = "{name}"']
        for key in keys:
            lines += [
                "[[persons.keys]]",
                f'scheme = "{key.scheme}"',
                f'public_key = "{key.key.public.line} {name}@host"',
            ]
    return "\n".join(lines) + "\n"


class House:
    """One executor and everybody around it."""

    staging: Path | None = None

    def __init__(self, root: Path, **policy: object) -> None:
        self.root = root
        self.owner = Person("owner")
        self.second = Person("second", scheme=ED25519)
        self.trust = parse_trust(trust_text(self.persons, **policy).encode())
        self.executor_key = new_signing_key()
        self.site = root / WORKSPACE_ID
        self.site.mkdir(parents=True, exist_ok=True)
        self.own = root / "executor"
        self.own.mkdir(exist_ok=True)
        self.simulator = WritingSimulator()
        self.executioner = WritingExecutioner()
        self.level = LadderLevel.L1
        self.requests = 0
        self.open()

    @property
    def persons(self) -> dict[str, list[Person]]:
        return {"owner": [self.owner], "second": [self.second]}

    def open(self) -> None:
        """Start the executor on whatever its state directory holds."""
        self.ledger = SqliteLedger(self.own / "ledger.db")
        self.workspace = Workspace(
            workspace_id=WORKSPACE_ID,
            root=self.site,
            staging=self.staging,
            locks=self.own / "locks",
            hidden=Globs(()),
            volatile=Globs(()),
        )
        self.core = self.make_core(self.trust)
        self.receipts = self.core.start()

    def capabilities(self) -> Capabilities:
        """What the self-test found."""
        return Capabilities(
            ladder_level=LadderLevel.L1,
            findings=(Finding(name="userns", ok=False, detail="off", remedy="turn it on"),),
            workspaces=(
                WorkspaceStanding(
                    workspace_id=WORKSPACE_ID, ladder_level=self.level, limitation="name a staging directory"
                ),
            ),
        )

    def make_core(self, trust: Trust, ledger: Ledger | None = None) -> ExecutorCore:
        """Compose a core, perhaps with other rules than the house's own."""
        objects = ObjectStore(self.own / "objects", self.ledger.small_object)
        workspaces = {WORKSPACE_ID: self.workspace}
        return ExecutorCore(
            Parts(
                trust=TrustInForce(self.in_force(trust)),
                ledger=ledger or self.ledger,
                documents=WireDocuments(),
                signer=DocumentSigner(self.executor_key),
                workspaces=workspaces,
                simulator=self.simulator,
                find_drift=find_drift,
                executioner=self.executioner,
                recovery=JournalRecovery(workspaces=workspaces, objects=objects, ledger=ledger or self.ledger),
                objects=objects,
                capabilities=self.capabilities(),
                **self.more_parts(),
            )
        )

    def more_parts(self) -> dict[str, Any]:
        """What a house of its own adds to the core: a clock, a spool."""
        return {}

    def in_force(self, trust: Trust | None = None) -> InForce:
        """A trust file, the house's own unless said otherwise, as the executor has it in force."""
        return in_force(trust or self.trust, WireDocuments(), DocumentSigner(self.executor_key))

    @property
    def policy_digest(self) -> str:
        """The digest of the sealed policy in force."""
        return self.in_force().policy_digest

    def with_policy(self, **changes: object) -> None:
        """Restart with another policy on the same ledger."""
        policy = dataclasses.replace(self.trust.policy, **changes)  # type: ignore[arg-type]  # a test's own rules
        self.use(dataclasses.replace(self.trust, policy=policy))

    def with_limits(self, **changes: object) -> None:
        """Restart with other limits on the same ledger."""
        limits = dataclasses.replace(self.trust.limits, **changes)  # type: ignore[arg-type]  # a test's own limits
        policy = dataclasses.replace(self.trust.policy, limits_digest=limits_digest(limits))
        self.use(dataclasses.replace(self.trust, limits=limits, policy=policy))

    def without_policy(self) -> None:
        """Restart as with a trust file that has no policy."""
        self.with_policy(approvals_required=0, rules=())

    def use(self, trust: Trust) -> None:
        """Restart under another trust file."""
        self.close()
        self.trust = trust
        self.open()

    def close(self) -> None:
        """Stop the executor."""
        self.core.close()
        self.ledger.close()
        self.workspace.close()

    def plan(self, *, mission: str = "m-1", path: str = "hello.txt", content: str = "hello\n") -> plan_pb2.Plan:
        """A plan that writes one file."""
        return plan_pb2.Plan(
            plan_id=f"p-{mission}",
            mission_id=mission,
            intent_id=f"i-{mission}",
            message_id="msg-1",
            objective="write a greeting",
            workspace_id=WORKSPACE_ID,
            executor_id=EXECUTOR_ID,
            proposer="owner",
            created_at=stamp(datetime.now(UTC)),
            scope=plan_pb2.Scope(
                paths=["**"], network=plan_pb2.NETWORK_ACCESS_NONE, max_pages=1, max_duration_seconds=30
            ),
            failure_policy=plan_pb2.FAILURE_POLICY_ROLL_BACK,
            steps=[
                plan_pb2.Step(
                    step_id="s1",
                    description="write it",
                    stage=plan_pb2.STAGE_EDIT,
                    write_file=plan_pb2.WriteFile(path=path, content=content),
                )
            ],
        )

    def sealed_plan(self, plan: plan_pb2.Plan | None = None, *, by: Person | None = None) -> SealedBytes:
        """Seal a plan, perhaps signed by its proposer."""
        # The library writes what `seal` refuses: a forger's plan need not be whole.
        value = json_format.MessageToDict(plan or self.plan(), preserving_proto_field_name=True)
        body = json.dumps(value).encode()
        return by.sign(sealing.PLAN, body) if by else SealedBytes(media_type=sealing.PLAN, body=body)

    def next_request(self) -> str:
        """A new request id."""
        self.requests += 1
        return f"q-{self.requests}"

    def dry_run(self, plan: SealedBytes, request_id: str = "") -> SealedBytes:
        """Have the executor dry run a plan."""
        return self.core.dry_run(request_id or self.next_request(), plan, ignore)

    def approval(
        self, plan: SealedBytes, report: SealedBytes, *, by: Person | None = None, **changes: object
    ) -> evidence_pb2.Approval:
        """What an honest client writes into an approval, with some of it changed."""
        person = by or self.owner
        told = sealing.open_sealed(report.body, evidence_pb2.Report)
        now = datetime.now(UTC)
        values: dict[str, object] = {
            "approval_id": f"a-{digest(report.body + person.name.encode())[7:27]}",
            "mission_id": told.mission_id,
            "intent_id": told.intent_id,
            "plan_id": told.plan_id,
            "plan_digest": plan.digest,
            "report_id": told.report_id,
            "report_digest": report.digest,
            "executor_id": told.executor_id,
            "workspace_id": told.workspace_id,
            "approver": person.name,
            "decision": evidence_pb2.DECISION_APPROVE,
            "approved_at": stamp(now),
            "not_before": stamp(now),
            "expires_at": stamp(now + timedelta(hours=1)),
            "nonce": f"n-{digest(report.body + person.name.encode())[7:27]}",
            "policy_digest": told.policy_digest,
            **changes,
        }
        return evidence_pb2.Approval(**values)  # type: ignore[arg-type]  # a test may write anything

    def approve(
        self, plan: SealedBytes, report: SealedBytes, *, by: Person | None = None, **changes: object
    ) -> SealedBytes:
        """Sign an approval."""
        body = sealing.seal(self.approval(plan, report, by=by, **changes))
        return (by or self.owner).sign(sealing.APPROVAL, body)

    def revocation(
        self,
        *,
        by: Person | None = None,
        mission: str = "m-1",
        kind: evidence_pb2.RevocationKind.ValueType = evidence_pb2.REVOCATION_KIND_WITHDRAW,
        **changes: object,
    ) -> SealedBytes:
        """Sign a revocation, with some of it changed."""
        person = by or self.owner
        values: dict[str, object] = {
            "revocation_id": f"rv-{self.next_request()}",
            "executor_id": EXECUTOR_ID,
            "mission_id": mission,
            "kind": kind,
            "person": person.name,
            "reason": "second thoughts",
            "revoked_at": stamp(datetime.now(UTC)),
            "nonce": f"n-{self.next_request()}",
            **changes,
        }
        body = sealing.seal(evidence_pb2.Revocation(**values))  # type: ignore[arg-type]  # a test may write anything
        return person.sign(sealing.REVOCATION, body)

    def request(
        self, plan: SealedBytes, report: SealedBytes | None, *approvals: SealedBytes, **named: str
    ) -> ExecuteInput:
        """What an honest orchestrator sends, with some of the ids changed."""
        told = sealing.open_sealed(plan.body, plan_pb2.Plan)
        ids = {
            "mission_id": told.mission_id,
            "intent_id": told.intent_id,
            "workspace_id": told.workspace_id,
            "executor_id": told.executor_id,
            **named,
        }
        return ExecuteInput(
            request_id=self.next_request(), plan=plan, report=report, approvals=approvals, named=NamedIds(**ids)
        )

    def ready(self, **plan: str) -> ExecuteInput:
        """A request that every gate lets pass."""
        sealed = self.sealed_plan(self.plan(**plan))
        report = self.dry_run(sealed)
        return self.request(sealed, report, self.approve(sealed, report))

    def execute(self, request: ExecuteInput) -> Progress:
        """Have the executor execute, and see how it stands then."""
        attached: list[AnyRun] = []
        run = self.core.execute(request, attached.append)
        assert attached == [run]
        return run.progress(0)

    def files(self) -> dict[str, bytes]:
        """The whole workspace, byte for byte."""
        return {path.name: path.read_bytes() for path in self.site.iterdir()}
