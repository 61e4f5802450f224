"""Whoever alters, omits or makes up something of a repaired mission is found: outsiders, and who holds a key."""

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from client.bundle import Bundle, LogPart, SealedText
from client.bundle_file import bundle_json, read_bundle
from client.changes import net_states, states_fingerprint
from client.proving.proof import prove, trace
from gonogo import sealing
from gonogo.digests import digest
from gonogo.v1 import evidence_pb2, sealed_pb2
from tests.unit.client.proof_house import Edits
from tests.unit.client.proof_parts import after, stamp
from tests.unit.client.repaired_house import RepairedHouse
from tests.unit.client.test_bundle_insiders import event_says, leaf_says, values, without
from tests.unit.client.test_bundle_tampering import Data, altered, do, resigned, signature_flipped

SAMPLES = 40
"""Bytes that are altered of each document; of each leaf it is a quarter."""


@pytest.fixture(scope="module")
def house() -> RepairedHouse:
    return RepairedHouse()


@pytest.fixture(scope="module")
def honest(house: RepairedHouse) -> Bundle:
    return house.bundle()


def is_found(bundle: Bundle, house: RepairedHouse) -> bool:
    return not prove(bundle, house.anchors).valid


def test_the_honest_mission_holds_in_full(house: RepairedHouse, honest: Bundle) -> None:
    """Every check holds, nothing that a proof needs is missing, and its file reads back as what it was."""
    proof = prove(honest, house.anchors, complete=True)
    assert [(one.name, one.detail) for one in proof.failed] == []
    names = {one.name for one in proof.checks}
    assert {
        "segment 1 policy decision",
        "segment 1 report signature",
        "segment 1 gate 7 once saw these documents",
        "step s1 was approved by itself",
        "step approval sa-alice signature",
        "reconciliation rn-1 is here, as it is recorded",
        "receipt tells what was done outside",
        "receipt tells of every repair",
        "events tell of the segments",
        "events tell of the words",
        "result is what the last report promised",
    } <= names
    assert read_bundle(bundle_json(honest)) == honest
    assert {"segment 1 plan", "word", "approval"} <= set(proof.documents)


def test_the_chain_leads_through_every_segment(honest: Bundle) -> None:
    """The repair names the execution and what was done by then, and the receipt names it."""
    links = trace(honest)
    assert all(link.ok for link in links)
    assert [link.kind for link in links][-10:] == [
        *("execution", "segment 1", "segment 1 plan", "segment 1 report", "segment 1 approval", "segment 1 approval"),
        *("step approval", "step approval", "reconciliation", "receipt"),
        "audit leaf",
    ][-10:]
    named = {link.kind: link.named_by for link in links}
    assert (named["segment 1"], named["reconciliation"]) == ("receipt.segments", "receipt.reconciliation")


# --- Whoever holds no key: every byte, and everything that can be left out. ---

Put = Callable[[SealedText], Bundle]


def documents(bundle: Bundle) -> Iterator[tuple[str, SealedText, Put]]:
    """Yield the documents that a repair adds, each with how to put another in its place."""
    [first] = bundle.segments
    assert first.report is not None
    assert bundle.report is not None
    yield "first plan", first.plan, lambda one: replace(bundle, segments=(replace(first, plan=one),))
    yield "first report", first.report, lambda one: replace(bundle, segments=(replace(first, report=one),))
    for number, approval in enumerate(first.approvals):
        yield f"first approval {number}", approval, _approval_put(bundle, number)
    yield "repair plan", bundle.plan, lambda one: replace(bundle, plan=one)
    yield "repair report", bundle.report, lambda one: replace(bundle, report=one)
    for number, word in enumerate(bundle.words):
        yield f"word {number}", word, _word_put(bundle, number)


def _approval_put(bundle: Bundle, number: int) -> Put:
    [first] = bundle.segments

    def put(one: SealedText) -> Bundle:
        approvals = [*first.approvals]
        approvals[number] = one
        return replace(bundle, segments=(replace(first, approvals=tuple(approvals)),))

    return put


