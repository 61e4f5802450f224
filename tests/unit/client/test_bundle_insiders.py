"""Executor, orchestrator or approver lie with their own key: what one says is compared with what the others say."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from client.bundle_file import bundle_json
from gonogo import sealing
from gonogo.digests import digest
from gonogo.signatures import ED25519
from gonogo.v1 import events_pb2, evidence_pb2, plan_pb2
from tests.unit.client.proof_house import MISSION, Edits, ProofHouse
from tests.unit.client.proof_parts import after, stamp
from tests.unit.client.test_bundle_tampering import Data, failed


def values(**changes: Any) -> Callable[[Any], None]:
    """Set fields of a message before it is sealed."""

    def edit(message: Any) -> None:
        for name, value in changes.items():
            if hasattr(value, "DESCRIPTOR"):
                getattr(message, name).CopyFrom(value)
            else:
                setattr(message, name, value)

    return edit


def leaf_says(leaf_type: str, **changes: Any) -> Callable[[list[Data]], None]:
    def edit(leaves: list[Data]) -> None:
        for leaf in leaves:
            if leaf["type"] == leaf_type:
                leaf.update(changes)

    return edit


def event_says(event_type: str, **changes: Any) -> Callable[[list[Any]], None]:
    def edit(events: list[Any]) -> None:
        for name, payload, _, _ in events:
            if name == event_type:
                values(**changes)(payload)

    return edit


def without(kind: str) -> Callable[[list[Any]], list[Any]]:
    return lambda events: [event for event in events if event[0] != kind]


def both_approvals(edit: Callable[[Any], None]) -> Edits:
    return {"approval alice": edit, "approval bob": edit}


INSIDER: dict[str, tuple[Edits, str]] = {
    "report demands less": ({"report": lambda r: r.demand.ClearField("rules")}, "report's demand"),
    "receipt demands less": ({"receipt": lambda r: r.demand.requirements.pop()}, "receipt's demand"),
    "receipt's longest lifetime": (
        {"receipt": lambda r: values(max_approval_seconds=9_999)(r.demand)},
        "receipt's demand",
    ),
    "report names another proposer": (
        {"report": lambda r: values(kind=evidence_pb2.PROPOSER_KIND_PERSON, person="bob", sponsor="")(r.proposer)},
        "proposer in the report",
    ),
    "receipt forgets the proposer": (
        {"receipt": values(proposer=evidence_pb2.Proposer(kind=evidence_pb2.PROPOSER_KIND_UNKNOWN))},
        "proposer in the receipt",
    ),
    "claimed when an approval was over": (
        {"receipt": values(started_at=stamp(after(9_000)))},
        "approval a-alice was valid",
    ),
    "claimed before an approval began": ({"receipt": values(started_at=stamp(after(1)))}, "approval a-alice was valid"),
    "an approval that lasts too long": (
        both_approvals(values(approved_at=stamp(after(-9_000)), not_before=stamp(after(-9_000)))),
        "approval a-alice was valid",
    ),
    "claimed when the policy was over": (
        {"rules": lambda policy: replace(policy, expires_at=after(150))},
        "policy was in force at the claim",
    ),
    "one nonce for two": (
        {"approval alice": values(approval_id="a-bob", nonce="n"), "approval bob": values(nonce="n")},
        "approvals are single: ids",
    ),
    "a denial": ({"approval bob": values(decision=evidence_pb2.DECISION_DENY)}, "policy decision"),
    "nobody of the group": (
        {"rules": lambda policy: replace(policy, groups=(replace(policy.groups[0], members=("olga",)),))},
        "policy decision",
    ),
    "a sponsor who counts": (
        {"rules": lambda policy: replace(policy, persons=tuple(sponsored(one) for one in policy.persons))},
        "policy decision",
    ),
    "a rule that refuses": (
        {"rules": lambda policy: replace(policy, rules=(replace(policy.rules[0], refuse=True),))},
        "policy decision",
    ),
    "a hardware key is needed": (
        {"rules": lambda policy: replace(policy, rules=(replace(policy.rules[0], hardware_key=True),))},
        "policy decision",
    ),
    "hardware that is none": (
        {"rules": lambda policy: replace(policy, persons=tuple(hardware(one) for one in policy.persons))},
        "approval a-alice signature",
    ),
    "too little isolation": ({"report": values(ladder_level=plan_pb2.LADDER_LEVEL_L1)}, "dry run was isolated enough"),
    "self-approval slipped in": (
        {"receipt": values(self_approval=evidence_pb2.SELF_APPROVAL_ALLOWED)},
        "self-approval is the policy's",
    ),
    "approval of another plan": (
        {"approval bob": values(plan_digest=digest(b"other"))},
        "approval a-bob is for this plan",
    ),
    "approval of another report": (
        {"approval bob": values(report_digest=digest(b"other"))},
        "report is named by approval.report_digest",
    ),
    "approval for another workspace": (
        {"approval bob": values(workspace_id="other")},
        "approval a-bob is for this plan",
    ),
    "approval for another executor": ({"approval bob": values(executor_id="other")}, "approval a-bob is for this plan"),
    "approval under another policy": ({"approval bob": values(policy_digest="x")}, "approval a-bob is for this plan"),
    "approval saw another log": (
        {"approval alice": lambda a: values(audit_checkpoint=a.audit_checkpoint.replace("\n4\n", "\n3\n"))(a)},
        "approval a-alice saw this log",
    ),
    "approval recorded otherwise": (
        {"receipt": lambda r: values(scheme=ED25519)(r.approvals[0])},
        "approval a-alice is recorded as it is",
    ),
    "approval recorded twice": (
        {"receipt": lambda r: r.approvals.append(r.approvals[0])},
        "receipt's approvals are there",
    ),
    "gate left out": ({"receipt": lambda r: r.gates.pop()}, "receipt names the seven gates"),
    "gates in another order": ({"receipt": lambda r: r.gates.reverse()}, "receipt names the seven gates"),
    "gate saw another plan": (
        {"receipt": lambda r: values(detail=f"p-1, {digest(b'other')}")(r.gates[3])},
        "gate 4 plan_matches saw these documents",
    ),
    "gate saw another approver": (
        {"receipt": lambda r: values(detail=r.gates[2].detail.replace("alice", "olga"))(r.gates[2])},
        "gate 3 approved saw these documents",
    ),
    "another base": ({"receipt": values(base_fingerprint=digest(b"other"))}, "receipt names the report's base"),
    "another epoch": ({"receipt": values(ledger_epoch="epoch-2")}, "receipt names the report's epoch"),
    "another result": ({"receipt": values(after_fingerprint=digest(b"other"))}, "result is what the report promised"),
    "another snapshot": ({"receipt": lambda r: r.after.pop()}, "after fingerprint of the receipt's snapshots"),
    "another before": ({"receipt": lambda r: r.before.pop()}, "before and after are the report's"),
    "a step not done": ({"receipt": lambda r: r.steps.pop()}, "receipt covers every step"),
    "steps miscounted": ({"receipt": values(steps_succeeded=3)}, "receipt counts its steps"),
    "stopped by nothing that is recorded": (
        {"receipt": values(execution_status=evidence_pb2.OUTCOME_PARTIAL, abort_reason="APPROVAL_REVOKED")},
        "what stopped it is in the log",
    ),
    "a success that diverged": ({"receipt": values(divergence_detected=True)}, "receipt's outcome is borne out"),
    "a step not tried": ({"report": lambda r: r.steps.pop()}, "report covers every step"),
    "changes not said": ({"report": lambda r: r.steps[0].ClearField("changes")}, "report's after fingerprint"),
    "claim leaf of other approvals": ({"leaves": leaf_says("claimed", approvals=[])}, "executor leaf 5 claimed"),
    "claim leaf of another time": (
        {"leaves": leaf_says("claimed", at_us=1_790_000_000_000_000)},
        "executor leaf 5 claimed",
    ),
    "end leaf of another outcome": (
        {"leaves": leaf_says("execution_ended", outcome="partial")},
        "executor leaf 9 execution_ended",
    ),
    "end leaf of another signature": (
        {"leaves": leaf_says("execution_ended", signature=digest(b""))},
        "executor leaf 9 execution_ended",
    ),
    "report leaf of another plan": (
        {"early leaves": lambda leaves: leaves[2].update(plan_digest=digest(b""))},
        "executor leaf 3 report_issued",
    ),
    "refusal leaf of another gate": (
        {"early leaves": lambda leaves: leaves[1].update(gate=3)},
        "executor leaf 2 refused",
    ),
    "claimed twice": ({"leaves": lambda leaves: [leaves[0], *leaves]}, "claimed once"),
    "leaf of an unknown kind": (
        {"leaves": leaf_says("events_recorded", type="forgotten")},
        "executor leaves are the mission's",
    ),
    "leaf that says more": ({"leaves": leaf_says("events_recorded", more=1)}, "executor leaves are the mission's"),
    "leaf of another mission": (
        {"leaves": leaf_says("claimed", mission_id="m-2")},
        "executor leaves are the mission's",
    ),
    "leaves in another order": ({"leaves": lambda leaves: leaves[::-1]}, "executor leaves follow each other"),
    "an intent of another kind": (
        {"chat": event_says("intent_classified", kind=events_pb2.INTENT_KIND_ASK)},
        "events tell of the message",
    ),
    "another transcription": ({"plan": values(transcription_id="t-2")}, "events tell of the message"),
    "a message of another chat": (
        {"chat": lambda said: [*said, ("message_received", events_pb2.MessageReceived(message_id="m"), 0.0, "x")]},
        "orchestrator leaves are the mission's",
    ),
    "denied before the claim": (
        {"leaves": lambda leaves: [revoked_leaf("bob", "deny"), *leaves]},
        "nothing was claimed that was taken back",
    ),
    "withdrawn before the claim": (
        {"leaves": lambda leaves: [revoked_leaf("alice", "withdraw"), *leaves]},
        "nothing was claimed that was taken back",
    ),
    "event of another plan": (
        {"events": event_says("plan_sealed", plan_digest=digest(b""))},
        "events tell of the plan",
    ),
    "event of another proposer": (
        {"events": event_says("mission_proposed", proposer="bob")},
        "events tell of the proposal",
    ),
    "event of another signature": (
        {"events": event_says("plan_signed", signature=b"x")},
        "events tell of the plan's signatures",
    ),
    "event of another report": ({"events": event_says("dry_run_completed", risk=3)}, "events tell of the report"),
    "event of another approver": (
        {"events": event_says("approval_granted", approver="olga")},
        "events tell of the approvals",
    ),
    "event of another receipt": (
        {"events": event_says("receipt_issued", receipt_digest=digest(b""))},
        "events tell of the receipt",
    ),
    "event of another refusal": ({"events": event_says("gate_refused", gate=3)}, "events tell of the refusal"),
    "an approval that was not recorded": ({"events": without("approval_granted")}, "events tell of the approvals"),
    "a start that was not recorded": ({"events": without("mission_started")}, "orchestrator leaves are the mission's"),
    "an event that can not follow": (
        {"events": lambda events: [*events, ("mission_queued", events_pb2.MissionQueued(), 300.0, "x")]},
        "orchestrator leaves are the mission's",
    ),
}


def revoked_leaf(person: str, kind: str) -> Data:
    return {
        "type": "revoked",
        "mission_id": MISSION,
        "at_us": 1,
        "revocation_id": "v-1",
        "person": person,
        "kind": kind,
        "reason": "",
        "media_type": sealing.REVOCATION,
        "document_digest": digest(b""),
        "signature": digest(b""),
    }


def sponsored(person: Any) -> Any:
    """Let alice stand behind the agent, so that her approval does not count."""
    return replace(person, sponsor="alice") if person.sponsor else person


def hardware(person: Any) -> Any:
    return replace(person, keys=tuple(replace(key, hardware=True) for key in person.keys))


@pytest.mark.parametrize("name", INSIDER)
def test_whoever_lies_with_a_key_is_found(name: str) -> None:
    """What a holder of a key says and signs is compared with what the others say."""
    edits, expected = INSIDER[name]
    house = ProofHouse(edits=edits)
    found = failed(bundle_json(house.bundle()), house)
    assert any(one.startswith(expected) for one in found), found
