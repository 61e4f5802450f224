"""A mission that was signed for step by step, failed, was repaired, and had an effect outside that a person told of.

    segment 0   s1 writes a file after two persons signed for just that step; s2 fails
    segment 1   r1-s1 sends a request of which nobody can tell whether it arrived, until alice says so; r1-s2 deletes

Otherwise it is the house of `proof_house`, honest unless a test edits something.
"""

from dataclasses import replace
from typing import Any

from google.protobuf.message import Message

from client.bundle import Bundle, SegmentTexts, sealed_text
from client.changes import net_states, states_fingerprint
from gonogo import sealing
from gonogo.digests import digest, step_digest
from gonogo.policy_document import proposer_to_proto
from gonogo.signatures import ED25519, SSHSIG, SigningKey
from gonogo.v1 import events_pb2, evidence_pb2, plan_pb2, sealed_pb2
from tests.unit.client.proof_house import AGENT, CHANGES, EXECUTOR_ID, MISSION, ProofHouse
from tests.unit.client.proof_parts import (
    after,
    execution_leaves,
    gate_records,
    granted,
    leaf_text,
    report_leaf,
    signed_by,
    stamp,
)

EXECUTION = "x-1"
AT_STEP, AT_FAILURE, AT_EFFECT = (digest(name) for name in (b"at the step", b"at the failure", b"at the effect"))
EFFECT_ID = f"{EXECUTION}-r1-s1-1"
EFFECT_KEY = f"{EXECUTION}-r1-s1"
SIGNED_AT = {"alice": 203.0, "bob": 204.0}
CLAIMED_AT, RECONCILED_AT = 320.0, 340.0

Told = tuple[str, Message, float, str]


