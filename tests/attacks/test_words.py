"""A hostile orchestrator and the words of people: forged, replayed, expired, or of another step, they are refused."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from executor.domain.control import ControlAction
from executor.domain.errors import ExecutorError
from executor.domain.sealed import SealedBytes
from executor.runner.control_ports import ControlEntry
from executor.runner.ports import Claim
from gonogo import sealing
from gonogo.digests import digest
from gonogo.policy import Demand, Requirement
from gonogo.v1 import evidence_pb2
from tests.attacks.target import Target
from tests.unit.executor.house import Person, stamp
from tests.unit.executor.paused_house import SO_FAR, PausedMission

NOW = datetime.now(UTC)
OTHER = digest(b"other")


class Waits(PausedMission):
    """Alice proposed, bob approved, and the first step waits; bob and carol may have a say."""

    def __init__(self, target: Target) -> None:
        super().__init__(target, target.good())
        self.target = target

    def say(self, document: SealedBytes, claim: Claim | None = None) -> None:
        """Hand in what somebody signed, and record it as the engine does."""
        waiting, words = self.waiting(claim), self.words()
        if document.media_type == sealing.RECONCILIATION:
            found = words.reconciliation(document, waiting)
            self.record(ControlAction.RECONCILE, document, found.record.reconciliation_id, found.nonce)
        else:
            vote = words.step_approval(document, waiting)
            self.record(ControlAction.APPROVE_STEP, document, vote.record.approval_id, vote.nonce)

    def record(self, action: ControlAction, document: SealedBytes, document_id: str, nonce: str) -> None:
        entry = ControlEntry(
            request_id=self.target.next_request(),
            body_digest=document.envelope_digest,
            execution_id=self.claim.execution_id,
            mission_id=self.claim.mission_id,
            action=action,
            actor="whoever the orchestrator says",
            reason="",
            roll_back=False,
            step_id="s1",
            document=document,
            recorded_at=datetime.now(UTC),
            document_id=document_id,
            nonce=nonce,
        )
        assert self.target.ledger.record_control(entry) is None

    def controls(self) -> tuple[ControlEntry, ...]:
        return self.target.ledger.controls(self.claim.execution_id)

    def demanding(self, **changes: object) -> Claim:
        """The claim under another demand."""
        demand = self.claim.demand
        assert demand is not None
        return replace(self.claim, demand=replace(demand, **changes))  # type: ignore[arg-type]  # a test's own


@pytest.fixture
def waits(tmp_path: Path) -> Iterator[Waits]:
    """An executor as it is started, one mission of which waits."""
    target = Target(tmp_path)
    yield Waits(target)
    target.close()


def reason(waits: Waits, document: SealedBytes, claim: Claim | None = None) -> str:
    """Why a word is refused; nothing is recorded or used up then."""
    before, size = waits.controls(), waits.target.ledger.audit_size
    with pytest.raises(ExecutorError) as caught:
        waits.say(document, claim)
    assert caught.value.fault.remedy
    assert (waits.controls(), waits.target.ledger.audit_size) == (before, size)
    return caught.value.fault.reason


Attack = Callable[[Waits], SealedBytes]


def as_bob(**changes: object) -> Attack:
    return lambda waits: waits.approve_step(waits.target.bob, **changes)


def word_of_bob(**changes: object) -> Attack:
    return lambda waits: waits.reconciliation(waits.target.bob, **changes)


def spoilt(document: SealedBytes) -> SealedBytes:
    """One letter changed."""
    return replace(document, body=document.body.replace(b'"s1"', b'"s2"'))


def renamed(attack: Attack, media_type: str) -> Attack:
    return lambda waits: replace(attack(waits), media_type=media_type)


def signed_as(media_type: str, attack: Attack, named: str) -> Attack:
    """What bob signed as another kind of document."""

    def made(waits: Waits) -> SealedBytes:
        return replace(waits.target.bob.sign(media_type, attack(waits).body), media_type=named)

    return made


STEP, WORD = sealing.STEP_APPROVAL, sealing.RECONCILIATION
LATE, EARLY = stamp(NOW - timedelta(days=2)), stamp(NOW + timedelta(hours=1))

OF_BOTH: list[tuple[str, Callable[..., Attack], dict[str, object], str]] = [
    ("another executor", as_bob, {"executor_id": "executor-other"}, "EXECUTOR_MISMATCH"),
    ("another mission", as_bob, {"mission_id": "m-2"}, "MISSION_MISMATCH"),
    ("another execution", as_bob, {"execution_id": "x-other"}, "MISSION_MISMATCH"),
    ("another workspace", as_bob, {"workspace_id": "other"}, "WORKSPACE_MISMATCH"),
    ("another segment", as_bob, {"segment": 1}, "STEP_NOT_WAITING"),
    ("another step", as_bob, {"step_id": "s2"}, "STEP_NOT_WAITING"),
    ("another change", as_bob, {"change_set_digest": OTHER}, "PLAN_MISMATCH"),
    ("before another result", as_bob, {"results_digest": OTHER}, "PLAN_MISMATCH"),
    ("no digests", as_bob, {"change_set_digest": "", "results_digest": ""}, "PLAN_MISMATCH"),
    ("in another's name", as_bob, {"approver": "carol"}, "SIGNATURE_INVALID"),
    ("expired", as_bob, {"expires_at": stamp(NOW - timedelta(seconds=1))}, "APPROVAL_EXPIRED"),
    ("older than the cap", as_bob, {"approved_at": LATE}, "APPROVAL_EXPIRED"),
    ("from the future", as_bob, {"approved_at": EARLY, "expires_at": stamp(NOW + timedelta(days=900))}, "NOT_APPROVED"),
    ("without a nonce", as_bob, {"nonce": ""}, "MALFORMED"),
    ("without an id", as_bob, {"approval_id": ""}, "MALFORMED"),
    ("with a strange id", as_bob, {"approval_id": "a\n b"}, "MALFORMED"),
    ("word for another executor", word_of_bob, {"executor_id": "executor-other"}, "EXECUTOR_MISMATCH"),
    ("word on another mission", word_of_bob, {"mission_id": "m-2"}, "MISSION_MISMATCH"),
    ("word on another execution", word_of_bob, {"execution_id": "x-other"}, "MISSION_MISMATCH"),
    ("word on another step", word_of_bob, {"step_id": "s2"}, "STEP_NOT_WAITING"),
    ("word before another result", word_of_bob, {"results_digest": OTHER}, "PLAN_MISMATCH"),
    ("word in another's name", word_of_bob, {"person": "carol"}, "SIGNATURE_INVALID"),
    ("word that is too old", word_of_bob, {"decided_at": LATE}, "APPROVAL_EXPIRED"),
    ("word from the future", word_of_bob, {"decided_at": EARLY}, "NOT_APPROVED"),
    ("word without a nonce", word_of_bob, {"nonce": ""}, "MALFORMED"),
]
ATTACKS = [(name, make(**changes), told) for name, make, changes, told in OF_BOTH]
ATTACKS += [
    ("a letter changed", lambda waits: spoilt(as_bob()(waits)), "SIGNATURE_INVALID"),
    ("a letter of a word changed", lambda waits: spoilt(word_of_bob()(waits)), "SIGNATURE_INVALID"),
    ("nobody's signature", lambda waits: replace(as_bob()(waits), signatures=()), "SIGNATURE_INVALID"),
    (
        "two signatures",
        lambda waits: replace(as_bob()(waits), signatures=as_bob()(waits).signatures * 2),
        "SIGNATURE_INVALID",
    ),
    ("its own key", lambda waits: waits.approve_step(Person("bob")), "APPROVER_UNKNOWN"),
    ("its own key on a word", lambda waits: waits.reconciliation(Person("bob")), "APPROVER_UNKNOWN"),
    ("the agent", lambda waits: waits.approve_step(waits.target.bot), "APPROVER_UNKNOWN"),
    ("the agent's word", lambda waits: waits.reconciliation(waits.target.bot), "APPROVER_UNKNOWN"),
    ("the proposer", lambda waits: waits.approve_step(waits.target.alice), "SELF_APPROVAL"),
    ("the proposer's word", lambda waits: waits.reconciliation(waits.target.alice), "SELF_APPROVAL"),
    ("the mission's approval", lambda waits: waits.request.approvals[0], "MALFORMED"),
    (
        "the mission's approval, renamed",
        lambda waits: replace(waits.request.approvals[0], media_type=STEP),
        "SIGNATURE_INVALID",
    ),
    ("a word for an approval", renamed(word_of_bob(), STEP), "SIGNATURE_INVALID"),
    ("an approval for a word", renamed(as_bob(), WORD), "SIGNATURE_INVALID"),
    ("signed as another kind", signed_as(sealing.APPROVAL, as_bob(), STEP), "SIGNATURE_INVALID"),
    ("a word's text, signed as an approval", signed_as(STEP, word_of_bob(), STEP), "MALFORMED"),
]


@pytest.mark.parametrize(("name", "attack", "told"), ATTACKS, ids=[one[0] for one in ATTACKS])
def test_a_word_about_anything_else_is_refused(waits: Waits, name: str, attack: Attack, told: str) -> None:
    """What is not exactly a word of somebody who may have a say, about this step as it waits, is refused by name."""
    del name
    assert reason(waits, attack(waits)) == told


def test_who_may_approve_approves_the_step(waits: Waits) -> None:
    """A good approval is enough where one person is, and it is told with key, scheme and time."""
    waits.say(as_bob()(waits))
    standing = waits.words().standing(waits.waiting(), waits.controls())
    assert (standing.approved, standing.denied_by, standing.missing) == (True, "", "")
    [vote] = standing.votes
    assert (vote.record.approver, vote.record.key_id) == ("bob", waits.target.bob.key.public.key_id)


def test_a_word_is_good_once(waits: Waits) -> None:
    """The same document, its id in another one, and a nonce of the mission's approval are refused after the first."""
    good = as_bob()(waits)
    waits.say(good)
    assert reason(waits, good) == "NOT_APPROVED"
    assert reason(waits, as_bob(nonce="another")(waits)) == "NOT_APPROVED"
    assert reason(waits, as_bob(approval_id="another", nonce=waits.claim.nonces[0])(waits)) == "NOT_APPROVED"
    assert reason(waits, word_of_bob(nonce="step-once")(waits)) == "NOT_APPROVED"


