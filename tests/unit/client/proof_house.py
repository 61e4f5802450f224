"""One mission from message to receipt, with both audit logs, sealed and signed by keys that are made here.

It is honest unless a test edits something: an edit changes a document before it is sealed and signed, so that the
insider who holds the key is the one who lies, and every digest, signature and leaf that depends on it still agrees.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from client.bundle import Bundle, Continuity, log_part, sealed_text
from client.changes import net_states, states_fingerprint
from client.mission_state import MissionState
from client.proving.anchors import Anchors
from client.proving.events import read_event
from client.proving.facts import facts_of
from client.proving.replay import replayed
from gonogo import policy as rules
from gonogo import sealing
from gonogo.digests import digest
from gonogo.notes import EXECUTOR, ORCHESTRATOR, log_origin
from gonogo.policy_document import demand_to_proto, proposer_to_proto, seal_policy
from gonogo.signatures import ED25519, SSHSIG, SigningKey, new_signing_key
from gonogo.v1 import events_pb2, evidence_pb2, plan_pb2, sealed_pb2
from tests.unit.client.log_house import LogHouse
from tests.unit.client.proof_parts import (
    START,
    after,
    event_leaf,
    execution_leaves,
    gate_records,
    granted,
    leaf_text,
    refusal_leaf,
    report_leaf,
    signature,
    snapshots,
    stamp,
)

EXECUTOR_ID = "executor-house"
MISSION = "m-" + "0" * 19 + "1"
OLD, NEW = b"old\n", b"new content\n"

AGENT = rules.Proposer(kind=rules.ProposerKind.AGENT, person="agent", sponsor="olga")
Edits = Mapping[str, Callable[[Any], Any]]


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Everybody's keys."""

    executor: SigningKey = field(default_factory=new_signing_key)
    orchestrator: SigningKey = field(default_factory=new_signing_key)
    alice: SigningKey = field(default_factory=new_signing_key)
    bob: SigningKey = field(default_factory=new_signing_key)
    olga: SigningKey = field(default_factory=new_signing_key)
    agent: SigningKey = field(default_factory=new_signing_key)


def key_of(key: SigningKey, scheme: str, use: rules.KeyUse = rules.KeyUse.APPROVE) -> rules.Key:
    return rules.Key(key_id=key.public.key_id, scheme=scheme, public_key=key.public.line, use=use)


def house_policy(keys: Keys) -> rules.Policy:
    """Return a policy of four: an agent for Olga, and two of alice, bob and olga must approve what deletes."""
    return rules.Policy(
        executor_id=EXECUTOR_ID,
        trust_version=3,
        expires_at=after(86_400),
        approvals_required=1,
        self_approval=False,
        max_approval_seconds=7_200,
        persons=(
            rules.Person(
                person_id="agent",
                kind=rules.PersonKind.AGENT,
                sponsor="olga",
                keys=(key_of(keys.agent, ED25519, rules.KeyUse.PROPOSE),),
            ),
            rules.Person(person_id="alice", keys=(key_of(keys.alice, SSHSIG),)),
            rules.Person(person_id="bob", keys=(key_of(keys.bob, ED25519),)),
            rules.Person(person_id="olga", keys=(key_of(keys.olga, SSHSIG),)),
        ),
        groups=(rules.Group(group_id="sre", members=("alice", "olga")),),
        rules=(
            rules.Rule(
                rule_id="deleting",
                when=rules.Condition(step_kinds=("delete_path",)),
                require=(rules.Requirement(count=1, group="sre"),),
                max_approval_seconds=3_600,
                min_ladder_level=2,
            ),
        ),
        labels={"site": ("prod",)},
        limits_digest=digest(b"limits"),
    )


def node(data: bytes) -> evidence_pb2.NodeState:
    return evidence_pb2.NodeState(
        type=evidence_pb2.NODE_TYPE_FILE, mode="0644", digest=digest(data), size=str(len(data))
    )


CHANGES = (
    evidence_pb2.Change(path="a.txt", kind=evidence_pb2.CHANGE_KIND_MODIFY, old=node(OLD), new=node(NEW)),
    evidence_pb2.Change(path="b.txt", kind=evidence_pb2.CHANGE_KIND_DELETE, old=node(OLD)),
)