class RepairedHouse(ProofHouse):
    """Everything about that mission; edits are those of `ProofHouse` and more, by the names below."""

    def bundle(self) -> Bundle:
        found = super().bundle()
        first = SegmentTexts(segment=0, plan=found.plan, report=found.report, approvals=found.approvals)
        plan = sealed_text(self.repair_plan)
        assert plan is not None
        return replace(
            found,
            plan=plan,
            report=sealed_text(self.repair_report),
            approvals=tuple(one for sealed in self.repair_approvals if (one := sealed_text(sealed))),
            segments=(first,),
            words=tuple(one for sealed in self.words if (one := sealed_text(sealed))),
        )

    def _plan(self) -> sealed_pb2.Sealed:
        super()._plan()
        self.opened_plan.steps[0].needs_approval = True
        return self._sealed(sealing.PLAN, sealing.seal(self.opened_plan), self.keys.agent)

    def _receipt(self) -> sealed_pb2.Sealed:
        self._repair()
        self.words = [
            self._step_approval("alice", self.keys.alice, SSHSIG),
            self._step_approval("bob", self.keys.bob, ED25519),
            self._reconciliation(),
        ]
        edits = self._edits
        self._edits = {name: edit for name, edit in edits.items() if name != "receipt"}
        super()._receipt()
        self._edits = edits
        receipt = self.opened_receipt
        self._tell_of_the_repair(receipt)
        self.opened_receipt = self._edited("receipt", receipt)
        return self._sealed(sealing.RECEIPT, sealing.seal(self.opened_receipt), self.keys.executor)

    def _repair(self) -> None:
        first = self.opened_plan
        plan = plan_pb2.Plan()
        plan.CopyFrom(first)
        plan.plan_id, plan.segment = "p-2", 1
        plan.execution_id, plan.journal_digest = EXECUTION, AT_FAILURE
        del plan.steps[:]
        request = plan_pb2.HttpRequest(method="POST", url="https://example.org/deploy", content="go")
        plan.steps.add(step_id="r1-s1", http_request=request)
        plan.steps.add(step_id="r1-s2", delete_path=plan_pb2.DeletePath(path="b.txt"))
        self.opened_repair_plan = self._edited("repair plan", plan)
        self.repair_plan = self._sealed(sealing.PLAN, sealing.seal(self.opened_repair_plan), self.keys.agent)
        self.repair_report = self._repair_report()
        self.repair_approvals = [
            self._repair_approval("alice", self.keys.alice, SSHSIG),
            self._repair_approval("bob", self.keys.bob, ED25519),
        ]

    def _repair_report(self) -> sealed_pb2.Sealed:
        plan, report = self.opened_repair_plan, evidence_pb2.Report()
        report.CopyFrom(self.opened_report)
        report.report_id, report.nonce, report.plan_id = "r-2", "nonce-r-2", plan.plan_id
        report.plan_digest = digest(self.repair_plan.body)
        report.started_at.CopyFrom(stamp(after(300)))
        report.completed_at.CopyFrom(stamp(after(301)))
        report.base_fingerprint = digest(b"base r-2")
        report.after_fingerprint = states_fingerprint(net_states([[CHANGES[1]]])[1])
        del report.steps[:]
        live = evidence_pb2.LiveEvidence(target="POST https://example.org/deploy", digest=digest(b"sent"))
        report.steps.add(step_id="r1-s1", kind="http_request", success=True, not_simulated=True, live=live)
        report.steps.add(step_id="r1-s2", kind="delete_path", success=True, changes=[CHANGES[1]])
        report.demand.CopyFrom(self._repair_demand(report, report.completed_at))
        self.opened_repair_report = self._edited("repair report", report)
        return self._sealed(sealing.REPORT, sealing.seal(self.opened_repair_report), self.keys.executor)

    def _repair_demand(self, report: evidence_pb2.Report, at: Any) -> evidence_pb2.Demand:
        first, self.opened_plan = self.opened_plan, self.opened_repair_plan
        demand = self._demand(report, at)
        self.opened_plan = first
        return demand

    def _repair_approval(self, person: str, key: SigningKey, scheme: str) -> sealed_pb2.Sealed:
        approval = self._approval_of(self.opened_repair_report, self.repair_report, person, 310.0)
        approval.approval_id, approval.nonce = f"a2-{person}", f"nonce-2-{person}"
        self._edited(f"repair approval {person}", approval)
        return self._sealed(sealing.APPROVAL, sealing.seal(approval), key, scheme)

    def _step_approval(self, person: str, key: SigningKey, scheme: str) -> sealed_pb2.Sealed:
        at = SIGNED_AT[person]
        word = evidence_pb2.StepApproval(
            approval_id=f"sa-{person}",
            executor_id=EXECUTOR_ID,
            workspace_id="site",
            mission_id=MISSION,
            execution_id=EXECUTION,
            step_id="s1",
            change_set_digest=step_digest(digest(self.report.body), "s1"),
            results_digest=AT_STEP,
            approver=person,
            decision=evidence_pb2.DECISION_APPROVE,
            approved_at=stamp(after(at)),
            expires_at=stamp(after(at + 600)),
            nonce=f"nonce-sa-{person}",
        )
        self._edited(f"step approval {person}", word)
        return self._sealed(sealing.STEP_APPROVAL, sealing.seal(word), key, scheme)

    def _reconciliation(self) -> sealed_pb2.Sealed:
        word = evidence_pb2.Reconciliation(
            reconciliation_id="rn-1",
            executor_id=EXECUTOR_ID,
            mission_id=MISSION,
            execution_id=EXECUTION,
            step_id="r1-s1",
            happened=True,
            person="alice",
            reason="I looked",
            decided_at=stamp(after(RECONCILED_AT)),
            nonce="nonce-rn",
            results_digest=AT_EFFECT,
        )
        self._edited("reconciliation", word)
        return self._sealed(sealing.RECONCILIATION, sealing.seal(word), self.keys.alice, SSHSIG)

    def _tell_of_the_repair(self, receipt: evidence_pb2.Receipt) -> None:
        receipt.completed_at.CopyFrom(stamp(after(350)))
        del receipt.steps[:]
        records = [self._record_of_word(sealed) for sealed in self.words[:2]]
        receipt.steps.add(step_id="s1", operation="write_file", success=True, attempts=1, step_approvals=records)
        receipt.steps.add(step_id="s2", operation="delete_path", attempts=1, error_message="b.txt is held open")
        said = evidence_pb2.ReconciliationRecord(
            reconciliation_id="rn-1",
            reconciliation_digest=digest(self.words[2].body),
            person="alice",
            key_id=self.keys.alice.public.key_id,
            happened=True,
        )
        effect = evidence_pb2.EffectRecord(
            state=evidence_pb2.EFFECT_STATE_DONE, idempotency_key=EFFECT_KEY, reconciliation=said
        )
        receipt.steps.add(step_id="r1-s1", operation="http_request", success=True, segment=1, attempts=1, effect=effect)
        receipt.steps.add(step_id="r1-s2", operation="delete_path", success=True, segment=1, attempts=1)
        receipt.steps_succeeded, receipt.steps_failed = 3, 1
        self.segment = self._segment(receipt)
        receipt.segments.append(self.segment)
        for action, actor, at, step_id in (
            ("approve_step", "alice", SIGNED_AT["alice"], "s1"),
            ("approve_step", "bob", SIGNED_AT["bob"], "s1"),
            ("repair", "alice, bob", CLAIMED_AT, ""),
            ("reconcile", "alice", RECONCILED_AT, "r1-s1"),
        ):
            receipt.controls.add(action=action, actor=actor, time=stamp(after(at)), step_id=step_id)

    def _segment(self, receipt: evidence_pb2.Receipt) -> evidence_pb2.SegmentRecord:
        report = self.opened_repair_report
        told = evidence_pb2.Receipt()
        told.CopyFrom(receipt)
        del told.approvals[:]
        told.approvals.extend(self._record(sealed) for sealed in self.repair_approvals)
        told.plan_id, told.plan_digest = report.plan_id, report.plan_digest
        told.report_digest = digest(self.repair_report.body)
        record = evidence_pb2.SegmentRecord(
            segment=1,
            plan_id=report.plan_id,
            plan_digest=report.plan_digest,
            report_id=report.report_id,
            report_digest=digest(self.repair_report.body),
            approvals=told.approvals,
            started_at=stamp(after(CLAIMED_AT)),
            gates=gate_records(told, report),
            proposer=proposer_to_proto(AGENT),
            journal_digest=AT_FAILURE,
        )
        record.demand.CopyFrom(self._repair_demand(report, record.started_at))
        return record

    def _record_of_word(self, sealed: sealed_pb2.Sealed) -> evidence_pb2.ApprovalRecord:
        approval = sealing.open_sealed(sealed.body, evidence_pb2.StepApproval)
        return evidence_pb2.ApprovalRecord(
            approval_id=approval.approval_id,
            approval_digest=digest(sealed.body),
            approver=approval.approver,
            key_id=sealed.signatures[0].key_id,
            approved_at=approval.approved_at,
            scheme=sealed.signatures[0].scheme,
            expires_at=approval.expires_at,
        )

    def _record_execution(self) -> None:
        claimed, recorded, ended = execution_leaves(self.receipt, self.opened_receipt)
        again = report_leaf(self.repair_report, self.opened_repair_report)
        segment = self.segment
        claimed_again = {
            **claimed,
            "at_us": segment.started_at.ToMicroseconds(),
            "segment": 1,
            "plan_digest": segment.plan_digest,
            "report_digest": segment.report_digest,
            "approvals": [one.approval_digest for one in segment.approvals],
            "request_id": "q-2",
        }
        leaves = [
            claimed,
            self._control_leaf(self.words[0], "approve_step", "alice", "s1", SIGNED_AT["alice"]),
            self._control_leaf(self.words[1], "approve_step", "bob", "s1", SIGNED_AT["bob"]),
            recorded,
            again,
            claimed_again,
            self._effect_leaf("effect_claimed", 325),
            self._effect_leaf("effect_settled", 330, settlement=1, state="unknown"),
            self._control_leaf(self.words[2], "reconcile", "alice", "r1-s1", RECONCILED_AT),
            self._effect_leaf("effect_settled", RECONCILED_AT, settlement=2, state="done"),
            ended,
        ]
        for leaf in self._edited("leaves", leaves):
            self.executor_log.append('{"type":"report_issued","mission_id":"m-other","at_us":0}')
            self.own_leaves.append(self.executor_log.append(leaf_text(leaf)))

    def _control_leaf(
        self, sealed: sealed_pb2.Sealed, action: str, actor: str, step_id: str, at: float
    ) -> dict[str, Any]:
        kind = evidence_pb2.StepApproval if action == "approve_step" else evidence_pb2.Reconciliation
        word: Any = sealing.open_sealed(sealed.body, kind)
        return {
            "type": "control",
            "mission_id": MISSION,
            "at_us": stamp(after(at)).ToMicroseconds(),
            "request_id": f"control-{actor}-{action}",
            "request_digest": digest(b"request"),
            "execution_id": EXECUTION,
            "action": action,
            "actor": actor,
            "reason": "",
            "roll_back": 0,
            "step_id": step_id,
            "document_id": word.approval_id if action == "approve_step" else word.reconciliation_id,
            "document_digest": digest(sealed.body),
            "signature": signed_by(sealed),
        }

    def _effect_leaf(self, kind: str, at: float, **more: Any) -> dict[str, Any]:
        said = {
            "type": kind,
            "mission_id": MISSION,
            "at_us": stamp(after(at)).ToMicroseconds(),
            "effect_id": EFFECT_ID,
            "execution_id": EXECUTION,
            "step_id": "r1-s1",
        }
        if kind == "effect_settled":
            return {**said, **more, "record_digest": digest(b"record")}
        return {
            **said,
            "segment": 1,
            "attempt": 1,
            "compensates": 0,
            "kind": "http_request",
            "target": "POST https://example.org/deploy",
            "digest": digest(b"sent"),
            "idempotency_key": EFFECT_KEY,
        }

    def _events(self) -> list[Told]:
        *told, started, begun, completed, issued, ended = super()._events()
        planned = [
            events_pb2.PlannedStep(step_id=one.step_id, kind=one.WhichOneof("action") or "")
            for one in self.opened_repair_plan.steps
        ]
        signed = self.repair_plan.signatures[0]
        plan_digest = digest(self.repair_plan.body)
        report, report_digest = self.opened_repair_report, digest(self.repair_report.body)
        step, failure, effect = (self._paused(kind) for kind in ("STEP_APPROVAL", "FAILURE", "UNKNOWN_EFFECT"))
        between: list[Told] = [
            ("execution_paused", step, 202, EXECUTOR_ID),
            *(self._step_approved(person, key) for person, key in (("alice", self.keys.alice), ("bob", self.keys.bob))),
            ("execution_resumed", events_pb2.ExecutionResumed(action="approve_step", step_id="s1"), 205, EXECUTOR_ID),
            ("execution_paused", failure, 210, EXECUTOR_ID),
            (
                "plan_sealed",
                events_pb2.PlanSealed(plan_id="p-2", plan_digest=plan_digest, steps=planned, segment=1),
                300,
                "orchestrator",
            ),
            (
                "plan_signed",
                events_pb2.PlanSigned(
                    plan_digest=plan_digest,
                    person="agent",
                    key_id=signed.key_id,
                    scheme=signed.scheme,
                    signature=signed.signature,
                ),
                300,
                "agent",
            ),
            *self._tried(self.repair_report, report, 300),
            *(("approval_granted", granted(sealed), 310.0, "x") for sealed in self.repair_approvals),
            ("mission_approved", events_pb2.MissionApproved(approval_id="a2-bob"), 310, "bob"),
            (
                "segment_opened",
                events_pb2.SegmentOpened(
                    segment=1, plan_id="p-2", plan_digest=plan_digest, report_digest=report_digest
                ),
                CLAIMED_AT,
                EXECUTOR_ID,
            ),
            ("execution_resumed", events_pb2.ExecutionResumed(action="repair"), CLAIMED_AT, EXECUTOR_ID),
            (
                "effect_claimed",
                events_pb2.EffectClaimed(step_id="r1-s1", idempotency_key=EFFECT_KEY),
                325,
                EXECUTOR_ID,
            ),
            ("execution_paused", effect, 330, EXECUTOR_ID),
            (
                "step_reconciled",
                events_pb2.StepReconciled(step_id="r1-s1", happened=True, person="alice", reconciliation_id="rn-1"),
                RECONCILED_AT,
                EXECUTOR_ID,
            ),
            ("execution_resumed", events_pb2.ExecutionResumed(action="reconcile"), RECONCILED_AT, EXECUTOR_ID),
        ]
        later: list[Told] = [(name, payload, 351.0, actor) for name, payload, _, actor in (completed, issued, ended)]
        return [*told, started, begun, *between, *later]

    def _step_approved(self, person: str, key: SigningKey) -> Told:
        payload = events_pb2.StepApproved(
            step_id="s1", approval_id=f"sa-{person}", approver=person, key_id=key.public.key_id
        )
        return "step_approved", payload, SIGNED_AT[person], EXECUTOR_ID

    def _paused(self, kind: str) -> events_pb2.ExecutionPaused:
        at: dict[str, tuple[str, str, str]] = {
            "STEP_APPROVAL": ("s1", AT_STEP, step_digest(digest(self.report.body), "s1")),
            "FAILURE": ("s2", AT_FAILURE, step_digest(digest(self.report.body), "s2")),
            "UNKNOWN_EFFECT": ("r1-s1", AT_EFFECT, step_digest(digest(self.repair_report.body), "r1-s1")),
        }
        step_id, results, change_set = at[kind]
        return events_pb2.ExecutionPaused(
            reason="it waits",
            kind=events_pb2.PauseKind.Value(f"PAUSE_KIND_{kind}"),
            step_id=step_id,
            results_digest=results,
            change_set_digest=change_set,
        )