def test_as_many_persons_as_the_mission_needed(waits: Waits) -> None:
    """Where two were demanded two approve the step, too: neither one person twice nor the proposer makes two."""
    claim = waits.demanding(requirements=(Requirement(count=2),))
    waits.say(as_bob()(waits), claim)
    other_key = waits.approve_step(waits.target.bobs_other_key, approval_id="sa-2", nonce="n-2")
    waits.say(other_key, claim)
    standing = waits.words().standing(waits.waiting(claim), waits.controls())
    assert not standing.approved
    assert "1 of all who may approve" in standing.missing
    waits.say(waits.approve_step(waits.target.carol, approval_id="sa-3", nonce="n-3"), claim)
    assert waits.words().standing(waits.waiting(claim), waits.controls()).approved


def test_a_key_in_a_file_where_hardware_is_demanded(waits: Waits) -> None:
    """A rule that takes only hardware keys takes nothing else for a step; with one that was touched it is approved."""
    claim = waits.demanding(hardware_key=True)
    assert reason(waits, as_bob()(waits), claim) == "HARDWARE_KEY_NEEDED"
    body = sealing.seal(waits.step_approval(approver="carol"))
    by_hand = waits.target.touched_document(STEP, body)
    waits.say(by_hand, claim)
    assert waits.words().standing(waits.waiting(claim), waits.controls()).approved


