"""Gate 3 under rules: the executor's own facts decide what is demanded, and report and receipt tell it."""

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from executor.domain.report import Report
from executor.domain.sealed import SealedBytes, Signature
from executor.runner.executions import RefusedError
from executor.runner.requests import ExecuteInput
from executor.runner.trust import TrustInForce
from gonogo import sealing
from gonogo.policy import Condition, Group, Key, KeyUse, PersonKind, ProposerKind, Requirement, Rule
from gonogo.policy import Person as TrustedPerson
from gonogo.signatures import ED25519
from gonogo.v1 import evidence_pb2
from tests.fakes.security_key import SecurityKey
from tests.unit.executor.house import House, Person, stamp


class PolicyHouse(House):
    """A house with an agent, a group and whatever rules a test wants."""

    def __init__(self, root: Path) -> None:
        self.third = Person("third")
        self.bot = Person("bot", scheme=ED25519)
        super().__init__(root)

    @property
    def persons(self) -> dict[str, list[Person]]:
        return {"owner": [self.owner], "second": [self.second], "third": [self.third]}

    def rules(self, *rules: Rule, approvals_required: int = 1, self_approval: bool = False) -> None:
        """Restart under these rules, with an agent of the owner's and a group of the second and third person."""
        key = Key(
            key_id=self.bot.key.public.key_id,
            scheme=ED25519,
            public_key=self.bot.key.public.line,
            use=KeyUse.PROPOSE,
        )
        bot = TrustedPerson(person_id="bot", keys=(key,), kind=PersonKind.AGENT, sponsor="owner")
        known = tuple(one for one in self.trust.policy.persons if one.person_id != "bot")
        self.with_policy(
            rules=rules,
            groups=(Group(group_id="sre", members=("second", "third")),),
            persons=(*known, bot),
            approvals_required=approvals_required,
            self_approval=self_approval,
        )

    def proposed(self, by: Person, *, mission: str = "m-1", **changes: str) -> SealedBytes:
        """A plan that names its proposer and carries that signature."""
        plan = self.plan(mission=mission, **changes)
        plan.proposer = by.name
        return self.sealed_plan(plan, by=by)

    def approved(self, plan: SealedBytes, *by: Person) -> ExecuteInput:
        """The plan dry run, and approved by some."""
        report = self.dry_run(plan)
        return self.request(plan, report, *(self.approve(plan, report, by=one) for one in by))


@pytest.fixture
def house(tmp_path: Path) -> Iterator[PolicyHouse]:
    """A house whose rules a test makes."""
    house = PolicyHouse(tmp_path)
    yield house
    house.close()


def reason(house: House, request: ExecuteInput) -> str:
    """Why the executor refuses; nothing has been touched then."""
    before = house.files()
    with pytest.raises(RefusedError) as caught:
        house.execute(dataclasses.replace(request, request_id=house.next_request()))
    assert house.files() == before
    assert house.executioner.runs == []
    assert caught.value.fault.remedy
    return caught.value.fault.reason


def receipt_of(house: House, request: ExecuteInput) -> evidence_pb2.Receipt:
    progress = house.execute(request)
    assert progress.receipt is not None
    return sealing.open_sealed(progress.receipt.body, evidence_pb2.Receipt)


def report_of(request: ExecuteInput) -> evidence_pb2.Report:
    assert request.report is not None
    return sealing.open_sealed(request.report.body, evidence_pb2.Report)


SRE = Rule(rule_id="writes", when=Condition(step_kinds=("write_file",)), require=(Requirement(count=1, group="sre"),))


