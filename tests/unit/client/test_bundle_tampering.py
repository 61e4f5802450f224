"""Whoever alters a bundle and holds no key is found, by the check whose business it is."""

import base64
import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from client.bundle_file import bundle_json, read_bundle
from client.proving.proof import prove
from gonogo import sealing
from gonogo.digests import digest
from gonogo.merkle import leaf_hash
from gonogo.notes import checkpoint_text, sign_note
from gonogo.signatures import ED25519, SSHSIG
from tests.unit.client.proof_house import ProofHouse
from tests.unit.client.proof_parts import signature

Data = dict[str, Any]


@pytest.fixture(scope="module")
def house() -> ProofHouse:
    return ProofHouse()


@pytest.fixture(scope="module")
def honest(house: ProofHouse) -> Data:
    return bundle_json(house.bundle())


def failed(data: Data, house: ProofHouse, **anchors: Any) -> list[str]:
    """Return the names of the checks that do not hold."""
    proof = prove(read_bundle(data), replace(house.anchors, **anchors))
    assert not proof.valid
    return [one.name for one in proof.failed]


# --- What somebody can do to the file who holds no key. ---


def altered(document: str, old: str, new: str, *, with_digest: bool = True) -> Callable[[Data, ProofHouse], None]:
    """Change a document's text, and the digest that the file gives for it."""

    def change(data: Data, _: ProofHouse) -> None:
        held = part(data, document)
        assert old in held["body"]
        held["body"] = held["body"].replace(old, new, 1)
        if with_digest:
            held["digest"] = digest(held["body"].encode())

    return change


def part(data: Data, document: str) -> Data:
    name, _, number = document.partition(" ")
    held = data["documents"][name]
    found: Data = held[int(number)] if number else held
    return found


def resigned(document: str, key: str, scheme: str = ED25519) -> Callable[[Data, ProofHouse], None]:
    """Sign a document again with another key of the house."""

    def change(data: Data, house: ProofHouse) -> None:
        held = part(data, document)
        made = signature(held["media_type"], held["body"].encode(), getattr(house.keys, key), scheme)
        held["signatures"] = [
            {
                "key_id": made.key_id,
                "scheme": made.scheme,
                "signature": base64.b64encode(made.signature).decode(),
                "extra": "",
            }
        ]

    return change


def signature_flipped(document: str) -> Callable[[Data, ProofHouse], None]:
    def change(data: Data, _: ProofHouse) -> None:
        held = part(data, document)["signatures"][0]
        raw = bytearray(base64.b64decode(held["signature"]))
        raw[-1] ^= 1
        held["signature"] = base64.b64encode(raw).decode()

    return change


def leaf_altered(log: str, number: int, old: str, new: str) -> Callable[[Data, ProofHouse], None]:
    def change(data: Data, _: ProofHouse) -> None:
        entry = data["logs"][log]["entries"][number]
        assert old in entry["leaf"]
        entry["leaf"] = entry["leaf"].replace(old, new, 1)

    return change


def signed_anew(log: str) -> Callable[[Data, ProofHouse], None]:
    """Put in a checkpoint of another tree, signed by the log's own key: what only the log itself can do."""

    def change(data: Data, house: ProofHouse) -> None:
        held = house.executor_log if log == "executor" else house.orchestrator_log
        note = sign_note(checkpoint_text(held.origin, held.size, leaf_hash(b"other")), held.key, held.origin)
        data["logs"][log]["checkpoint"] = note

    return change


def do(statement: Callable[[Data], object]) -> Callable[[Data, ProofHouse], None]:
    return lambda data, _: (statement(data), None)[1]


