"""Both audit logs of the simulated services: what they keep of the missions that the simulator holds in memory."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from client.bundle import log_part
from client.mission_state import MissionState
from client.proving.events import read_event
from client.proving.facts import facts_of
from client.proving.replay import replayed
from gonogo import policy as rules
from gonogo import sealing
from gonogo.digests import digest
from gonogo.notes import EXECUTOR, ORCHESTRATOR, log_origin
from gonogo.policy_document import demand_to_proto, proposer_to_proto, seal_policy
from gonogo.signatures import ED25519, SSHSIG, PublicKey, SigningKey
from gonogo.v1 import audit_pb2, events_pb2, evidence_pb2, orchestrator_pb2, plan_pb2, sealed_pb2
from tests.unit.client.log_house import LogHouse
from tests.unit.client.proof_parts import (
    event_leaf,
    execution_leaves,
    gate_records,
    granted,
    leaf_text,
    report_leaf,
    revocation_leaf,
    signature,
)

NOBODY = rules.Proposer()
MISSION_STATUSES = events_pb2.MissionStatus
Told = list[tuple[str, Message]]


class SimulatedAudit:
    """A policy of one person, and both logs."""

    def __init__(self, executor_id: str, executor: SigningKey, orchestrator: SigningKey, approver: PublicKey) -> None:
        self.executor = LogHouse(log_origin(EXECUTOR, executor_id), executor)
        self.orchestrator = LogHouse(log_origin(ORCHESTRATOR, "simulated"), orchestrator)
        key = rules.Key(key_id=approver.key_id, scheme=SSHSIG, public_key=approver.line)
        self.rules = rules.Policy(
            executor_id=executor_id,
            trust_version=1,
            expires_at=datetime.now(UTC) + timedelta(days=1),
            approvals_required=1,
            self_approval=True,
            max_approval_seconds=86_400,
            persons=(rules.Person(person_id="owner", keys=(key,)),),
        )
        body = seal_policy(self.rules)
        made = signature(sealing.POLICY, body, executor, ED25519)
        self.policy = sealed_pb2.Sealed(media_type=sealing.POLICY, body=body, signatures=[made])
        self._leaves: dict[str, list[int]] = {}
        self._events: dict[str, list[int]] = {}

    @property
    def policy_digest(self) -> str:
        return digest(self.policy.body)

    def decide_report(self, plan: plan_pb2.Plan, report: evidence_pb2.Report) -> None:
        """Say what the policy demands of a report's approvals."""
        report.completed_at.GetCurrentTime()
        report.policy_digest = self.policy_digest
        report.proposer.CopyFrom(proposer_to_proto(NOBODY))
        report.demand.CopyFrom(self._demand(plan, report, report.completed_at))

    def decide_receipt(self, plan: plan_pb2.Plan, report: evidence_pb2.Report, receipt: evidence_pb2.Receipt) -> None:
        """Say what the policy demanded at the claim, and what the gates saw."""
        receipt.started_at.GetCurrentTime()
        receipt.completed_at.GetCurrentTime()
        receipt.self_approval = report.self_approval
        receipt.ledger_epoch, receipt.base_fingerprint = report.ledger_epoch, report.base_fingerprint
        receipt.policy_digest = self.policy_digest
        receipt.proposer.CopyFrom(proposer_to_proto(NOBODY))
        receipt.demand.CopyFrom(self._demand(plan, report, receipt.started_at))
        receipt.gates.extend(gate_records(receipt, report))

    def record_report(self, sealed: sealed_pb2.Sealed, report: evidence_pb2.Report) -> None:
        self._record(report.mission_id, [report_leaf(sealed, report)])

    def record_execution(self, sealed: sealed_pb2.Sealed, receipt: evidence_pb2.Receipt) -> None:
        self._record(receipt.mission_id, execution_leaves(sealed, receipt))

    def record_revocation(self, mission_id: str, person: str, kind: str) -> None:
        """Have somebody take an approval back, or deny."""
        leaf = revocation_leaf(mission_id, person, kind)
        self._record(mission_id, [leaf])

    def executor_extract(self, mission_id: str) -> audit_pb2.LogExtract:
        return self.executor.extract(self._leaves.get(mission_id, []))

    def orchestrator_extract(
        self, documents: orchestrator_pb2.GetMissionResponse
    ) -> tuple[audit_pb2.LogExtract, MissionState]:
        """Record what the documents tell that is not recorded yet, and return it with where the mission stands."""
        mission_id = documents.mission.mission_id
        places = self._events.setdefault(mission_id, [])
        for version, (name, payload) in enumerate(_told(documents), 1):
            if version > len(places):
                place = self.orchestrator.size
                leaf = event_leaf(place, f"mission/{mission_id}", version, name, payload, float(place), "simulator")
                places.append(self.orchestrator.append(leaf))
        part = log_part(self.orchestrator.extract(places))
        assert part is not None
        state = replayed(mission_id, [read_event(leaf) for leaf in part.leaves])
        return self.orchestrator.extract(places), state

    def log(self, request: orchestrator_pb2.GetLogRequest) -> orchestrator_pb2.GetLogResponse:
        """Answer for the newest checkpoint of a log."""
        log = self.executor if request.log == orchestrator_pb2.AUDIT_LOG_EXECUTOR else self.orchestrator
        if request.known_size > log.size:  # a log that went back has nothing to show
            return orchestrator_pb2.GetLogResponse(checkpoint=log.checkpoint(), public_key=log.key.public.line)
        return orchestrator_pb2.GetLogResponse(
            checkpoint=log.checkpoint(),
            consistency=log.consistency(request.known_size),
            public_key=log.key.public.line,
        )

    def _demand(self, plan: plan_pb2.Plan, report: evidence_pb2.Report, at: Timestamp) -> evidence_pb2.Demand:
        facts = facts_of(plan, report, proposer=NOBODY, at=at.ToDatetime(tzinfo=UTC))
        return demand_to_proto(rules.demand_of(self.rules, facts))

    def _record(self, mission_id: str, leaves: Sequence[Mapping[str, object]]) -> None:
        places = self._leaves.setdefault(mission_id, [])
        places += [self.executor.append(leaf_text(leaf)) for leaf in leaves]


