"""Taking back a go: before the claim it wins, after it the execution stops before its next step."""

import dataclasses
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from executor.adapters.revocation_spool import RevocationSpool
from executor.domain.control import ControlAction, PauseKind
from executor.domain.errors import ExecutorError, StoreError
from executor.domain.events import ApprovalRevoked
from executor.domain.revocation import RevocationKind
from executor.domain.sealed import SealedBytes
from executor.runner.executions import RefusedError
from executor.runner.ports import Revoked
from executor.runner.requests import ExecuteInput
from executor.runner.stored_run import AnyRun
from gonogo import sealing
from gonogo.policy import KeyUse
from gonogo.signatures import ED25519
from gonogo.v1 import evidence_pb2, plan_pb2
from tests.fakes.spooled import waited
from tests.unit.executor.control_house import ControlHouse
from tests.unit.executor.house import Person

WITHDRAW = evidence_pb2.REVOCATION_KIND_WITHDRAW
DENY = evidence_pb2.REVOCATION_KIND_DENY


class RevocationHouse(ControlHouse):
    """A house with a folder for its host, and steps between which somebody may have second thoughts."""

    patch: pytest.MonkeyPatch

    def more_parts(self) -> dict[str, Any]:
        """The folder is part of the core."""
        return {"spool": RevocationSpool(self.own / "revocations")}

    def creating(
        self, *paths: str, mission: str = "m-1", policy: plan_pb2.FailurePolicy.ValueType = plan_pb2.FAILURE_POLICY_STOP
    ) -> ExecuteInput:
        """A request that makes files, one step for each."""
        steps = [plan_pb2.Step(create_file=plan_pb2.CreateFile(path=path, content=f"{path}\n")) for path in paths]
        plan = self.steps(mission, *steps, policy=policy)
        report = self.dry_run(plan)
        return self.request(plan, report, self.approve(plan, report))

    def receipt(self, request: ExecuteInput) -> evidence_pb2.Receipt:
        """Execute, and read the receipt."""
        progress = self.execute(request)
        assert progress.receipt is not None
        return sealing.open_sealed(progress.receipt.body, evidence_pb2.Receipt)

    def refusal(self, request: ExecuteInput) -> tuple[str, str]:
        """Execute, and read why nothing was done."""
        before = self.tree()
        with pytest.raises(RefusedError) as caught:
            self.execute(dataclasses.replace(request, request_id=self.next_request()))
        assert self.tree() == before
        return caught.value.fault.reason, caught.value.fault.message

    def rows(self) -> list[tuple[str, str, str]]:
        """What the ledger holds of revocations."""
        query = "SELECT mission_id, person, kind FROM revocations ORDER BY 1, 2, 3"
        return list(self.ledger._connection.execute(query).fetchall())

    def leaves(self) -> list[dict[str, Any]]:
        """The entries of the audit log about revocations."""
        found = [json.loads(entry.leaf) for entry in self.ledger.stored_entries()]
        return [entry for entry in found if entry["type"] == "revoked"]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RevocationHouse]:
    """An executor on real files, with real steps."""
    house = RevocationHouse(tmp_path)
    house.patch = monkeypatch
    yield house
    house.close()


