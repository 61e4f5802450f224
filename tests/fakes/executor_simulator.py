"""An executor in memory: the `Executor` port with real seals, real signatures and a ledger, over a made-up workspace.

It keeps the gates' order and gives signed refusals. Switches make it do what a real one does on a bad day: be away,
break a stream, work slowly, end with any outcome.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime

from gonogo import sealing
from gonogo.digests import digest
from gonogo.notes import EXECUTOR, log_origin
from gonogo.policy import (
    Demand,
    Facts,
    Group,
    Key,
    Person,
    Policy,
    Proposer,
    ProposerKind,
    Rule,
    Vote,
    decide,
    demand_of,
)
from gonogo.policy_document import demand_to_proto, proposer_to_proto, seal_policy
from gonogo.signatures import SignatureError, new_signing_key
from gonogo.v1 import evidence_pb2, plan_pb2
from orchestrator.domain import events as ev
from orchestrator.domain.control import ExecutionState, LiveProcess
from orchestrator.domain.errors import ExecutorRefusedError, ExecutorUnavailableError, Reason
from orchestrator.domain.events import ControlAction
from orchestrator.domain.evidence import (
    ExecutorInfo,
    Outcome,
    Sealed,
    SelfApproval,
    TrustedPerson,
    WorkspaceInfo,
)
from orchestrator.domain.plan import LadderLevel
from orchestrator.service.audit_log import Exchanged, LogExtract
from orchestrator.service.ports import ControlOrder, ExecutionOrder, ExecutionUpdate, ObjectPart
from tests.fakes.approvers import Approver, check_signature, is_hardware, sealed, timestamp
from tests.fakes.simulated_executions import SimulatedExecution, change, refused
from tests.fakes.simulated_log import SimulatedLog

__all__ = ["EXECUTOR_ID", "Approver", "ExecutorSimulator"]

EXECUTOR_ID = "executor-5im00001"
GATES = {
    Reason.REPORT_UNKNOWN: 1,
    Reason.SIMULATION_FAILED: 2,
    Reason.NOT_APPROVED: 3,
    Reason.QUORUM_NOT_MET: 3,
    Reason.SELF_APPROVAL: 3,
    Reason.POLICY_REFUSES: 3,
    Reason.HARDWARE_KEY_NEEDED: 3,
    Reason.SIGNATURE_INVALID: 3,
    Reason.APPROVAL_EXPIRED: 3,
    Reason.PLAN_MISMATCH: 4,
    Reason.MISSION_MISMATCH: 5,
    Reason.BASE_DRIFTED: 6,
    Reason.ALREADY_EXECUTED: 7,
    Reason.ALREADY_CLAIMED: 7,
}


class ExecutorSimulator:
    """See the module."""

    def __init__(
        self, *approvers: Approver, workspaces: tuple[str, ...] = ("site",), approvals_required: int = 1
    ) -> None:
        self.key = new_signing_key()
        self.persons = tuple(approver.trusted() for approver in approvers)
        self.workspaces = workspaces
        self.approvals_required = approvals_required
        self.self_approval = SelfApproval.ALLOWED
        self.trust_version = 1
        self.proposers: tuple[Person, ...] = ()
        """Whom the policy lists besides those who approve."""
        self.groups: tuple[Group, ...] = ()
        self.rules: tuple[Rule, ...] = ()
        self.says_demand = True
        """Cleared: reports are as those of an older executor."""
        self.base = 1
        self.away = False
        self.loses_answers = False
        """Set: what is asked for is done, and the connection breaks before the answer."""
        self.report_status = evidence_pb2.REPORT_STATUS_SUCCESS
        self.outcome = Outcome.SUCCESS
        self.break_after: int | None = None
        """Break each stream once after so many events, the execution going on."""
        self.gate_open = asyncio.Event()
        self.gate_open.set()
        """Cleared: executions wait after their first event."""
        self.dry_run_open = asyncio.Event()
        self.dry_run_open.set()
        self.objects: dict[str, bytes] = {}
        """Objects by digest, where a test wants other bytes than made-up ones."""
        self.reports: dict[str, tuple[Sealed, int]] = {}
        self.ledger: dict[str, SimulatedExecution] = {}
        self.pauses: tuple[ev.ExecutionPaused, ...] = ()
        """What the executions that are claimed from now on wait for, one before each of their steps."""
        self.controls: dict[str, ControlOrder] = {}
        """What was done, by request id."""
        self.running: dict[str, LiveProcess] = {}
        """Programs that keep running, by id."""
        self.log = SimulatedLog(log_origin(EXECUTOR, EXECUTOR_ID), self.key)
        self.calls: list[str] = []
        self.requests: list[str] = []
        self._numbers = itertools.count(1)

    @property
    def policy(self) -> Sealed:
        """The policy in force, sealed."""
        return sealed(sealing.POLICY, seal_policy(self.in_force), self.key)

    @property
    def in_force(self) -> Policy:
        """The policy; it changes with the switches."""
        return Policy(
            executor_id=EXECUTOR_ID,
            trust_version=self.trust_version,
            expires_at=datetime(2100, 1, 1, tzinfo=UTC),
            approvals_required=self.approvals_required,
            self_approval=self.self_approval is SelfApproval.ALLOWED,
            max_approval_seconds=86400,
            persons=(*(self._approving(one) for one in self.persons), *self.proposers),
            groups=self.groups,
            rules=self.rules,
        )

    def _approving(self, person: TrustedPerson) -> Person:
        keys = (
            Key(
                key_id=key.key_id,
                scheme=key.scheme,
                public_key=key.public_key,
                hardware=is_hardware(key.public_key),
            )
            for key in person.keys
        )
        return Person(person_id=person.person, keys=tuple(keys))

    async def describe(self) -> ExecutorInfo:
        self._called("describe")
        return ExecutorInfo(
            executor_id=EXECUTOR_ID,
            public_key=self.key.public.line,
            ledger_epoch="epoch-1",
            ladder_level=LadderLevel.L3,
            findings=(),
            workspaces=tuple(
                WorkspaceInfo(workspace_id=name, ladder_level=LadderLevel.L3, limitation="") for name in self.workspaces
            ),
            persons=self.persons,
            approvals_required=self.approvals_required,
            self_approval=self.self_approval,
            max_approval_seconds=86400,
            policy_digest=self.policy.digest,
            policy=self.policy,
            log_origin=self.log.origin,
            version="0.1.0",
            max_content_bytes=1 << 20,
            report_seconds=604_800,
            checkpoint_seconds=604_800,
        )

    async def dry_run(self, request_id: str, plan: Sealed) -> Sealed:
        self._called("dry_run")
        self.requests.append(request_id)
        await self.dry_run_open.wait()
        said = sealing.open_sealed(plan.body, plan_pb2.Plan)
        report = self._report(said, plan)
        self.reports[report.digest] = (report, self.base)
        self.log.add("report_issued", said.mission_id, report.digest)
        return report

    def execute(self, order: ExecutionOrder) -> AsyncGenerator[ExecutionUpdate, None]:
        return self._execute(order)

    def watch(self, mission_id: str, resume_token: str) -> AsyncGenerator[ExecutionUpdate, None]:
        return self._watch(mission_id, resume_token)

    async def execution(self, mission_id: str) -> ExecutionState | None:
        self._called("execution")
        held = self.ledger.get(mission_id)
        if held is None:
            return None
        return held.state

    async def control(self, order: ControlOrder) -> ExecutionState:
        self._called("control")
        self.requests.append(order.request_id)
        known = self.controls.get(order.request_id)
        if known is not None and known != order:
            raise refused(Reason.REQUEST_REUSED, "the request id belongs to another request")
        held = self.ledger.get(order.mission_id)
        if held is None:
            raise refused(Reason.NOT_FOUND, "no such execution")
        if known is None:
            self._do(held, order)
            self.controls[order.request_id] = order
        if self.loses_answers:
            raise _unavailable()
        return held.state

    def _do(self, held: SimulatedExecution, order: ControlOrder) -> None:
        if held.paused is None and not self.gate_open.is_set() and order.action is ControlAction.PAUSE:
            held.pause_unseen(order)
        else:
            held.control(order)

    async def processes(self, mission_id: str) -> tuple[LiveProcess, ...]:
        self._called("processes")
        return tuple(one for one in self.running.values() if mission_id in {"", one.mission_id})

    async def stop_process(self, request_id: str, process_id: str, actor: str) -> LiveProcess:
        self._called("stop_process")
        self.requests.append(request_id)
        if process_id not in self.running:
            raise refused(Reason.NOT_FOUND, "no such program")
        self.running[process_id] = replace(self.running[process_id], running=False, ended=f"stopped by {actor}")
        return self.running[process_id]

    async def read_object(self, digest: str, offset: int, limit: int) -> ObjectPart:
        self._called("read_object")
        data = self.objects.get(digest, b"object " + digest.encode())
        return ObjectPart(data=data[offset : offset + limit], total_bytes=len(data))

    async def exchange(self, checkpoint: str, consistency: tuple[bytes, ...], known_size: int) -> Exchanged:
        self._be_there()
        return self.log.exchange(checkpoint, consistency, known_size)

    async def mission_log(self, mission_id: str) -> LogExtract | None:
        self._be_there()
        return self.log.extract(mission_id)

    def claim(self, order: ExecutionOrder) -> None:
        """Claim and run a mission without anybody listening: what is left when a caller dies right after its call."""
        self._check(order)
        self._claim(order)

    async def _execute(self, order: ExecutionOrder) -> AsyncGenerator[ExecutionUpdate, None]:
        self._called("execute")
        held = self.ledger.get(order.mission_id)
        if held is None or not held.took(order):
            self._check(order)
            held = self._claim(order)
        if self.loses_answers:
            raise _unavailable()
        async for update in self._stream(held, 0):
            yield update

    async def _watch(self, mission_id: str, token: str) -> AsyncGenerator[ExecutionUpdate, None]:
        self._called("watch")
        held = self.ledger.get(mission_id)
        if held is None:
            raise ExecutorRefusedError(Reason.NOT_FOUND, "no such execution", "Execute the mission.")
        async for update in self._stream(held, int(token or 0)):
            yield update

    async def _stream(self, held: SimulatedExecution, after: int) -> AsyncGenerator[ExecutionUpdate, None]:
        if after == 0 and not self.gate_open.is_set():
            yield ExecutionUpdate(events=tuple(held.events[:1]), resume_token="1")
            after = 1
        await self.gate_open.wait()
        if self.break_after is not None and after < self.break_after:
            part, until = self.break_after, self.break_after
            self.break_after = None
            yield ExecutionUpdate(events=tuple(held.events[after:part]), resume_token=str(until))
            raise _unavailable()
        while True:
            changed, until = held.changed, len(held.events)
            yield ExecutionUpdate(events=tuple(held.events[after:until]), resume_token=str(until), receipt=held.receipt)
            if held.receipt is not None:
                return
            after = until
            await changed.wait()

    def _called(self, name: str) -> None:
        self.calls.append(name)
        self._be_there()

    def _be_there(self) -> None:
        if self.away:
            raise _unavailable()

    def _check(self, order: ExecutionOrder) -> None:
        held = self.ledger.get(order.mission_id)
        if held is not None and not (held.paused is not None and _segment(order)):
            raise self._refusal(order, Reason.ALREADY_EXECUTED, "Mission has already been executed")
        issued = self.reports.get(order.report.digest)
        if issued is None:
            raise self._refusal(order, Reason.REPORT_UNKNOWN, "this executor issued no such report")
        report = sealing.open_sealed(order.report.body, evidence_pb2.Report)
        if report.status != evidence_pb2.REPORT_STATUS_SUCCESS:
            raise self._refusal(order, Reason.SIMULATION_FAILED, "the dry run failed")
        self._check_approvals(order, report)
        if report.plan_digest != order.plan.digest:
            raise self._refusal(order, Reason.PLAN_MISMATCH, "the report is for another plan")
        if issued[1] != self.base:
            raise self._refusal(order, Reason.BASE_DRIFTED, "the workspace is not what the report was made from")

    def _check_approvals(self, order: ExecutionOrder, report: evidence_pb2.Report) -> None:
        votes = []
        for approval in order.approvals:
            said = sealing.open_sealed(approval.body, evidence_pb2.Approval)
            self._check_signature(order, approval, said.approver)
            if said.report_digest == order.report.digest and said.plan_digest == report.plan_digest:
                votes.append(self._vote(said.approver, approval.signatures[0].key_id))
        plan = sealing.open_sealed(order.plan.body, plan_pb2.Plan)
        proposer = self._proposer(order.plan)
        verdict = decide(self.in_force, self._demand(plan, proposer), proposer, votes)
        if not verdict.met:
            raise self._refusal(order, Reason(verdict.reason), verdict.message)
        if report.policy_digest != self.policy.digest:
            raise self._refusal(order, Reason.NOT_APPROVED, "the trust file changed since the dry run")

    def _vote(self, person: str, key_id: str) -> Vote:
        known = {key.key_id: key.hardware for one in self.in_force.persons for key in one.keys}
        return Vote(person=person, key_id=key_id, hardware=known[key_id])

    def _demand(self, plan: plan_pb2.Plan, proposer: Proposer) -> Demand:
        facts = Facts(
            step_kinds=frozenset(step.WhichOneof("action") or "" for step in plan.steps),
            risk_facts=frozenset(),
            risk="low",
            workspace_id=plan.workspace_id,
            changes=len(plan.steps),
            size=len(plan.steps),
            at=datetime.now(UTC),
            proposer=proposer,
            steps=tuple((step.step_id, step.WhichOneof("action") or "") for step in plan.steps),
        )
        return demand_of(self.in_force, facts)

    def _proposer(self, plan: Sealed) -> Proposer:
        for signature in plan.signatures:
            for person in self.in_force.persons:
                for key in person.keys:
                    if key.key_id == signature.key_id:
                        check_signature(plan, signature, key.public_key)
                        return Proposer(
                            kind=ProposerKind(person.kind.value), person=person.person_id, sponsor=person.sponsor
                        )
        return Proposer()

    def _check_signature(self, order: ExecutionOrder, approval: Sealed, approver: str) -> None:
        signature = approval.signatures[0]
        keys = [key for person in self.persons if person.person == approver for key in person.keys]
        try:
            check_signature(approval, signature, next(key for key in keys if key.key_id == signature.key_id).public_key)
        except (StopIteration, SignatureError):
            raise self._refusal(order, Reason.SIGNATURE_INVALID, "a signature does not hold") from None

    def _claim(self, order: ExecutionOrder) -> SimulatedExecution:
        held = self.ledger.get(order.mission_id)
        self.log.add("claimed", order.mission_id, order.report.digest)
        if held is not None:
            held.repair(order)
            return held
        held = SimulatedExecution(
            order,
            execution_id=f"x-{next(self._numbers):04d}",
            outcome=self.outcome,
            pauses=self.pauses,
            executor_id=EXECUTOR_ID,
            key=self.key,
            on_end=self._ended,
        )
        self.ledger[order.mission_id] = held
        return held

    def _ended(self, held: SimulatedExecution) -> None:
        assert held.receipt is not None
        self.log.add("ended", held.mission_id, held.receipt.digest)
        self.base += 1 if held.outcome is Outcome.SUCCESS else 0

    def _report(self, plan: plan_pb2.Plan, of: Sealed) -> Sealed:
        now = timestamp(datetime.now(UTC))
        good = self.report_status == evidence_pb2.REPORT_STATUS_SUCCESS
        report = evidence_pb2.Report(
            report_id=f"r-{next(self._numbers):04d}",
            mission_id=plan.mission_id,
            intent_id=plan.intent_id,
            plan_id=plan.plan_id,
            plan_digest=of.digest,
            workspace_id=plan.workspace_id,
            executor_id=EXECUTOR_ID,
            ledger_epoch="epoch-1",
            nonce="once",
            status=self.report_status,
            problems=[] if good else [evidence_pb2.Problem(reason="STEP_FAILED", message="a step failed")],
            started_at=now,
            completed_at=now,
            ladder_level=plan_pb2.LADDER_LEVEL_L3,
            self_approval=evidence_pb2.SELF_APPROVAL_ALLOWED,
            policy_digest=self.policy.digest,
            base_fingerprint=digest(b"base %d" % self.base),
            after_fingerprint=digest(b"after"),
            steps=[
                evidence_pb2.StepReport(
                    step_id=step.step_id,
                    kind=step.WhichOneof("action") or "",
                    stage=step.stage,
                    success=good,
                    changes=[change(f"{step.step_id}.txt")],
                )
                for step in plan.steps
            ],
            risk=evidence_pb2.Risk(level=evidence_pb2.RISK_LEVEL_LOW),
        )
        if self.says_demand:
            proposer = self._proposer(of)
            report.proposer.CopyFrom(proposer_to_proto(proposer))
            report.demand.CopyFrom(demand_to_proto(self._demand(plan, proposer)))
        return sealed(sealing.REPORT, sealing.seal(report), self.key)

    def _refusal(self, order: ExecutionOrder, reason: Reason, message: str) -> ExecutorRefusedError:
        remedy = "Dry-run the mission again."
        document = evidence_pb2.Refusal(
            refusal_id=f"rf-{next(self._numbers):04d}",
            mission_id=order.mission_id,
            plan_digest=order.plan.digest,
            report_digest=order.report.digest,
            executor_id=EXECUTOR_ID,
            gate=GATES[reason],
            abort_reason=reason.value,
            message=message,
            remedy=remedy,
            paths=["notes.txt"] if reason is Reason.BASE_DRIFTED else [],
            refused_at=timestamp(datetime.now(UTC)),
        )
        refusal = sealed(sealing.REFUSAL, sealing.seal(document), self.key)
        self.log.add("refused", order.mission_id, refusal.digest)
        return ExecutorRefusedError(reason, message, remedy, refusal=refusal)


def _segment(order: ExecutionOrder) -> int:
    return sealing.open_sealed(order.plan.body, plan_pb2.Plan).segment


def _unavailable() -> ExecutorUnavailableError:
    return ExecutorUnavailableError(
        Reason.EXECUTOR_UNAVAILABLE, "the executor can not be reached", "Start it, then try again."
    )