def test_votes_do_not_outlive_what_they_are_about(waits: Waits) -> None:
    """For another result, another change, after their time or after a withdrawal recorded votes count for nothing."""
    waits.say(as_bob()(waits))
    words, controls = waits.words(), waits.controls()
    assert words.standing(waits.waiting(), controls).approved
    here = waits.waiting()
    assert not words.standing(replace(here, results_digest=OTHER), controls).approved
    assert not words.standing(replace(here, change_set_digest=OTHER), controls).approved
    assert not words.standing(replace(here, step_id="s2"), controls).approved
    waits.target.wall.offset = timedelta(hours=2)
    assert not words.standing(waits.waiting(), controls).approved
    waits.target.wall.offset = timedelta(0)


def test_who_withdrew_approves_no_step(waits: Waits) -> None:
    """A withdrawal voids the vote that was given and every later one; a denial of the mission voids everybody's."""
    target = waits.target
    waits.say(as_bob()(waits))
    target.core.revoke(target.revocation(by=target.bob))
    assert not waits.words().standing(waits.waiting(), waits.controls()).approved
    late = as_bob(approval_id="sa-2", nonce="n-2")(waits)
    assert reason(waits, late) == "APPROVAL_REVOKED"
    target.core.revoke(target.revocation(by=target.carol, kind=evidence_pb2.REVOCATION_KIND_DENY))
    assert reason(waits, waits.approve_step(target.carol)) == "NOT_APPROVED"
    waits.say(waits.reconciliation(target.bob))  # what is, is: nobody has to approve of it