class TestBeforeTheClaim:
    def test_a_withdrawn_approval_is_worth_nothing_for_ever(self, house: RevocationHouse) -> None:
        """Neither the approval that was given nor a later one of the same person lets the mission run."""
        request = house.creating("a")
        assert house.core.revoke(house.revocation()) == in_time(house)
        assert house.refusal(request)[0] == "APPROVAL_REVOKED"
        assert request.report is not None
        again = house.approve(request.plan, request.report, approval_id="a-2", nonce="n-2")
        assert house.refusal(dataclasses.replace(request, approvals=(again,)))[0] == "APPROVAL_REVOKED"

    def test_another_persons_approval_still_counts(self, house: RevocationHouse) -> None:
        """A withdrawal takes back one person's word, and nobody else's."""
        request = house.creating("a")
        house.core.revoke(house.revocation())
        assert request.report is not None
        other = house.approve(request.plan, request.report, by=house.second)
        assert house.receipt(dataclasses.replace(request, approvals=(other,))).execution_status == 1

    def test_a_denial_ends_the_mission_whoever_approves(self, house: RevocationHouse) -> None:
        """A denial by somebody who may approve is final, also where that person was not asked."""
        request = house.creating("a")
        revoked = house.core.revoke(house.revocation(by=house.second, kind=DENY))
        assert (revoked.in_time, revoked.stopping, revoked.record.kind) == (True, False, RevocationKind.DENY)
        reason, message = house.refusal(request)
        assert reason == "NOT_APPROVED"
        assert "second denied the mission" in message
        assert "second thoughts" in message

    def test_it_holds_after_a_restart(self, house: RevocationHouse) -> None:
        """A revocation that was answered is on the disk."""
        request = house.creating("a")
        house.core.revoke(house.revocation())
        house.use(house.trust)
        assert house.refusal(request)[0] == "APPROVAL_REVOKED"

    def test_a_mission_nobody_knows_yet_can_be_denied(self, house: RevocationHouse) -> None:
        """Whoever is first may be the one who denies."""
        house.core.revoke(house.revocation(kind=DENY, mission="m-later"))
        assert house.refusal(house.creating("a", mission="m-later"))[0] == "NOT_APPROVED"

    def test_a_denial_that_came_with_a_request_outlives_it(self, house: RevocationHouse) -> None:
        """Once the executor has seen a person's no, leaving it out of the next request helps nobody."""
        request = house.creating("a")
        assert request.report is not None
        denial = house.approve(
            request.plan, request.report, by=house.second, decision=evidence_pb2.DECISION_DENY, comment="not on friday"
        )
        both = dataclasses.replace(request, approvals=(*request.approvals, denial))
        assert house.refusal(both)[0] == "NOT_APPROVED"
        reason, message = house.refusal(request)
        assert reason == "NOT_APPROVED"
        assert "not on friday" in message
        assert house.rows() == [("m-1", "second", "deny")]
        [leaf] = house.leaves()
        assert leaf["document_digest"] == denial.digest

    def test_a_denial_beside_a_forgery_is_taken_note_of(self, house: RevocationHouse) -> None:
        """A spoilt approval before it hides nobody's no."""
        request = house.creating("a")
        assert request.report is not None
        forged = house.approve(request.plan, request.report, by=Person("owner"))
        denial = house.approve(request.plan, request.report, by=house.second, decision=evidence_pb2.DECISION_DENY)
        assert house.refusal(dataclasses.replace(request, approvals=(forged, denial)))[0] == "APPROVER_UNKNOWN"
        assert house.refusal(request)[0] == "NOT_APPROVED"

    def test_said_twice_it_changes_nothing(self, house: RevocationHouse) -> None:
        """The same document and another one of the same meaning are answered with the first, and written once."""
        document = house.revocation()
        first = house.core.revoke(document)
        assert house.core.revoke(document) == first
        assert house.core.revoke(house.revocation()) == first
        assert house.rows() == [("m-1", "owner", "withdraw")]
        assert len(house.leaves()) == 1


def in_time(house: RevocationHouse) -> Revoked:
    """What a first withdrawal by the owner is answered with."""
    [record] = house.ledger.revocations("m-1")
    return Revoked(record=record, in_time=True, stopping=False)


