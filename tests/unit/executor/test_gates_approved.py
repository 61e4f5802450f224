"""Gate 3: whose signatures count, over what, for how long, and that who proposed does not approve."""

import dataclasses
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from executor.domain.errors import ExecutorError, GateRefusedError
from executor.domain.sealed import Signature
from executor.runner.executions import RefusedError
from executor.runner.ports import Standing
from executor.runner.requests import ExecuteInput
from gonogo import sealing
from gonogo.signatures import ED25519
from gonogo.v1 import evidence_pb2
from tests.unit.executor.gate_house import approvals, house, reason, refused
from tests.unit.executor.house import House, Person, stamp

__all__ = ["house"]


class TestApproved:
    def test_nobody_approved(self, house: House) -> None:
        """Gate 3: without an approval nothing happens."""
        assert reason(house, approvals(house.ready())) == (3, "NOT_APPROVED")

    def test_a_denial_is_final(self, house: House) -> None:
        """Gate 3: one valid denial refuses, also beside enough approvals, and the refusal names who denied."""
        request = house.ready()
        assert request.report is not None
        denial = house.approve(request.plan, request.report, by=house.second, decision=evidence_pb2.DECISION_DENY)
        error = refused(house, approvals(request, *request.approvals, denial))
        assert error.fault.reason == "NOT_APPROVED"
        assert "second denied" in error.fault.message

    def test_a_stranger_approved(self, house: House) -> None:
        """Gate 3: a key that the trust file does not name approves nothing."""
        request = house.ready()
        assert request.report is not None
        forged = house.approve(request.plan, request.report, by=Person("owner"))
        assert reason(house, approvals(request, forged)) == (3, "APPROVER_UNKNOWN")

    def test_a_signature_under_another_name(self, house: House) -> None:
        """Gate 3: a person can not approve in somebody else's name."""
        request = house.ready()
        assert request.report is not None
        spoofed = house.approve(request.plan, request.report, by=house.second, approver="owner")
        assert reason(house, approvals(request, spoofed)) == (3, "SIGNATURE_INVALID")

    def test_an_altered_body(self, house: House) -> None:
        """Gate 3: the signature is over the carried bytes, so no letter of an approval can change."""
        request = house.ready()
        [good] = request.approvals
        altered = dataclasses.replace(good, body=good.body.replace(b"DECISION_APPROVE", b"DECISION_APPROVe"))
        assert reason(house, approvals(request, altered)) == (3, "SIGNATURE_INVALID")

    @pytest.mark.parametrize(
        "spoil",
        [
            pytest.param(lambda one: (one,)[1:], id="unsigned"),
            pytest.param(lambda one: (one, one), id="signed twice"),
            pytest.param(lambda one: (dataclasses.replace(one, scheme=ED25519),), id="scheme not listed"),
            pytest.param(lambda one: (dataclasses.replace(one, scheme="none"),), id="unknown scheme"),
            pytest.param(lambda one: (dataclasses.replace(one, extra=b"x"),), id="extra data"),
            pytest.param(lambda one: (dataclasses.replace(one, signature=b""),), id="empty signature"),
        ],
    )
    def test_an_envelope_that_proves_nothing(
        self, house: House, spoil: Callable[[Signature], tuple[Signature, ...]]
    ) -> None:
        """Gate 3: an approval has exactly one signature, in a scheme that the trust file lists for the key."""
        request = house.ready()
        [good] = request.approvals
        spoilt = dataclasses.replace(good, signatures=spoil(good.signatures[0]))
        assert reason(house, approvals(request, spoilt)) == (3, "SIGNATURE_INVALID")

    def test_a_signature_from_another_namespace(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        """Gate 3: what the same SSH key signed for Git, over the very same bytes, is no approval."""
        request = house.ready()
        [good] = request.approvals
        with monkeypatch.context() as patched:
            patched.setattr("gonogo.sshsig.NAMESPACE", b"git")
            foreign = house.owner.sign(sealing.APPROVAL, good.body)
        assert reason(house, approvals(request, foreign)) == (3, "SIGNATURE_INVALID")

    def test_a_signature_over_another_kind_of_document(self, house: House) -> None:
        """Gate 3: the media type is signed too, so a signature over a plan is none over an approval."""
        request = house.ready()
        [good] = request.approvals
        crossed = dataclasses.replace(house.owner.sign(sealing.PLAN, good.body), media_type=sealing.APPROVAL)
        assert reason(house, approvals(request, crossed)) == (3, "SIGNATURE_INVALID")

    def test_an_approval_that_is_over(self, house: House) -> None:
        """Gate 3: from its expiry on an approval is worth nothing."""
        request = house.ready()
        assert request.report is not None
        past = datetime.now(UTC) - timedelta(seconds=1)
        old = house.approve(
            request.plan,
            request.report,
            approved_at=stamp(past),
            not_before=stamp(past),
            expires_at=stamp(past + timedelta(milliseconds=500)),
        )
        assert reason(house, approvals(request, old)) == (3, "APPROVAL_EXPIRED")

    def test_a_lifetime_beyond_the_cap(self, house: House) -> None:
        """Gate 3: whatever expiry an approval names, the executor takes it for as long as its policy says."""
        request = house.ready()
        assert request.report is not None
        now = datetime.now(UTC)
        long = house.approve(
            request.plan,
            request.report,
            approved_at=stamp(now - timedelta(days=2)),
            not_before=stamp(now - timedelta(days=2)),
            expires_at=stamp(now + timedelta(days=365)),
        )
        assert reason(house, approvals(request, long)) == (3, "APPROVAL_EXPIRED")

    def test_an_approval_for_later(self, house: House) -> None:
        """Gate 3: before its time an approval is none."""
        request = house.ready()
        assert request.report is not None
        early = house.approve(request.plan, request.report, not_before=stamp(datetime.now(UTC) + timedelta(minutes=5)))
        assert reason(house, approvals(request, early)) == (3, "NOT_APPROVED")

    def test_an_expired_approval_stays_expired_when_the_clock_is_set_back(self, house: House) -> None:
        """Gate 3: effective time never runs backwards, over a restart neither."""
        now = datetime.now(UTC)
        plan = house.sealed_plan()
        report = house.dry_run(plan)
        short = house.approve(plan, report, expires_at=stamp(now + timedelta(seconds=15)))
        later = int((now + timedelta(seconds=25)).timestamp() * 1_000_000)
        house.ledger._connection.execute("UPDATE meta SET value = ? WHERE key = 'clock_high_water_us'", (str(later),))
        house.use(house.trust)
        assert reason(house, house.request(plan, report, short)) == (3, "APPROVAL_EXPIRED")

    def test_an_approval_that_runs_out_while_the_workspace_is_busy(self, house: House) -> None:
        """Gate 3: an approval must still hold at the claim, after the wait for the workspace."""
        request = house.ready()
        assert request.report is not None
        soon = house.approve(
            request.plan, request.report, expires_at=stamp(datetime.now(UTC) + timedelta(milliseconds=400))
        )
        held = threading.Event()

        def hold() -> None:
            with house.workspace.lock():
                held.set()
                time.sleep(0.6)

        holder = threading.Thread(target=hold)
        holder.start()
        assert held.wait(5)
        assert reason(house, approvals(request, soon)) == (3, "APPROVAL_EXPIRED")
        holder.join()

    def test_too_few_persons(self, house: House) -> None:
        """Gate 3: where two must approve, one is not enough, and two are."""
        house.with_policy(approvals_required=2)
        request = house.ready()
        assert request.report is not None
        assert reason(house, request) == (3, "QUORUM_NOT_MET")
        both = approvals(request, *request.approvals, house.approve(request.plan, request.report, by=house.second))
        assert house.execute(both).ended

    def test_the_same_person_twice_is_one_person(self, house: House) -> None:
        """Gate 3: two approvals by one person, with two of their keys, fill one place."""
        spare = Person("owner", scheme=ED25519)
        house.close()
        owner = house.trust.policy.persons[0]
        key = dataclasses.replace(
            owner.keys[0], key_id=spare.key.public.key_id, scheme=ED25519, public_key=spare.key.public.line
        )
        persons = (dataclasses.replace(owner, keys=(*owner.keys, key)), *house.trust.policy.persons[1:])
        policy = dataclasses.replace(house.trust.policy, approvals_required=2, persons=persons)
        house.trust = dataclasses.replace(house.trust, policy=policy)
        house.open()
        request = house.ready()
        assert request.report is not None
        again = house.approve(request.plan, request.report, by=spare, approval_id="a-2", nonce="n-2")
        assert reason(house, approvals(request, *request.approvals, again)) == (3, "QUORUM_NOT_MET")

    def test_an_approval_of_another_report_of_the_same_plan(self, house: House) -> None:
        """Gate 3: who approved the first dry run did not approve the second."""
        plan = house.sealed_plan()
        first, second = house.dry_run(plan), house.dry_run(plan)
        assert reason(house, house.request(plan, second, house.approve(plan, first))) == (3, "NOT_APPROVED")

    def test_an_approval_given_under_another_policy(self, house: House) -> None:
        """Gate 3: the approval names the policy that the report showed."""
        plan = house.sealed_plan()
        report = house.dry_run(plan)
        other = house.approve(plan, report, policy_digest="sha256:" + "0" * 64)
        assert reason(house, house.request(plan, report, other)) == (3, "NOT_APPROVED")

    def test_an_approval_that_was_used_before(self, house: House) -> None:
        """Gate 3: an approval's id and nonce are good for one execution, whatever mission they name next."""
        first = house.ready()
        [used] = first.approvals
        house.execute(first)
        house.executioner.runs.clear()
        old = sealing.open_sealed(used.body, evidence_pb2.Approval)
        plan = house.sealed_plan(house.plan(mission="m-2", path="other.txt"))
        report = house.dry_run(plan)
        again = house.approve(plan, report, nonce=old.nonce)
        with pytest.raises(RefusedError) as caught:
            house.execute(house.request(plan, report, again))
        assert caught.value.fault.reason == "NOT_APPROVED"
        assert house.ledger.standing("m-2") is Standing.FREE
        assert house.executioner.runs == []

    def test_no_policy_approves_nothing(self, house: House) -> None:
        """Gate 3: a trust file without a policy refuses everything."""
        request = house.ready()
        house.without_policy()
        assert reason(house, request) == (3, "POLICY_REFUSES")
        with pytest.raises(ExecutorError) as caught:
            house.dry_run(house.sealed_plan(house.plan(mission="m-2")))
        assert caught.value.fault.reason == "STATE_FORBIDS"


class TestSelfApproval:
    @pytest.fixture
    def strict(self, house: House) -> House:
        """The house, where a proposer's own approval does not count."""
        house.with_policy(self_approval=False)
        return house

    def ready(self, house: House, *, proposed_by: Person | None, approved_by: Person) -> ExecuteInput:
        plan = house.sealed_plan(by=proposed_by)
        report = house.dry_run(plan)
        return house.request(plan, report, house.approve(plan, report, by=approved_by))

    def test_an_unknown_proposer_may_be_the_approver(self, strict: House) -> None:
        """A name in the plan proves nothing: without the proposer's signature the strictest holds."""
        assert reason(strict, self.ready(strict, proposed_by=None, approved_by=strict.second)) == (3, "SELF_APPROVAL")

    def test_the_proposer_does_not_count(self, strict: House) -> None:
        """Who signed the plan can not also be the one who approves it."""
        assert reason(strict, self.ready(strict, proposed_by=strict.owner, approved_by=strict.owner)) == (
            3,
            "SELF_APPROVAL",
        )

    def test_somebody_else_counts(self, strict: House) -> None:
        """A plan that its proposer signed runs with another person's approval."""
        assert strict.execute(self.ready(strict, proposed_by=strict.owner, approved_by=strict.second)).ended

    def test_a_signature_of_somebody_who_is_not_the_named_proposer(self, strict: House) -> None:
        """The plan names the owner and is signed by somebody else: neither a dry run nor an execution takes it."""
        with pytest.raises(GateRefusedError) as caught:
            self.ready(strict, proposed_by=strict.second, approved_by=strict.owner)
        assert caught.value.fault.reason == "SIGNATURE_INVALID"
        request = self.ready(strict, proposed_by=None, approved_by=strict.second)
        plan = strict.second.sign(sealing.PLAN, request.plan.body)
        assert reason(strict, dataclasses.replace(request, plan=plan)) == (3, "SIGNATURE_INVALID")

    def test_a_signature_that_was_left_out_after_the_dry_run(self, strict: House) -> None:
        """Who was proven to propose at the dry run does not become unknown by an orchestrator's leaving it out."""
        request = self.ready(strict, proposed_by=strict.owner, approved_by=strict.owner)
        bare = dataclasses.replace(request, plan=dataclasses.replace(request.plan, signatures=()))
        assert reason(strict, bare) == (3, "SELF_APPROVAL")
        assert "proposed" in refused(strict, bare).fault.message

    def test_a_spoilt_signature_on_the_plan(self, strict: House) -> None:
        """A plan signature that does not hold is refused as such."""
        request = self.ready(strict, proposed_by=strict.owner, approved_by=strict.second)
        [good] = request.plan.signatures
        spoilt = dataclasses.replace(good, signature=good.signature[:-1] + bytes([good.signature[-1] ^ 1]))
        plan = dataclasses.replace(request.plan, signatures=(spoilt,))
        assert reason(strict, dataclasses.replace(request, plan=plan)) == (3, "SIGNATURE_INVALID")