class TestDemand:
    def test_every_matching_rule_adds_and_one_person_fills_one_place(self, house: PolicyHouse) -> None:
        """One of everybody and one of the group are two persons, whoever they are."""
        house.rules(SRE, self_approval=True)
        plan = house.sealed_plan()
        assert reason(house, house.approved(plan, house.second)) == "QUORUM_NOT_MET"
        assert reason(house, house.approved(plan, house.owner)) == "QUORUM_NOT_MET"
        assert house.execute(house.approved(plan, house.second, house.third)).ended

    def test_a_rule_that_refuses_is_told_by_the_report_and_approved_by_nobody(self, house: PolicyHouse) -> None:
        """The dry run is made and its report says that the policy refuses; no approvals help."""
        house.rules(Rule(rule_id="frozen", when=Condition(workspaces=("site",)), refuse=True), self_approval=True)
        request = house.approved(house.sealed_plan(), house.owner, house.second, house.third)
        assert report_of(request).demand.refused == "rule frozen refuses this"
        assert reason(house, request) == "POLICY_REFUSES"

    def test_the_least_ladder_level_of_a_rule(self, house: PolicyHouse) -> None:
        """A dry run with less isolation than a rule demands can not be approved into an execution."""
        house.rules(Rule(rule_id="isolated", min_ladder_level=3), self_approval=True)
        assert reason(house, house.approved(house.sealed_plan(), house.owner)) == "LADDER_TOO_LOW"

    def test_a_rules_lifetime_caps_what_the_policy_allows(self, house: PolicyHouse) -> None:
        """The shortest lifetime among policy and matching rules holds."""
        house.rules(Rule(rule_id="short", max_approval_seconds=60), self_approval=True)
        plan = house.sealed_plan()
        report = house.dry_run(plan)
        early = stamp(datetime.now(UTC) - timedelta(seconds=61))
        old = house.approve(plan, report, approved_at=early, not_before=early)
        assert reason(house, house.request(plan, report, old)) == "APPROVAL_EXPIRED"
        assert house.execute(house.request(plan, report, house.approve(plan, report))).ended

    def test_a_plain_key_where_a_rule_wants_hardware(self, house: PolicyHouse) -> None:
        """A signature of a key in a file does not count where the touch of a hardware key is demanded."""
        house.rules(Rule(rule_id="touch", hardware_key=True), self_approval=True)
        assert reason(house, house.approved(house.sealed_plan(), house.owner)) == "HARDWARE_KEY_NEEDED"

    def test_the_facts_are_the_executors_own(self, house: PolicyHouse) -> None:
        """Numbers of changes and bytes come from the dry run, whatever the plan's words say."""
        house.rules(
            Rule(rule_id="large", when=Condition(min_bytes=7), require=(Requirement(count=2, group="sre"),)),
            self_approval=True,
        )
        small = house.approved(house.sealed_plan(), house.owner)
        large = house.approved(house.sealed_plan(house.plan(mission="m-2", content="7 bytes")), house.owner)
        assert list(report_of(small).demand.rules) == []
        assert list(report_of(large).demand.rules) == ["large"]
        assert reason(house, large) == "QUORUM_NOT_MET"
        assert house.execute(small).ended

    def test_a_rule_of_the_hour_is_judged_at_the_claim(self, house: PolicyHouse) -> None:
        """What counts is when the mission is claimed, not when somebody approved it."""
        now = datetime.now(UTC)
        hours = ((now - timedelta(minutes=5)).time(), (now + timedelta(minutes=5)).time())
        night = Rule(rule_id="night", when=Condition(hours=hours), require=(Requirement(count=1, group="sre"),))
        house.rules(night, self_approval=True)
        request = house.approved(house.sealed_plan(), house.owner)
        assert reason(house, request) == "QUORUM_NOT_MET"
        gates = house.core._executions._gates
        checked = gates.check(house.approved(house.sealed_plan(), house.owner, house.second))
        assert list(checked.agreement.demand.rules) == ["night"]
        morning = gates._approvals.again(checked.agreement, checked.report, now + timedelta(hours=1))
        assert list(morning.demand.rules) == []


class TestProposer:
    def test_an_agents_sponsor_does_not_count(self, house: PolicyHouse) -> None:
        """The person behind an agent does not approve what the agent proposed; somebody else does."""
        house.rules()
        plan = house.proposed(house.bot)
        request = house.approved(plan, house.owner)
        told = report_of(request).proposer
        assert (told.kind, told.person, told.sponsor) == (evidence_pb2.PROPOSER_KIND_AGENT, "bot", "owner")
        assert reason(house, request) == "SELF_APPROVAL"
        assert house.execute(house.approved(plan, house.second)).ended

    def test_an_agent_approves_nothing(self, house: PolicyHouse) -> None:
        """A key that can propose signs no approval, whatever the document says."""
        house.rules()
        plan = house.proposed(house.owner)
        assert reason(house, house.approved(plan, house.bot)) == "APPROVER_UNKNOWN"

    def test_an_unknown_proposer_where_a_rule_allows_for_it(self, house: PolicyHouse) -> None:
        """A rule about unknown proposers says what they need; then an unsigned plan can be approved."""
        house.rules(
            Rule(
                rule_id="unsigned",
                when=Condition(proposers=(ProposerKind.UNKNOWN,)),
                require=(Requirement(count=1, group="sre"),),
            ),
        )
        plan = house.sealed_plan()
        assert reason(house, house.approved(plan, house.second)) == "QUORUM_NOT_MET"
        assert house.execute(house.approved(plan, house.second, house.owner)).ended

    @pytest.mark.parametrize("who", ["bot", "owner"])
    def test_a_signature_after_the_dry_run_asks_for_no_less(self, house: PolicyHouse, who: str) -> None:
        """Who approved where the report asked for more persons did not approve on their own: nobody signs that away."""
        house.rules(
            Rule(
                rule_id="unsigned",
                when=Condition(proposers=(ProposerKind.UNKNOWN,)),
                require=(Requirement(count=1, group="sre"),),
            ),
        )
        plan = house.plan()
        plan.proposer = ""
        unsigned = house.sealed_plan(plan)
        request = house.approved(unsigned, house.second)
        signed = getattr(house, who).sign(sealing.PLAN, unsigned.body)
        assert reason(house, dataclasses.replace(request, plan=signed)) == "NOT_APPROVED"
        assert house.execute(house.approved(signed, house.second)).ended  # dry run again, the report asks for one

    def test_a_signature_after_the_dry_run_that_changes_nothing_is_taken(self, house: PolicyHouse) -> None:
        """Where no rule asks who proposed, the proposer may sign later."""
        house.rules()
        plan = house.sealed_plan()
        request = house.approved(plan, house.second)
        signed = house.owner.sign(sealing.PLAN, plan.body)
        assert house.execute(dataclasses.replace(request, plan=signed)).ended

    def test_an_agents_rule_holds_for_who_does_not_say(self, house: PolicyHouse) -> None:
        """Leaving the agent's signature out before the dry run frees nobody from the rule about agents."""
        rules = (
            Rule(rule_id="agents", when=Condition(proposers=(ProposerKind.AGENT,)), require=(Requirement(count=2),)),
            Rule(
                rule_id="unsigned", when=Condition(proposers=(ProposerKind.UNKNOWN,)), require=(Requirement(count=1),)
            ),
        )
        house.rules(*rules, approvals_required=0)
        request = house.approved(house.sealed_plan(), house.second)
        assert list(report_of(request).demand.rules) == ["agents", "unsigned"]
        assert reason(house, request) == "QUORUM_NOT_MET"