class TestAfterTheClaim:
    @pytest.mark.parametrize(
        "policy",
        [
            plan_pb2.FAILURE_POLICY_PAUSE,
            plan_pb2.FAILURE_POLICY_STOP,
            plan_pb2.FAILURE_POLICY_CONTINUE,
            plan_pb2.FAILURE_POLICY_ROLL_BACK,
        ],
    )
    @pytest.mark.parametrize(
        ("roll_back", "left", "outcome"),
        [(False, {"a"}, evidence_pb2.OUTCOME_PARTIAL), (True, set(), evidence_pb2.OUTCOME_ROLLED_BACK)],
    )
    def test_no_step_begins_after_it(
        self,
        house: RevocationHouse,
        policy: plan_pb2.FailurePolicy.ValueType,
        *,
        roll_back: bool,
        left: set[str],
        outcome: evidence_pb2.Outcome.ValueType,
    ) -> None:
        """The step that runs is ended, no other begins, and whatever the failure policy is, a person decides."""
        request = house.creating("a", "b", "c", policy=policy)
        answers: list[Revoked] = []
        revoke_after_the_first(house, answers)
        house.begin(request)
        pause = house.paused(PauseKind.REVOKED)
        assert (answers[0].in_time, answers[0].stopping) == (False, True)
        assert {path.name for path in house.site.iterdir()} == {"a"}
        assert "stopped before s2: owner withdrew the approval" in pause.reason
        house.control(ControlAction.STOP, roll_back=roll_back)
        receipt = house.ended()
        assert {path.name for path in house.site.iterdir()} == left
        assert (receipt.execution_status, receipt.abort_reason) == (outcome, "STOPPED")
        assert [step.step_id for step in receipt.steps] == ["s1"]
        assert "stopped before s2: owner withdrew the approval" in receipt.errors[0]

    def test_when_nobody_decides_the_plan_s_default_is_done(self, house: RevocationHouse) -> None:
        """It does not wait for ever."""
        revoke_after_the_first(house, [])
        house.begin(house.creating("a", "b"))
        pause = house.paused(PauseKind.REVOKED)
        assert pause.deadline is not None
        house.wall.ahead = timedelta(days=2)
        receipt = house.ended()
        assert (receipt.execution_status, list(house.site.iterdir())) == (evidence_pb2.OUTCOME_ROLLED_BACK, [])

    def test_a_withdrawn_approval_never_holds_again(self, house: RevocationHouse) -> None:
        """A resume finds it taken back and waits on, also after a restart."""
        revoke_after_the_first(house, [])
        house.begin(house.creating("a", "b"))
        pause = house.paused(PauseKind.REVOKED)
        house.control(ControlAction.RESUME)
        assert house.until(lambda one: one.pause is not None and one.pause.kind is PauseKind.REVOKED).pause is not None
        house.restart()
        house.paused(PauseKind.REVOKED)
        house.control(ControlAction.RESUME)
        again = house.paused(PauseKind.REVOKED)
        assert (again.deadline, again.reason) == (pause.deadline, pause.reason)
        assert {path.name for path in house.site.iterdir()} == {"a"}
        house.control(ControlAction.STOP)
        house.ended()

    def test_what_is_told_while_it_happens(self, house: RevocationHouse) -> None:
        """Events say who took it back, that the execution paused, who ended it, and how it ended."""
        revoke_after_the_first(house, [], kind=DENY)
        house.begin(house.creating("a", "b"))
        house.paused(PauseKind.REVOKED)
        house.control(ControlAction.STOP)
        house.ended()
        told = house.kinds()
        at = told.index("ApprovalRevoked")
        assert told[at:] == [
            "ApprovalRevoked",
            "ExecutionPaused",
            "ExecutionStopped",
            "ExecutionCompleted",
            "ReceiptIssued",
        ]
        [revoked] = house.payloads(ApprovalRevoked)
        assert (revoked.approver, revoked.denied) == ("owner", True)

    def test_before_the_first_step_nothing_is_committed(self, house: RevocationHouse) -> None:
        """Claimed and then taken back, the mission is used up and the workspace untouched."""
        house.during = lambda: house.core.revoke(house.revocation())
        house.begin(house.creating("a", "b"))
        house.paused(PauseKind.REVOKED)
        house.control(ControlAction.STOP)
        receipt = house.ended()
        assert (receipt.execution_status, list(receipt.steps)) == (evidence_pb2.OUTCOME_ABORTED, [])
        assert list(house.site.iterdir()) == []

    @pytest.mark.parametrize("again", [True, False], ids=["for a moment", "for good"])
    def test_a_full_disk_keeps_nobody_from_stopping(self, house: RevocationHouse, *, again: bool) -> None:
        """What can not be recorded is answered as such, and stops what runs; it is recorded once there is room."""
        revoke, errors = house.ledger.revoke, []

        def full(_: object) -> Revoked:
            raise StoreError("STORE_FULL", "the disk is full", "make room")

        def withdraw() -> None:
            house.patch.setattr(house.ledger, "revoke", full)
            with pytest.raises(StoreError) as caught:
                house.core.revoke(house.revocation())
            errors.append(caught.value.fault.reason)
            if again:
                house.patch.setattr(house.ledger, "revoke", revoke)

        house.during = withdraw
        house.begin(house.creating("a", "b"))
        house.paused(PauseKind.REVOKED)
        house.control(ControlAction.STOP)
        receipt = house.ended()
        house.idle()
        assert errors == ["STORE_FULL"]
        assert (receipt.abort_reason, list(house.site.iterdir())) == ("STOPPED", [])
        assert len(house.rows()) == again
        assert (house.core._revocations._stops, house.core._revocations._unrecorded) == ({}, set())

    def test_somebody_elses_withdrawal_stops_nothing(self, house: RevocationHouse) -> None:
        """Who has not approved has nothing to take back from a running execution."""
        answers: list[Revoked] = []
        house.during = lambda: answers.append(house.core.revoke(house.revocation(by=house.second)))
        assert house.receipt(house.creating("a", "b")).execution_status == evidence_pb2.OUTCOME_SUCCESS
        assert (answers[0].in_time, answers[0].stopping) == (False, False)

    def test_after_the_end_it_is_too_late(self, house: RevocationHouse) -> None:
        """It is recorded, and the answer says that nothing is stopped by it."""
        house.receipt(house.creating("a"))
        revoked = house.core.revoke(house.revocation())
        assert (revoked.in_time, revoked.stopping) == (False, False)
        assert house.core._revocations._stops == {}

    def test_of_a_revocation_and_a_claim_one_is_first(self, house: RevocationHouse) -> None:
        """Raced by threads, either the claim is refused or the execution is told to stop; never neither, never both."""
        for number in range(12):
            request = house.creating(f"file-{number}", mission=f"m-{number}")
            revocation = house.revocation(mission=f"m-{number}")
            raced = Race(house, request, revocation)
            assert raced.refused == raced.answer.in_time
            assert raced.refused != raced.ran
            if raced.refused:
                assert not (house.site / f"file-{number}").exists()
            assert house.core._revocations._stops == {}