def test_one_no_is_enough_and_anybodys(waits: Waits) -> None:
    """A denial is taken even of the proposer, and outweighs every approval that is there."""
    waits.say(as_bob()(waits))
    deny = {"decision": evidence_pb2.DECISION_DENY, "approval_id": "sa-no", "nonce": "no"}
    waits.say(waits.approve_step(waits.target.alice, **deny))
    standing = waits.words().standing(waits.waiting(), waits.controls())
    assert (standing.approved, standing.denied_by) == (False, "alice")


def test_a_rules_lifetime_caps_a_steps_approval(waits: Waits) -> None:
    """A step's approval lives no longer than one of the mission would."""
    claim = waits.demanding(max_approval_seconds=60)
    old = as_bob(approved_at=stamp(datetime.now(UTC) - timedelta(seconds=61)))(waits)
    assert reason(waits, old, claim) == "APPROVAL_EXPIRED"


def test_without_a_demand_nothing_is_approved(waits: Waits) -> None:
    """What was claimed by a release that kept no demand can not be told to be enough."""
    claim = replace(waits.claim, demand=None)
    assert reason(waits, as_bob()(waits), claim) == "APPROVAL_EXPIRED"
    assert not waits.words().standing(waits.waiting(claim), waits.controls()).approved
    refusing = replace(waits.claim, demand=Demand(refused="so it is", max_approval_seconds=60))
    waits.say(as_bob()(waits), refusing)
    assert not waits.words().standing(waits.waiting(refusing), waits.controls()).approved


def test_a_word_says_what_it_says(waits: Waits) -> None:
    """A reconciliation comes back with who said what by which key."""
    found = waits.words().reconciliation(word_of_bob(happened=False)(waits), waits.waiting(change_set_digest=""))
    assert (found.record.person, found.record.happened) == ("bob", False)
    assert found.record.key_id == waits.target.bob.key.public.key_id
    assert found.reason == "looked at the far side"
    assert waits.waiting().results_digest == SO_FAR


def test_a_control_with_anothers_request_id(waits: Waits) -> None:
    """A request id that was recorded answers with what it stood for, whatever comes with it now."""
    waits.say(as_bob()(waits))
    [known] = waits.controls()
    other = replace(known, body_digest=OTHER, action=ControlAction.STOP, document=None, document_id="", nonce="")
    assert waits.target.ledger.record_control(other) == known
    assert waits.controls() == (known,)
    reused = replace(other, request_id=waits.request.request_id)
    with pytest.raises(ExecutorError) as caught:
        waits.target.ledger.record_control(reused)
    assert caught.value.fault.reason == "REQUEST_REUSED"