def _word_put(bundle: Bundle, number: int) -> Put:
    def put(one: SealedText) -> Bundle:
        words = [*bundle.words]
        words[number] = one
        return replace(bundle, words=tuple(words))

    return put


def flipped(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


def with_body(held: SealedText, body: bytes) -> SealedText:
    """Return a document with other bytes and the digest that they have, as somebody would who knows how."""
    sealed = sealed_pb2.Sealed(media_type=held.sealed.media_type, body=body, signatures=held.sealed.signatures)
    return SealedText(sealed=sealed, digest=digest(body))


@pytest.mark.long
def test_every_altered_byte_of_a_word_is_found(house: RepairedHouse, honest: Bundle) -> None:
    """Each of them, one after the other; the file's digests are altered along."""
    for name, held, put in documents(honest):
        for place in range(len(held.sealed.body)) if name.startswith("word") else ():
            assert is_found(put(with_body(held, flipped(held.sealed.body, place))), house), (name, place)


def test_an_altered_byte_of_a_document_is_found(house: RepairedHouse, honest: Bundle) -> None:
    """A sample of plans, reports, approvals and words; the file's digests are altered along."""
    chosen = random.Random(5)
    for name, held, put in documents(honest):
        for place in chosen.sample(range(len(held.sealed.body)), SAMPLES):
            other = with_body(held, flipped(held.sealed.body, place))
            assert is_found(put(other), house), (name, place)


def test_every_altered_signature_is_found(house: RepairedHouse, honest: Bundle) -> None:
    """One bit of any of them, a second one beside it, and none at all."""
    for name, held, put in documents(honest):
        signature = held.sealed.signatures[0]
        other = sealed_pb2.Signature()
        other.CopyFrom(signature)
        other.signature = flipped(signature.signature, len(signature.signature) // 2)
        for signatures in ([other], []) if "plan" in name else ([other], [], [signature, signature]):
            sealed = sealed_pb2.Sealed(media_type=held.sealed.media_type, body=held.sealed.body, signatures=signatures)
            assert is_found(put(replace(held, sealed=sealed)), house), (name, len(signatures))


def with_leaves(bundle: Bundle, log: LogPart, leaves: tuple[Any, ...]) -> Bundle:
    return replace(bundle, executor_log=replace(log, leaves=leaves))


def test_an_altered_byte_of_a_leaf_is_found(house: RepairedHouse, honest: Bundle) -> None:
    """A sample of each leaf of the executor, those of controls and effects among them."""
    log, chosen = honest.executor_log, random.Random(6)
    assert log is not None
    for number, leaf in enumerate(log.leaves):
        for place in chosen.sample(range(len(leaf.text)), SAMPLES // 4):
            text = flipped(leaf.text.encode(), place).decode("ascii", "replace")
            leaves = (*log.leaves[:number], replace(leaf, text=text), *log.leaves[number + 1 :])
            assert is_found(with_leaves(honest, log, leaves), house), (leaf.text, place)


def test_every_omission_is_found(house: RepairedHouse, honest: Bundle) -> None:
    """A segment, one of its documents, a word, and every leaf that says more than that events were recorded."""
    [first] = honest.segments
    log = honest.executor_log
    assert log is not None
    left_out = [
        replace(honest, segments=()),
        replace(honest, segments=(first, first)),
        replace(honest, segments=(replace(first, segment=1),)),
        replace(honest, segments=(replace(first, report=None),)),
        replace(honest, report=None),
        replace(honest, words=()),
        replace(honest, words=(*honest.words, honest.words[0])),
        *(replace(honest, words=honest.words[:at] + honest.words[at + 1 :]) for at in range(len(honest.words))),
        *(
            replace(honest, segments=(replace(first, approvals=first.approvals[:at] + first.approvals[at + 1 :]),))
            for at in range(len(first.approvals))
        ),
        *(
            with_leaves(honest, log, log.leaves[:at] + log.leaves[at + 1 :])
            for at, leaf in enumerate(log.leaves)
            if "events_recorded" not in leaf.text
        ),
    ]
    assert [at for at, bundle in enumerate(left_out) if not is_found(bundle, house)] == []


def swapped(data: Data) -> None:
    first, documents = data["documents"]["segments"][0], data["documents"]
    for name in ("plan", "report", "approvals"):
        first[name], documents[name] = documents[name], first[name]


OUTSIDER: dict[str, tuple[Callable[[Data, Any], None], str]] = {
    "another repair plan": (altered("plan", "example.org", "evil.org"), "segment 1 plan is named by"),
    "a repair report by another": (resigned("report", "alice"), "segment 1 report signature"),
    "a repair approval by another": (resigned("approvals 0", "olga", "sshsig"), "segment 1 approval a2-alice"),
    "a word by another": (resigned("words 0", "olga", "sshsig"), "step approval sa-alice signature"),
    "a word by an agent": (resigned("words 1", "agent"), "step approval sa-bob signature"),
    "a word's signature": (signature_flipped("words 2"), "reconciliation rn-1 signature"),
    "a word's media type": (
        do(lambda d: d["documents"]["words"][0].update(media_type=sealing.RECONCILIATION)),
        "word 1 is read strictly",
    ),
    "a word of no kind": (
        do(lambda d: d["documents"]["words"][0].update(media_type="text/plain")),
        "word 1 is read strictly",
    ),
    "segments in another order": (do(swapped), "mission is the plan's"),
    "the mission's segment": (do(lambda d: d["mission"].update(segment=0)), "mission's segments are here"),
    "a word's digest": (do(lambda d: d["documents"]["words"][0].update(digest=digest(b""))), "word 1 digest"),
}


@pytest.mark.parametrize("name", OUTSIDER)
def test_whoever_alters_the_file_is_found(name: str, house: RepairedHouse, honest: Bundle) -> None:
    """Each alteration makes the check fail that is about it."""
    change, expected = OUTSIDER[name]
    data = copy.deepcopy(bundle_json(honest))
    change(data, house)
    found = [one.name for one in prove(read_bundle(data), house.anchors).failed]
    assert any(one.startswith(expected) for one in found), found


# --- Executor, orchestrator or a person lie with their own key. ---


def segment(edit: Callable[[Any], Any]) -> Callable[[Any], None]:
    def change(receipt: Any) -> None:
        edit(receipt.segments[0])

    return change


def step(number: int, edit: Callable[[Any], Any]) -> Callable[[Any], None]:
    def change(receipt: Any) -> None:
        edit(receipt.steps[number])

    return change


def other_result(report: Any) -> None:
    """Have the repair promise that the file is there afterwards."""
    change = report.steps[1].changes[0]
    change.kind = evidence_pb2.CHANGE_KIND_METADATA
    change.new.CopyFrom(change.old)
    report.after_fingerprint = states_fingerprint(net_states([[change]])[1])


def leaf(number: int, **changes: Any) -> Callable[[list[Data]], None]:
    return lambda leaves: leaves[number].update(changes)


INSIDER: dict[str, tuple[Edits, str]] = {
    "receipt without the segment": ({"receipt": lambda r: r.segments.pop()}, "segment 1 is named by"),
    "segment of other work": (
        {"receipt": segment(values(journal_digest=digest(b"other")))},
        "segment 1 is named by receipt.segments",
    ),
    "segment of another plan": (
        {"receipt": segment(values(plan_digest=digest(b"other")))},
        "segment 1 receipt names plan and report",
    ),
    "segment on other approvals": (
        {"receipt": segment(lambda s: s.approvals.pop())},
        "segment 1 policy decision",
    ),
    "segment that demands less": (
        {"receipt": segment(lambda s: s.demand.requirements.pop())},
        "segment 1 receipt's demand",
    ),
    "segment with a gate left out": (
        {"receipt": segment(lambda s: s.gates.pop())},
        "segment 1 receipt names the seven gates",
    ),
    "segment of another proposer": (
        {"receipt": segment(lambda s: values(person="bob", sponsor="")(s.proposer))},
        "segment 1 proposer in the receipt",
    ),
    "segment claimed when its approvals were over": (
        {"receipt": segment(values(started_at=stamp(after(9_000))))},
        "segment 1 approval a2-alice was valid at the claim",
    ),
    "repair plan of another execution": ({"repair plan": values(execution_id="x-2")}, "segment 1 is named by"),
    "repair plan of another state": (
        {"repair plan": values(journal_digest=digest(b"other"))},
        "segment 1 is named by receipt.segments",
    ),
    "repair plan of another segment": ({"repair plan": values(segment=2)}, "segment 1 is named by"),
    "repair plan of another workspace": (
        {"repair plan": values(workspace_id="other")},
        "segment 1 report and plan agree",
    ),
    "repair report of another epoch": (
        {"repair report": values(ledger_epoch="epoch-2")},
        "segment 1 receipt names the report's epoch",
    ),
    "repair report that demands less": (
        {"repair report": lambda r: r.demand.ClearField("rules")},
        "segment 1 report's demand",
    ),
    "repair result that is another": (
        {"repair report": other_result},
        "result is what the last report promised",
    ),
    "repair approval of another report": (
        {"repair approval bob": values(report_digest=digest(b"other"))},
        "segment 1 report is named by approval.report_digest",
    ),
    "a step of the repair left out": ({"receipt": lambda r: r.steps.pop()}, "receipt covers every step"),
    "steps in another order": (
        {"receipt": lambda r: values(step_id="s2", operation="delete_path")(r.steps[0])},
        "steps were begun in the order of their plans",
    ),
    "a step of no plan": (
        {"receipt": lambda r: r.steps.add(step_id="r1-s3", operation="write_file", segment=1)},
        "steps were begun in the order of their plans",
    ),
    "a failure of the repair called a success": (
        {"receipt": step(3, values(success=False))},
        "receipt's outcome is borne out by its steps",
    ),
    "a step without its approvals": (
        {"receipt": step(0, lambda s: s.ClearField("step_approvals"))},
        "step s1 was approved by itself",
    ),
    "a step on too few approvals": (
        {"receipt": step(0, lambda s: s.step_approvals.pop())},
        "step s1 was approved by itself",
    ),
    "an approval recorded otherwise": (
        {"receipt": step(0, lambda s: values(approver="olga")(s.step_approvals[0]))},
        "step approval sa-alice is here, as it is recorded",
    ),
    "an approval that nobody gave": (
        {"receipt": step(0, lambda s: s.step_approvals.add(approval_id="sa-olga", approver="olga"))},
        "step approval sa-olga is here, as it is recorded",
    ),
    "an effect told otherwise": (
        {"receipt": step(2, lambda s: values(state=evidence_pb2.EFFECT_STATE_NOT_DONE)(s.effect))},
        "receipt tells what was done outside",
    ),
    "an effect not told": (
        {"receipt": step(2, lambda s: s.ClearField("effect"))},
        "receipt tells what was done outside",
    ),
    "a word told otherwise": (
        {"receipt": step(2, lambda s: values(happened=False)(s.effect.reconciliation))},
        "reconciliation rn-1 is here, as it is recorded",
    ),
    "a control left out": ({"receipt": lambda r: r.controls.pop()}, "receipt tells what people had it do"),
    "a repair left out": ({"receipt": lambda r: r.controls.pop(2)}, "receipt tells of every repair"),
    "a control by another": ({"receipt": lambda r: values(actor="olga")(r.controls[0])}, "receipt tells what people"),
    "step approval of another step": (
        {"step approval alice": values(step_id="s2")},
        "step approval sa-alice is about a step",
    ),
    "step approval of another report's step": (
        {"step approval alice": values(change_set_digest=digest(b"other"))},
        "step approval sa-alice is about a step",
    ),
    "step approval of another execution": (
        {"step approval bob": values(execution_id="x-2")},
        "step approval sa-bob is about a step",
    ),
    "step approval of another segment": (
        {"step approval bob": values(segment=1)},
        "step approval sa-bob is about a step",
    ),
    "step approval of other results": (
        {"step approval bob": values(results_digest=digest(b"other"))},
        "step approval sa-bob is about a pause",
    ),
    "step approval in another's name": (
        {"step approval bob": values(approver="olga")},
        "step approval sa-bob signature",
    ),
    "step approval that was a denial": (
        {"step approval bob": values(decision=evidence_pb2.DECISION_DENY)},
        "step approval sa-bob is here, as it is recorded",
    ),
    "step approval that was over": (
        {"step approval bob": values(expires_at=stamp(after(203)))},
        "step approval sa-bob is in the executor's log",
    ),
    "one nonce for two words": (
        {"step approval bob": values(approval_id="sa-alice")},
        "words are single",
    ),
    "reconciliation of another execution": (
        {"reconciliation": values(execution_id="x-2")},
        "reconciliation rn-1 is about a step",
    ),
    "reconciliation of no step": ({"reconciliation": values(step_id="s9")}, "reconciliation rn-1 is about a step"),
    "claimed twice": ({"leaves": lambda leaves: [*leaves[:6], *leaves[5:]]}, "claimed once"),
    "repair claimed on other approvals": ({"leaves": leaf(5, approvals=[])}, "executor leaf"),
    "repair claimed as the first": ({"leaves": leaf(5, segment=0)}, "claimed once"),
    "control leaf by another": ({"leaves": leaf(1, actor="olga")}, "receipt tells what people had it do"),
    "control leaf of another document": (
        {"leaves": leaf(1, document_digest=digest(b"other"), document_id="sa-x")},
        "step approval sa-alice is in the executor's log",
    ),
    "effect leaf of another execution": (
        {"leaves": leaf_says("effect_claimed", execution_id="x-2")},
        "receipt tells what was done outside",
    ),
    "effect after its end": (
        {"leaves": lambda leaves: [*leaves[:6], *leaves[7:], leaves[6]]},
        "receipt tells what was done outside",
    ),
    "effect that was never claimed": (
        {"leaves": lambda leaves: [*leaves[:6], *leaves[7:]]},
        "receipt tells what was done outside",
    ),
    "event of another segment": (
        {"events": event_says("segment_opened", plan_digest=digest(b"other"))},
        "events tell of the segments",
    ),
    "segment without its event": ({"events": without("segment_opened")}, "events tell of the segments"),
    "event of another approver of a step": (
        {"events": event_says("step_approved", approver="olga")},
        "events tell of the words",
    ),
    "event of another word": ({"events": event_says("step_reconciled", happened=False)}, "events tell of the words"),
    "pause that was another": (
        {"events": event_says("execution_paused", results_digest=digest(b"other"))},
        "step approval sa-alice is about a pause",
    ),
    "repair plan without its event": (
        {"events": lambda events: [one for one in events if getattr(one[1], "segment", 0) != 1 or one[0] != SEALED]},
        "segment 1 events tell of the plan",
    ),
}
SEALED = "plan_sealed"


@pytest.mark.parametrize("name", INSIDER)
def test_whoever_lies_with_a_key_is_found(name: str) -> None:
    """What a holder of a key says and signs is compared with what the others say."""
    edits, expected = INSIDER[name]
    house = RepairedHouse(edits=edits)
    found = [one.name for one in prove(house.bundle(), house.anchors, complete=True).failed]
    assert any(one.startswith(expected) for one in found), found