class TestTwoApprovalsOfOnePerson:
    def test_the_first_that_holds_counts(self, house: PolicyHouse) -> None:
        """An expired approval beside a new one of the same person does no harm, and only the new one is used up."""
        plan = house.sealed_plan()
        report = house.dry_run(plan)
        past = stamp(datetime.now(UTC) - timedelta(seconds=5))
        old = house.approve(plan, report, approval_id="a-old", nonce="n-old", not_before=past, expires_at=past)
        new = house.approve(plan, report, approval_id="a-new", nonce="n-new")
        extra = house.approve(plan, report, approval_id="a-extra", nonce="n-extra")
        receipt = receipt_of(house, house.request(plan, report, old, new, extra))
        assert [one.approval_id for one in receipt.approvals] == ["a-new"]

    def test_the_same_document_in_two_envelopes_is_one(self, house: PolicyHouse) -> None:
        """Signing the same bytes again with another key of one's own makes no second approval of them."""
        house.rules(approvals_required=2, self_approval=True)
        plan = house.sealed_plan()
        report = house.dry_run(plan)
        body = house.approve(plan, report).body
        again = house.owner.sign(sealing.APPROVAL, body, scheme=house.owner.scheme)
        assert reason(house, house.request(plan, report, house.approve(plan, report), again)) == "QUORUM_NOT_MET"


class TestChangedTrust:
    def test_a_policy_that_changed_since_the_dry_run(self, house: PolicyHouse) -> None:
        """Approvals that were good under the report's policy wait for a new report under the present one."""
        request = house.approved(house.sealed_plan(), house.owner)
        house.with_policy(max_approval_seconds=3_600)
        assert reason(house, request) == "NOT_APPROVED"
        with pytest.raises(RefusedError) as caught:
            house.execute(dataclasses.replace(request, request_id="again"))
        assert "trust file changed" in caught.value.fault.message

    def test_a_key_that_was_removed_is_unknown(self, house: PolicyHouse) -> None:
        """What is said first is what the person must act on: the key is nobody's any more."""
        request = house.approved(house.sealed_plan(), house.third)
        house.with_policy(persons=house.trust.policy.persons[:2])
        assert reason(house, request) == "APPROVER_UNKNOWN"

    def test_a_trust_file_that_changes_before_the_claim(self, house: PolicyHouse) -> None:
        """All of gate 3 is checked again where the trust file is another one when the mission is claimed."""
        request = house.approved(house.sealed_plan(), house.third)
        gates = house.core._executions._gates
        checked = gates.check(request)
        policy = dataclasses.replace(house.trust.policy, persons=house.trust.policy.persons[:2])
        changed = dataclasses.replace(house.trust, policy=policy)
        gates._trust = TrustInForce(house.in_force(changed)).current
        with house.workspace.lock(), pytest.raises(Exception, match="names nobody") as caught:
            gates.claim(checked, house.workspace)
        assert caught.value.fault.reason == "APPROVER_UNKNOWN"  # type: ignore[attr-defined]  # a gate's refusal

    def test_an_expired_trust_file(self, house: PolicyHouse) -> None:
        """From its expiry on nothing is executed, however good the approvals."""
        request = house.approved(house.sealed_plan(), house.owner)
        house.use(dataclasses.replace(house.trust, expires_at=datetime.now(UTC)))
        assert reason(house, request) == "TRUST_EXPIRED"