class Race:
    """An execution and a revocation, let go at the same moment; what waits because of that is stopped."""

    def __init__(self, house: RevocationHouse, request: ExecuteInput, revocation: SealedBytes) -> None:
        self.refused = self.ran = False
        self._house, self._request = house, request
        barrier = threading.Barrier(3)
        answers: list[Revoked] = []

        def revoke() -> None:
            barrier.wait()
            answers.append(house.core.revoke(revocation))

        threads = [threading.Thread(target=revoke), threading.Thread(target=self._execute, args=(barrier,))]
        for thread in threads:
            thread.start()
        barrier.wait()
        while threads[1].is_alive():
            with suppress(ExecutorError):
                house.control(ControlAction.STOP, mission_id=request.named.mission_id)
            threads[1].join(0.01)
        threads[0].join()
        [self.answer] = answers

    def _execute(self, barrier: threading.Barrier) -> None:
        barrier.wait()
        try:
            attached: list[AnyRun] = []
            self._house.core.execute(self._request, attached.append)
            self.ran = True
        except RefusedError as error:
            assert error.fault.reason == "APPROVAL_REVOKED"  # noqa: PT017 - the other branch is as good
            self.refused = True


def revoke_after_the_first(
    house: RevocationHouse, answers: list[Revoked], kind: evidence_pb2.RevocationKind.ValueType = WITHDRAW
) -> None:
    """Have the owner take it back while the first step is being committed."""
    workspace = house.workspace
    committer = workspace.committer(house.objects)
    apply = type(committer).apply

    def applied(self: Any, *arguments: Any, **named: Any) -> Any:
        if not answers:
            answers.append(house.core.revoke(house.revocation(kind=kind)))
        return apply(self, *arguments, **named)

    house.patch.setattr(type(committer), "apply", applied)