OUTSIDER: dict[str, tuple[Callable[[Data, ProofHouse], None], str]] = {
    "plan text": (altered("plan", "Replace a file", "Replace a fi1e"), "plan is named by report.plan_digest"),
    "plan text, old digest": (altered("plan", "Replace", "Repl4ce", with_digest=False), "plan digest"),
    "plan unreadable": (altered("plan", "{", "{ ,"), "plan is read strictly"),
    "report text": (altered("report", "RISK_LEVEL_MEDIUM", "RISK_LEVEL_LOW"), "report signature"),
    "report digest": (do(lambda d: part(d, "report").update(digest=digest(b""))), "report digest"),
    "policy text": (altered("policy", '"trust_version":3', '"trust_version":4'), "policy signature"),
    "approval text": (altered("approvals 0", "a-alice", "a-alicf"), "approval a-alicf signature"),
    "receipt text": (altered("receipt", "OUTCOME_SUCCESS", "OUTCOME_PARTIAL"), "receipt signature"),
    "refusal text": (altered("refusal", "a.txt", "b.txt"), "refusal signature"),
    "media type": (do(lambda d: part(d, "report").update(media_type=sealing.RECEIPT)), "report is read strictly"),
    "plan signature": (signature_flipped("plan"), "plan signature"),
    "report signature": (signature_flipped("report"), "report signature"),
    "policy signature": (signature_flipped("policy"), "policy signature"),
    "approval signature": (signature_flipped("approvals 0"), "approval a-alice signature"),
    "receipt signature": (signature_flipped("receipt"), "receipt signature"),
    "refusal signature": (signature_flipped("refusal"), "refusal signature"),
    "report by another": (resigned("report", "alice"), "report signature"),
    "receipt by the orchestrator": (resigned("receipt", "orchestrator"), "receipt signature"),
    "approval by another": (resigned("approvals 0", "olga", SSHSIG), "approval a-alice signature"),
    "approval by an agent": (resigned("approvals 1", "agent"), "approval a-bob signature"),
    "approval in another scheme": (resigned("approvals 1", "bob", SSHSIG), "approval a-bob signature"),
    "approval unsigned": (do(lambda d: part(d, "approvals 0").update(signatures=[])), "approval a-alice signature"),
    "approval signed twice": (
        do(lambda d: part(d, "approvals 0")["signatures"].append(part(d, "approvals 0")["signatures"][0])),
        "approval a-alice signature",
    ),
    "plan's signature dropped": (do(lambda d: part(d, "plan").update(signatures=[])), "proposer in the receipt"),
    "plan by another": (resigned("plan", "alice", SSHSIG), "plan signature"),
    "approval dropped": (do(lambda d: d["documents"]["approvals"].pop()), "receipt's approvals are there"),
    "approval twice": (
        do(lambda d: d["documents"]["approvals"].append(d["documents"]["approvals"][0])),
        "approvals are single: nonces",
    ),
    "signatures of approvals swapped": (
        do(lambda d: swap(part(d, "approvals 0"), part(d, "approvals 1"), "signatures")),
        "approval a-alice signature",
    ),
    "report dropped": (do(lambda d: d["documents"].update(report=None)), "mission's report is here"),
    "report dropped, the rest left over": (
        do(lambda d: d["documents"].update(report=None)),
        "policy and approvals are of a report",
    ),
    "receipt dropped": (do(lambda d: d["documents"].update(receipt=None)), "executor leaf"),
    "refusal dropped": (do(lambda d: d["documents"].update(refusal=None)), "events tell of the refusal"),
    "mission id": (do(lambda d: d["mission"].update(mission_id="m-other")), "mission is named by plan.mission_id"),
    "message id": (do(lambda d: d["mission"].update(message_id="msg-2")), "message is named by plan.message_id"),
    "transcription id": (
        do(lambda d: d["mission"].update(transcription_id="")),
        "transcription is named by plan.transcription_id",
    ),
    "intent id": (do(lambda d: d["mission"].update(intent_id="i-2")), "intent is named by plan.intent_id"),
    "plan id": (do(lambda d: d["mission"].update(plan_id="p-2")), "plan is named by report.plan_digest"),
    "report id": (do(lambda d: d["mission"].update(report_id="r-2")), "report is named by approval.report_digest"),
    "execution id": (
        do(lambda d: d["mission"].update(execution_id="x-2")),
        "execution is named by receipt.execution_id",
    ),
    "receipt id": (do(lambda d: d["mission"].update(receipt_id="rc-2")), "receipt is named by mission.receipt_id"),
    "status": (do(lambda d: d["mission"].update(status="failed")), "state replayed from events"),
    "outcome": (do(lambda d: d["mission"].update(outcome="partial")), "state replayed from events"),
    "time": (do(lambda d: d["mission"].update(created_at="2026-11-20T11:00:00Z")), "state replayed from events"),
    "objective": (do(lambda d: d["mission"].update(objective="Harmless")), "mission is the plan's"),
    "claimed key": (do(lambda d: d["keys"].update(executor=d["keys"]["orchestrator"])), "bundle's executor key"),
    "other claimed key": (
        do(lambda d: d["keys"].update(orchestrator=d["keys"]["executor"])),
        "bundle's orchestrator key",
    ),
    "executor leaf": (leaf_altered("executor", 3, '"segment":0', '"segment":1'), "executor leaves are in its log"),
    "executor leaf's place": (
        do(lambda d: d["logs"]["executor"]["entries"][0].update(index=0)),
        "executor leaves are in its log",
    ),
    "orchestrator leaf": (
        leaf_altered("orchestrator", 2, "agent", "alice"),
        "orchestrator leaves are in its log",
    ),
    "proof": (
        do(lambda d: d["logs"]["executor"]["entries"][2]["path"].reverse()),
        "executor leaves are in its log",
    ),
    "proof cut": (do(lambda d: d["logs"]["orchestrator"]["entries"][2]["path"].pop()), "orchestrator leaves are in"),
    "claim leaf dropped": (do(lambda d: d["logs"]["executor"]["entries"].pop(3)), "claimed once"),
    "end leaf dropped": (do(lambda d: d["logs"]["executor"]["entries"].pop()), "receipt's leaf"),
    "report leaf dropped": (do(lambda d: d["logs"]["executor"]["entries"].pop(2)), "report's leaf"),
    "earlier leaf dropped": (
        do(lambda d: d["logs"]["executor"]["entries"].pop(0)),
        "executor tells of every dry run and refusal",
    ),
    "leaf twice": (
        do(lambda d: d["logs"]["executor"]["entries"].append(d["logs"]["executor"]["entries"][-1])),
        "executor leaves are in order",
    ),
    "leaves swapped": (do(lambda d: reorder(d["logs"]["executor"]["entries"], 3, 4)), "executor leaves are in order"),
    "event dropped": (
        do(lambda d: d["logs"]["orchestrator"]["entries"].pop(7)),
        "orchestrator leaves are the mission's",
    ),
    "message dropped": (do(lambda d: d["logs"]["orchestrator"]["entries"].pop(0)), "events tell of the message"),
    "last event dropped": (do(lambda d: d["logs"]["orchestrator"]["entries"].pop()), "state replayed from events"),
    "event twice": (
        do(lambda d: d["logs"]["orchestrator"]["entries"].insert(3, d["logs"]["orchestrator"]["entries"][2])),
        "orchestrator leaves are the mission's",
    ),
    "events swapped": (
        do(lambda d: reorder(d["logs"]["orchestrator"]["entries"], 3, 4)),
        "orchestrator leaves are in order",
    ),
    "executor checkpoint": (
        do(lambda d: swap_text(d["logs"]["executor"], "checkpoint", "\n1", "\n2")),
        "executor log checkpoint",
    ),
    "orchestrator checkpoint": (
        do(lambda d: swap_text(d["logs"]["orchestrator"], "checkpoint", "house", "h0use")),
        "orchestrator log checkpoint",
    ),
    "other log's checkpoint": (
        do(lambda d: d["logs"]["executor"].update(checkpoint=d["logs"]["orchestrator"]["checkpoint"])),
        "executor log checkpoint",
    ),
    "continuity": (
        do(lambda d: d["logs"]["executor"]["continuity"][0]["consistency"].append("00" * 32)),
        "executor checkpoints continue each other",
    ),
    "continuity turned round": (
        do(lambda d: swap_keys(d["logs"]["executor"]["continuity"][0], "older", "newer")),
        "executor checkpoints continue each other",
    ),
    "executor forked": (signed_anew("executor"), "executor log has one history"),
    "orchestrator forked": (signed_anew("orchestrator"), "orchestrator log has one history"),
    "orchestrator log dropped": (do(lambda d: d["logs"].update(orchestrator=None)), "orchestrator log"),
    "executor log dropped": (do(lambda d: d["logs"].update(executor=None)), "receipt's leaf"),
}


def swap(first: Data, second: Data, name: str) -> None:
    first[name], second[name] = second[name], first[name]


def swap_keys(data: Data, first: str, second: str) -> None:
    data[first], data[second] = data[second], data[first]


def swap_text(data: Data, name: str, old: str, new: str) -> None:
    assert old in data[name]
    data[name] = data[name].replace(old, new, 1)


def reorder(entries: list[Any], first: int, second: int) -> None:
    entries[first], entries[second] = entries[second], entries[first]


@pytest.mark.parametrize("name", OUTSIDER)
def test_whoever_alters_the_file_is_found(name: str, house: ProofHouse, honest: Data) -> None:
    """Each alteration makes the check fail that is about it."""
    change, expected = OUTSIDER[name]
    data = copy.deepcopy(honest)
    change(data, house)
    assert data != honest
    found = failed(data, house)
    assert any(one.startswith(expected) for one in found), found