class TestCheckpoint:
    @pytest.mark.parametrize(("known", "expected"), [(True, None), (False, "AUDIT_FORKED")])
    def test_what_the_approver_saw_of_the_audit_log(
        self, house: PolicyHouse, known: bool, expected: str | None
    ) -> None:
        """An approval that carries a checkpoint of another history than the log's own is refused."""
        gates = house.core._executions._gates
        gates._approvals = dataclasses.replace(gates._approvals, continues=lambda note: known and note == "a note")
        plan = house.sealed_plan()
        report = house.dry_run(plan)
        request = house.request(plan, report, house.approve(plan, report, audit_checkpoint="a note"))
        if expected is None:
            assert house.execute(request).ended
        else:
            assert reason(house, request) == expected


class TestWhatIsTold:
    def test_the_receipt_tells_what_each_gate_saw(self, house: PolicyHouse) -> None:
        """Seven gates in their order, with ids, digests, keys, counts and the execution."""
        house.rules(SRE)
        request = house.approved(house.proposed(house.bot), house.second, house.third)
        receipt = receipt_of(house, request)
        assert request.report is not None
        assert [one.gate for one in receipt.gates] == [1, 2, 3, 4, 5, 6, 7]
        details = {one.name: one.detail for one in receipt.gates}
        assert request.report.digest in details["report_exists"]
        assert house.second.key.public.key_id in details["approved"]
        assert "of group sre" in details["approved"]
        assert "agent bot for owner" in details["approved"]
        assert request.plan.digest in details["plan_matches"]
        assert "in request, plan, report and 2 approvals" in details["mission_matches"]
        assert details["no_drift"].startswith("1 changed paths compared")
        assert receipt.execution_id in details["once"]
        assert receipt.proposer.person == "bot"
        assert list(receipt.demand.rules) == ["writes"]
        assert [(one.scheme, one.hardware_key) for one in receipt.approvals] == [(ED25519, False), ("sshsig", False)]
        assert all(one.HasField("expires_at") for one in receipt.approvals)

    def test_the_receipt_after_a_restart_is_the_same(self, house: PolicyHouse) -> None:
        """What recovery needs for the receipt is in the claim: gates, proposer and demand come through the ledger."""
        house.rules(SRE)
        request = house.approved(house.proposed(house.bot), house.second, house.third)
        gates = house.core._executions._gates
        with house.workspace.lock():
            verified = gates.claim(gates.check(request), house.workspace)
        [claim] = house.ledger.unfinished()
        assert claim == verified.claim
        assert (len(claim.gates), claim.proposer is None, claim.demand is None) == (7, False, False)
        house.use(house.trust)
        [receipt] = house.receipts
        assert (receipt.gates, receipt.proposer, receipt.demand) == (claim.gates, claim.proposer, claim.demand)

    def test_a_report_of_an_older_release_is_refused_as_made_under_another_policy(self, house: PolicyHouse) -> None:
        """A report without proposer and demand opens, and can not be executed: its policy is not the present one."""
        request = house.approved(house.sealed_plan(), house.owner)
        gates = house.core._executions._gates
        assert request.report is not None
        report: Report = gates._documents.report(request.report)
        old = dataclasses.replace(report, proposer=None, demand=None, policy_digest="sha256:" + "0" * 64)
        gates._documents.issued(request.report, old)
        assert reason(house, request) == "NOT_APPROVED"


class TestHardwareKeys:
    def test_a_touch_counts_and_the_receipt_says_so(self, tmp_path: Path) -> None:
        """A hardware key's signature, made with a touch, is what a rule can demand."""
        house = PolicyHouse(tmp_path)
        security_key = SecurityKey.new()
        public = security_key.public
        key = Key(key_id=public.key_id, scheme="sshsig", public_key=public.line, hardware=True)
        persons = tuple(
            dataclasses.replace(one, keys=(*one.keys, key)) if one.person_id == "third" else one
            for one in house.trust.policy.persons
        )
        house.with_policy(persons=persons)
        house.rules(Rule(rule_id="touch", hardware_key=True), self_approval=True)
        plan = house.sealed_plan()
        report = house.dry_run(plan)
        body = sealing.seal(house.approval(plan, report, by=house.third))
        touched = Signature(key_id=public.key_id, scheme="sshsig", signature=security_key.sign(sealing.APPROVAL, body))
        signed = SealedBytes(media_type=sealing.APPROVAL, body=body, signatures=(touched,))
        receipt = receipt_of(house, house.request(plan, report, signed))
        assert receipt.approvals[0].hardware_key
        house.close()