class TestWhoMay:
    @pytest.fixture
    def stranger(self) -> Person:
        """Somebody with a key that the trust file does not name."""
        return Person("owner")

    def refused(self, house: RevocationHouse, document: SealedBytes) -> str:
        with pytest.raises(ExecutorError) as caught:
            house.core.revoke(document)
        assert house.rows() == []
        assert caught.value.fault.remedy
        return caught.value.fault.reason

    def test_a_stranger(self, house: RevocationHouse, stranger: Person) -> None:
        """A key that the trust file does not name takes nothing back."""
        assert self.refused(house, house.revocation(by=stranger)) == "APPROVER_UNKNOWN"

    def test_a_key_that_only_proposes(self, house: RevocationHouse) -> None:
        """Whoever may not approve may not deny."""
        persons = tuple(
            dataclasses.replace(one, keys=tuple(dataclasses.replace(key, use=KeyUse.PROPOSE) for key in one.keys))
            if one.person_id == "second"
            else one
            for one in house.trust.policy.persons
        )
        house.with_policy(persons=persons)
        assert self.refused(house, house.revocation(by=house.second, kind=DENY)) == "APPROVER_UNKNOWN"

    def test_another_persons_name(self, house: RevocationHouse) -> None:
        """A person can not withdraw in somebody else's name."""
        assert self.refused(house, house.revocation(by=house.second, person="owner")) == "SIGNATURE_INVALID"

    def test_another_executor(self, house: RevocationHouse) -> None:
        """What was signed for another executor says nothing here."""
        assert self.refused(house, house.revocation(executor_id="executor-other")) == "EXECUTOR_MISMATCH"

    def test_an_altered_body(self, house: RevocationHouse) -> None:
        """The signature is over the carried bytes."""
        good = house.revocation()
        altered = dataclasses.replace(good, body=good.body.replace(b"m-1", b"m-2"))
        assert self.refused(house, altered) == "SIGNATURE_INVALID"

    def test_a_scheme_that_the_key_is_not_listed_for(self, house: RevocationHouse) -> None:
        """The same key in another scheme is refused."""
        body = house.revocation().body
        assert self.refused(house, house.owner.sign(sealing.REVOCATION, body, scheme=ED25519)) == "SIGNATURE_INVALID"

    def test_an_approval_in_its_place(self, house: RevocationHouse) -> None:
        """Only revocations are read here; an approval is none, nor is its signature one over a revocation."""
        [approval] = house.creating("a").approvals
        assert self.refused(house, approval) == "MALFORMED"
        dressed = dataclasses.replace(approval, media_type=sealing.REVOCATION)
        assert self.refused(house, dressed) == "SIGNATURE_INVALID"

    @pytest.mark.parametrize(
        "changes",
        [{"mission_id": ""}, {"nonce": ""}, {"revocation_id": ""}, {"kind": 0}, {"mission_id": "a\nb"}],
        ids=str,
    )
    def test_what_is_not_whole(self, house: RevocationHouse, changes: dict[str, Any]) -> None:
        """A revocation without its ids, its nonce or its kind is none."""
        assert self.refused(house, house.revocation(**changes)) in {"MALFORMED", "PLAN_INVALID"}

    def test_no_strict_text(self, house: RevocationHouse) -> None:
        """A good signature over another text of the same values is refused."""
        body = house.revocation().body.replace(b"mission_id", b"missionId")
        assert self.refused(house, house.owner.sign(sealing.REVOCATION, body)) == "MALFORMED"

    def test_too_large(self, house: RevocationHouse) -> None:
        """The size is bounded before any signature is looked at."""
        assert self.refused(house, house.revocation(reason="x" * 20_000)) == "TOO_LARGE"

    def test_an_expired_trust_file_keeps_nobody_from_stopping(self, house: RevocationHouse) -> None:
        """What may still be stopped does not depend on whether anything may still begin."""
        request = house.creating("a")
        house.use(dataclasses.replace(house.trust, expires_at=house.clock.now()))
        assert house.refusal(request)[0] == "TRUST_EXPIRED"
        assert house.core.revoke(house.revocation()).in_time


class TestTheHostsFolder:
    def test_a_running_executor_takes_it_and_answers(self, house: RevocationHouse) -> None:
        """What is left in the folder is recorded within a moment, and answered."""
        request = house.creating("a")
        spool = RevocationSpool(house.own / "revocations")
        name = spool.hand_in(house.revocation())
        answer = waited(spool, name)
        assert (answer["in_time"], answer["stopping"]) == (True, False)
        house.core.close()  # after whatever it is about to do
        assert spool.waiting() == ()
        assert house.refusal(request)[0] == "APPROVAL_REVOKED"

    def test_what_was_left_while_nothing_ran_holds_from_the_start(self, house: RevocationHouse) -> None:
        """It is taken in before the first request can be served."""
        request = house.creating("a")
        document = house.revocation(kind=DENY)
        house.core.close()
        RevocationSpool(house.own / "revocations").hand_in(document)
        house.use(house.trust)
        assert house.rows() == [("m-1", "owner", "deny")]
        assert house.refusal(request)[0] == "NOT_APPROVED"

    def test_what_is_not_good_is_answered_with_its_reason(self, house: RevocationHouse) -> None:
        """A stranger's document and a file of anything are refused, and do not wait for ever."""
        spool = RevocationSpool(house.own / "revocations")
        name = spool.hand_in(house.revocation(by=Person("owner")))
        assert waited(spool, name)["reason"] == "APPROVER_UNKNOWN"
        (house.own / "revocations" / "x.revocation").write_bytes(b'{"body": 3')
        assert waited(spool, "x")["reason"] == "MALFORMED"
        assert house.rows() == []


def test_nothing_is_kept_of_what_was_refused(house: RevocationHouse) -> None:
    """Thousands of documents that are no good leave neither rows nor anything in memory."""
    stranger = Person("owner")
    document = house.revocation(by=stranger)
    for number in range(2_000):
        spoilt = dataclasses.replace(document, body=document.body + b" " * (number % 7))
        with pytest.raises(ExecutorError):
            house.core.revoke(spoilt)
    assert house.rows() == []
    assert house.core._revocations._stops == {}