class ProofHouse:
    """Everything about the mission. `edits` are by name: see where `_edited` is called."""

    def __init__(self, keys: Keys | None = None, edits: Edits | None = None) -> None:
        self.keys = keys or Keys()
        self._edits = dict(edits or {})
        self.executor_log = LogHouse(log_origin(EXECUTOR, EXECUTOR_ID), self.keys.executor)
        self.orchestrator_log = LogHouse(log_origin(ORCHESTRATOR, "house"), self.keys.orchestrator)
        self.rules: rules.Policy = self._edited("rules", house_policy(self.keys))
        self.policy = self._sealed(sealing.POLICY, seal_policy(self.rules), self.keys.executor)
        self.plan = self._plan()
        self.earlier_report = self._report("r-0", 10)
        self.refusal = self._refusal()
        self.report = self._report("r-1", 100)
        self._record_earlier()
        self.seen = self.executor_log.checkpoint()
        self.approvals = [
            self._approval("alice", self.keys.alice, SSHSIG, 110),
            self._approval("bob", self.keys.bob, ED25519, 120),
        ]
        self.receipt = self._receipt()
        self._record_execution()
        self._record_events()

    def bundle(self) -> Bundle:
        """Return the mission's bundle as an honest export makes it."""
        executor, orchestrator = self.executor_log, self.orchestrator_log
        executor.append('{"type":"epoch_started","mission_id":"","at_us":1}')
        kept = executor.size - 2
        continuity = [
            self._continuity(executor, kept, executor.size),
            self._continuity(executor, self.seen_size, executor.size),
        ]
        size = orchestrator.size - 1
        plan = sealed_text(self.plan)
        assert plan is not None
        return Bundle(
            mission=self.mission,
            plan=plan,
            policy=sealed_text(self.policy),
            report=sealed_text(self.report),
            approvals=tuple(one for sealed in self.approvals if (one := sealed_text(sealed))),
            receipt=sealed_text(self.receipt),
            refusal=sealed_text(self.refusal),
            orchestrator_log=log_part(
                orchestrator.extract(self.own_events, size), [self._continuity(orchestrator, size, orchestrator.size)]
            ),
            executor_log=log_part(executor.extract(self.own_leaves), continuity),
            executor_key=self.keys.executor.public.line,
            orchestrator_key=self.keys.orchestrator.public.line,
        )

    @property
    def anchors(self) -> Anchors:
        """What a verifier brings who pinned both keys."""
        return Anchors(executor=self.keys.executor.public, orchestrator=self.keys.orchestrator.public)

    def _edited(self, name: str, value: Any) -> Any:
        edit = self._edits.get(name)
        if edit is None:
            return value
        changed = edit(value)
        return changed if isinstance(changed, type(value)) else value

    def _sealed(self, media_type: str, body: bytes, key: SigningKey, scheme: str = ED25519) -> sealed_pb2.Sealed:
        return sealed_pb2.Sealed(
            media_type=media_type, body=body, signatures=[signature(media_type, body, key, scheme)]
        )

    def _plan(self) -> sealed_pb2.Sealed:
        plan = plan_pb2.Plan(
            plan_id="p-1",
            mission_id=MISSION,
            intent_id="i-1",
            message_id="msg-1",
            transcription_id="t-1",
            objective="Replace a file and delete another",
            workspace_id="site",
            executor_id=EXECUTOR_ID,
            proposer="agent",
            created_at=stamp(START),
            failure_policy=plan_pb2.FAILURE_POLICY_ROLL_BACK,
            steps=[
                plan_pb2.Step(step_id="s1", write_file=plan_pb2.WriteFile(path="a.txt", content=NEW.decode())),
                plan_pb2.Step(step_id="s2", delete_path=plan_pb2.DeletePath(path="b.txt")),
            ],
        )
        self.opened_plan = self._edited("plan", plan)
        return self._sealed(sealing.PLAN, sealing.seal(self.opened_plan), self.keys.agent)

    def _report(self, report_id: str, seconds: float) -> sealed_pb2.Sealed:
        plan = self.opened_plan
        report = evidence_pb2.Report(
            report_id=report_id,
            mission_id=plan.mission_id,
            intent_id=plan.intent_id,
            plan_id=plan.plan_id,
            plan_digest=digest(self.plan.body),
            workspace_id=plan.workspace_id,
            executor_id=EXECUTOR_ID,
            ledger_epoch="epoch-1",
            nonce=f"nonce-{report_id}",
            status=evidence_pb2.REPORT_STATUS_SUCCESS,
            started_at=stamp(after(seconds)),
            completed_at=stamp(after(seconds + 1)),
            ladder_level=plan_pb2.LADDER_LEVEL_L3,
            self_approval=evidence_pb2.SELF_APPROVAL_REFUSED,
            policy_digest=digest(self.policy.body),
            base_fingerprint=digest(b"base " + report_id.encode()),
            after_fingerprint=states_fingerprint(net_states([[one] for one in CHANGES])[1]),
            steps=[
                evidence_pb2.StepReport(
                    step_id=step.step_id, kind=step.WhichOneof("action"), success=True, changes=[one]
                )
                for step, one in zip(plan.steps, CHANGES, strict=True)
            ],
            risk=evidence_pb2.Risk(
                level=evidence_pb2.RISK_LEVEL_MEDIUM,
                facts=[evidence_pb2.RiskFact(kind="delete", path="b.txt", level=evidence_pb2.RISK_LEVEL_MEDIUM)],
            ),
            proposer=proposer_to_proto(AGENT),
        )
        report.demand.CopyFrom(self._demand(report, report.completed_at))
        self.opened_report = self._edited("report", report) if report_id == "r-1" else report
        return self._sealed(sealing.REPORT, sealing.seal(report), self.keys.executor)

    def _demand(self, report: evidence_pb2.Report, at: Timestamp) -> evidence_pb2.Demand:
        facts = facts_of(self.opened_plan, report, proposer=AGENT, at=at.ToDatetime(tzinfo=UTC))
        return demand_to_proto(rules.demand_of(self.rules, facts))

    def _refusal(self) -> sealed_pb2.Sealed:
        self.opened_refusal = evidence_pb2.Refusal(
            refusal_id="rf-1",
            mission_id=MISSION,
            plan_digest=digest(self.plan.body),
            report_digest=digest(self.earlier_report.body),
            executor_id=EXECUTOR_ID,
            gate=6,
            abort_reason="BASE_DRIFTED",
            message="a.txt differs",
            refused_at=stamp(after(30)),
        )
        self._edited("refusal", self.opened_refusal)
        return self._sealed(sealing.REFUSAL, sealing.seal(self.opened_refusal), self.keys.executor)

    def _approval(self, person: str, key: SigningKey, scheme: str, seconds: float) -> sealed_pb2.Sealed:
        approval = self._approval_of(self.opened_report, self.report, person, seconds)
        approval.approval_id, approval.nonce = f"a-{person}", f"nonce-{person}"
        approval.audit_checkpoint = self.seen if person == "alice" else ""
        self._edited(f"approval {person}", approval)
        return self._sealed(sealing.APPROVAL, sealing.seal(approval), key, scheme)

    def _approval_of(
        self, report: evidence_pb2.Report, sealed: sealed_pb2.Sealed, person: str, seconds: float
    ) -> evidence_pb2.Approval:
        """Somebody's approval of a report, still without an id and a nonce."""
        return evidence_pb2.Approval(
            mission_id=MISSION,
            intent_id=report.intent_id,
            plan_id=report.plan_id,
            plan_digest=report.plan_digest,
            report_id=report.report_id,
            report_digest=digest(sealed.body),
            executor_id=EXECUTOR_ID,
            workspace_id=report.workspace_id,
            approver=person,
            decision=evidence_pb2.DECISION_APPROVE,
            approved_at=stamp(after(seconds)),
            not_before=stamp(after(seconds - 60)),
            expires_at=stamp(after(seconds + 3_000)),
            policy_digest=report.policy_digest,
        )

    def _receipt(self) -> sealed_pb2.Sealed:
        report = self.opened_report
        before, now = net_states([[one] for one in CHANGES])
        receipt = evidence_pb2.Receipt(
            receipt_id="rc-1",
            execution_id="x-1",
            mission_id=MISSION,
            intent_id=report.intent_id,
            message_id="msg-1",
            transcription_id="t-1",
            plan_id=report.plan_id,
            plan_digest=report.plan_digest,
            report_id=report.report_id,
            report_digest=digest(self.report.body),
            approvals=[self._record(sealed) for sealed in self.approvals],
            executor_id=EXECUTOR_ID,
            workspace_id=report.workspace_id,
            ledger_epoch=report.ledger_epoch,
            ladder_level=plan_pb2.LADDER_LEVEL_L3,
            self_approval=evidence_pb2.SELF_APPROVAL_REFUSED,
            policy_digest=report.policy_digest,
            execution_status=evidence_pb2.OUTCOME_SUCCESS,
            started_at=stamp(after(200)),
            completed_at=stamp(after(201)),
            steps_succeeded=2,
            base_fingerprint=report.base_fingerprint,
            after_fingerprint=report.after_fingerprint,
            expected_after_fingerprint=report.after_fingerprint,
            before=snapshots(before),
            after=snapshots(now),
            steps=[
                evidence_pb2.StepReceipt(step_id=step.step_id, operation=step.kind, success=True)
                for step in report.steps
            ],
            proposer=proposer_to_proto(AGENT),
        )
        receipt.demand.CopyFrom(self._demand(report, receipt.started_at))
        receipt.gates.extend(gate_records(receipt, report))
        self.opened_receipt = self._edited("receipt", receipt)
        return self._sealed(sealing.RECEIPT, sealing.seal(receipt), self.keys.executor)

    def _record(self, sealed: sealed_pb2.Sealed) -> evidence_pb2.ApprovalRecord:
        approval = sealing.open_sealed(sealed.body, evidence_pb2.Approval)
        return evidence_pb2.ApprovalRecord(
            approval_id=approval.approval_id,
            approval_digest=digest(sealed.body),
            approver=approval.approver,
            key_id=sealed.signatures[0].key_id,
            approved_at=approval.approved_at,
            scheme=sealed.signatures[0].scheme,
            expires_at=approval.expires_at,
        )

    def _record_earlier(self) -> None:
        self.executor_log.append('{"type":"epoch_started","mission_id":"","at_us":0}')
        first = sealing.open_sealed(self.earlier_report.body, evidence_pb2.Report)
        leaves = [
            report_leaf(self.earlier_report, first),
            refusal_leaf(self.refusal, self.opened_refusal),
            report_leaf(self.report, self.opened_report),
        ]
        self.own_leaves = [self.executor_log.append(leaf_text(leaf)) for leaf in self._edited("early leaves", leaves)]
        self.seen_size = self.executor_log.size

    def _record_execution(self) -> None:
        leaves = execution_leaves(self.receipt, self.opened_receipt)
        for leaf in self._edited("leaves", leaves):
            self.executor_log.append('{"type":"report_issued","mission_id":"m-other","at_us":0}')
            self.own_leaves.append(self.executor_log.append(leaf_text(leaf)))

    def _record_events(self) -> None:
        events: list[tuple[str, Message, float, str]] = self._edited("events", self._events())
        self.own_events: list[int] = []
        chat = [self._event("chat/c-1", number, *said) for number, said in enumerate(self._chat(), 1)]
        for version, event in enumerate(events, 1):
            self._event("chat/c-2", version, "message_received", events_pb2.MessageReceived(), 1, "x")
            self.own_events.append(self._event(f"mission/{MISSION}", version, *event))
        self.mission_events = list(self.own_events)
        self.own_events = [*chat, *self.own_events]
        self.orchestrator_log.append("[]")
        try:
            self.mission = self._state()
        except ValueError:
            self.mission = MissionState(mission_id=MISSION, executor_id=EXECUTOR_ID)
        self.mission = self._edited("mission", self.mission)

    def _event(self, stream: str, version: int, name: str, payload: Message, seconds: float, actor: str) -> int:
        leaf = event_leaf(self.orchestrator_log.size, stream, version, name, payload, seconds, actor)
        return self.orchestrator_log.append(leaf)

    def _chat(self) -> list[tuple[str, Message, float, str]]:
        heard = events_pb2.Transcription(transcription_id="t-1", text="replace it", source="ear")
        message = events_pb2.MessageReceived(
            session_id="c-1", message_id="msg-1", text="replace a.txt and delete b.txt", transcription=heard
        )
        intent = events_pb2.IntentClassified(
            intent_id="i-1", message_id="msg-1", kind=events_pb2.INTENT_KIND_PROPOSE, detail="a plan"
        )
        said: list[tuple[str, Message, float, str]] = self._edited(
            "chat", [("message_received", message, 0.0, "olga"), ("intent_classified", intent, 0.0, "orchestrator")]
        )
        return said

    def _state(self) -> MissionState:
        part = log_part(self.orchestrator_log.extract(self.mission_events))
        assert part is not None
        return replayed(MISSION, [read_event(leaf) for leaf in part.leaves])

    def _events(self) -> list[tuple[str, Message, float, str]]:
        plan, report, receipt = self.opened_plan, self.opened_report, self.opened_receipt
        first = sealing.open_sealed(self.earlier_report.body, evidence_pb2.Report)
        proposed = events_pb2.MissionProposed(
            intent_id=plan.intent_id,
            objective=plan.objective,
            workspace_id=plan.workspace_id,
            executor_id=plan.executor_id,
            proposer=plan.proposer,
            session_id="c-1",
            message_id=plan.message_id,
            transcription_id=plan.transcription_id,
        )
        steps = [events_pb2.PlannedStep(step_id=one.step_id, kind=one.WhichOneof("action")) for one in plan.steps]
        signed = self.plan.signatures[0]
        return [
            ("mission_proposed", proposed, 0, "agent"),
            (
                "plan_sealed",
                events_pb2.PlanSealed(plan_id=plan.plan_id, plan_digest=digest(self.plan.body), steps=steps),
                0,
                "orchestrator",
            ),
            (
                "plan_signed",
                events_pb2.PlanSigned(
                    plan_digest=digest(self.plan.body),
                    person="agent",
                    key_id=signed.key_id,
                    scheme=signed.scheme,
                    signature=signed.signature,
                ),
                1,
                "agent",
            ),
            *self._tried(self.earlier_report, first, 10),
            (
                "approval_granted",
                events_pb2.ApprovalGranted(approval_id="a-old", approval_digest="sha256:old"),
                20,
                "bob",
            ),
            ("mission_approved", events_pb2.MissionApproved(approval_id="a-old"), 20, "bob"),
            (
                "gate_refused",
                events_pb2.GateRefused(
                    refusal_id="rf-1", gate=self.opened_refusal.gate, reason=self.opened_refusal.abort_reason
                ),
                30,
                "executor",
            ),
            ("mission_returned", events_pb2.MissionReturned(reason="BASE_DRIFTED"), 30, "orchestrator"),
            *self._tried(self.report, report, 100),
            *(("approval_granted", granted(sealed), 130.0, "x") for sealed in self.approvals),
            ("mission_approved", events_pb2.MissionApproved(approval_id="a-bob"), 130, "bob"),
            ("mission_started", events_pb2.MissionStarted(goal=plan.objective, steps_count=2), 200, "orchestrator"),
            ("execution_started", events_pb2.ExecutionStarted(execution_id=receipt.execution_id), 200, EXECUTOR_ID),
            ("step_started", events_pb2.StepStarted(step_id="s1", kind="write_file"), 200.5, EXECUTOR_ID),
            (
                "execution_completed",
                events_pb2.ExecutionCompleted(execution_id=receipt.execution_id, outcome=receipt.execution_status),
                201,
                EXECUTOR_ID,
            ),
            (
                "receipt_issued",
                events_pb2.ReceiptIssued(
                    receipt_id=receipt.receipt_id,
                    receipt_digest=digest(self.receipt.body),
                    execution_id=receipt.execution_id,
                ),
                201,
                EXECUTOR_ID,
            ),
            ("mission_completed", events_pb2.MissionCompleted(final_answer="done"), 202, "orchestrator"),
        ]

    def _tried(
        self, sealed: sealed_pb2.Sealed, report: evidence_pb2.Report, seconds: float
    ) -> Sequence[tuple[str, Message, float, str]]:
        completed = events_pb2.DryRunCompleted(
            report_id=report.report_id,
            report_digest=digest(sealed.body),
            status=report.status,
            risk=report.risk.level,
            change_count=2,
        )
        return (
            ("dry_run_started", events_pb2.DryRunStarted(plan_id="p-1"), seconds, "agent"),
            ("dry_run_completed", completed, seconds + 1, "orchestrator"),
        )

    @staticmethod
    def _continuity(log: LogHouse, old: int, new: int) -> Continuity:
        return Continuity(
            older=log.checkpoint(old), newer=log.checkpoint(new), consistency=tuple(log.consistency(old, new))
        )