def said(documents: orchestrator_pb2.GetMissionResponse, state: MissionState) -> orchestrator_pb2.Mission:
    """Return the mission with all that its events say of it."""
    mission = orchestrator_pb2.Mission()
    mission.CopyFrom(documents.mission)
    mission.proposer, mission.last_sequence = state.proposer, state.last_sequence
    mission.created_at.FromJsonString(state.created_at)
    mission.updated_at.FromJsonString(state.updated_at)
    if state.report_status:
        mission.report_status = evidence_pb2.ReportStatus.Value(f"REPORT_STATUS_{state.report_status.upper()}")
    if state.outcome:
        mission.outcome = evidence_pb2.Outcome.Value(f"OUTCOME_{state.outcome.upper()}")
    mission.status = MISSION_STATUSES.Value(f"MISSION_STATUS_{state.status.upper()}")
    return mission


def _told(documents: orchestrator_pb2.GetMissionResponse) -> Told:
    """Return the events that lead to a mission's documents."""
    plan = sealing.open_sealed(documents.plan.body, plan_pb2.Plan)
    steps = [events_pb2.PlannedStep(step_id=one.step_id, kind=one.WhichOneof("action") or "") for one in plan.steps]
    told: Told = [
        (
            "mission_proposed",
            events_pb2.MissionProposed(
                intent_id=plan.intent_id,
                objective=plan.objective,
                workspace_id=plan.workspace_id,
                executor_id=plan.executor_id,
                proposer=plan.proposer,
            ),
        ),
        (
            "plan_sealed",
            events_pb2.PlanSealed(plan_id=plan.plan_id, plan_digest=digest(documents.plan.body), steps=steps),
        ),
    ]
    if documents.report.body:
        report = sealing.open_sealed(documents.report.body, evidence_pb2.Report)
        completed = events_pb2.DryRunCompleted(
            report_id=report.report_id,
            report_digest=digest(documents.report.body),
            status=report.status,
            risk=report.risk.level,
        )
        told += [("dry_run_started", events_pb2.DryRunStarted()), ("dry_run_completed", completed)]
    told += [("approval_granted", granted(sealed)) for sealed in documents.approvals]
    if documents.approvals:
        told.append(("mission_approved", events_pb2.MissionApproved()))
    return told + (_ending(documents) if documents.receipt.body else [])


def _ending(documents: orchestrator_pb2.GetMissionResponse) -> Told:
    receipt = sealing.open_sealed(documents.receipt.body, evidence_pb2.Receipt)
    execution, outcome = receipt.execution_id, receipt.execution_status
    issued = events_pb2.ReceiptIssued(
        receipt_id=receipt.receipt_id, receipt_digest=digest(documents.receipt.body), execution_id=execution
    )
    end: tuple[str, Message] = ("mission_completed", events_pb2.MissionCompleted())
    if outcome != evidence_pb2.OUTCOME_SUCCESS:
        end = ("mission_failed", events_pb2.MissionFailed(outcome=outcome))
    return [
        ("mission_started", events_pb2.MissionStarted()),
        ("execution_started", events_pb2.ExecutionStarted(execution_id=execution)),
        ("execution_completed", events_pb2.ExecutionCompleted(execution_id=execution, outcome=outcome)),
        ("receipt_issued", issued),
        end,
    ]
