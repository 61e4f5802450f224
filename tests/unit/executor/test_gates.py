"""The seven gates, each refusing on its own, against a real ledger, real keys and real files."""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from executor.domain.errors import ExecutorError, GateRefusedError
from executor.domain.plan import Plan
from executor.domain.report import Report, ReportStatus
from executor.domain.sealed import SealedBytes, Signature
from executor.runner.executions import RefusedError
from executor.runner.gates import CheckedRequest, VerifiedRequest
from executor.runner.ports import Standing
from executor.runner.requests import ExecuteInput
from executor.runner.trust import TrustInForce
from executor.workspace.workspace import Workspace
from gonogo import sealing
from gonogo.signatures import ED25519, SSHSIG
from gonogo.v1 import evidence_pb2
from tests.unit.executor.house import House, Person, stamp


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """An executor with one workspace and two persons, where one approval is enough."""
    house = House(tmp_path)
    yield house
    house.close()


def refused(house: House, request: ExecuteInput) -> RefusedError:
    """Execute and see that nothing at all was done: the workspace, the ledger and the executioner are untouched."""
    before = house.files()
    with pytest.raises(RefusedError) as caught:
        house.execute(request)
    assert house.files() == before
    assert house.executioner.runs == []
    assert house.ledger.standing(request.named.mission_id) is Standing.FREE
    assert house.ledger.request(request.request_id) is None
    assert house.ledger.unfinished() == ()
    return caught.value


def reason(house: House, request: ExecuteInput) -> tuple[int, str]:
    """The gate and the reason of a refusal; gate 0 stands for a request that is not well formed."""
    error = refused(house, request)
    cause = error.cause
    told = sealing.open_sealed(error.refusal.body, evidence_pb2.Refusal)
    gate = cause.gate if isinstance(cause, GateRefusedError) else 0
    assert (told.gate, told.abort_reason, told.message, told.remedy) == (
        gate,
        error.fault.reason,
        error.fault.message,
        error.fault.remedy,
    )
    assert error.fault.remedy
    return gate, error.fault.reason


def with_report(request: ExecuteInput, report: SealedBytes | None) -> ExecuteInput:
    return dataclasses.replace(request, report=report)


def approvals(request: ExecuteInput, *given: SealedBytes) -> ExecuteInput:
    return dataclasses.replace(request, approvals=given)


class TestFirstRead:
    def test_a_mission_that_was_executed_is_refused_in_these_words(self, house: House) -> None:
        """The ledger is asked before anything else, and the caller reads the promised sentence."""
        request = house.ready()
        house.execute(request)
        house.executioner.runs.clear()
        with pytest.raises(RefusedError) as caught:
            house.execute(dataclasses.replace(request, request_id="again"))
        assert str(caught.value) == "Mission has already been executed"
        assert caught.value.fault.reason == "ALREADY_EXECUTED"
        assert house.executioner.runs == []

    def test_a_mission_that_runs_is_refused_as_claimed(self, house: House) -> None:
        """A second request for a mission whose execution has not ended is told so."""
        request = house.ready()
        seen: list[str] = []

        def second(execution_id: str) -> None:
            with pytest.raises(RefusedError) as caught:
                house.execute(dataclasses.replace(request, request_id="second"))
            seen.append(caught.value.fault.reason)

        house.executioner.during = second
        house.execute(request)
        assert seen == ["ALREADY_CLAIMED"]


class TestReport:
    def test_no_report_at_all(self, house: House) -> None:
        """Gate 1: a request without a report is refused."""
        assert reason(house, with_report(house.ready(), None)) == (1, "REPORT_MISSING")

    def test_an_empty_report(self, house: House) -> None:
        """Gate 1: an empty body is no report."""
        empty = SealedBytes(media_type=sealing.REPORT, body=b"")
        assert reason(house, with_report(house.ready(), empty)) == (1, "REPORT_MISSING")

    def test_a_report_that_somebody_else_made(self, house: House) -> None:
        """Gate 1: a report with one letter changed was never issued, whatever signature it carries."""
        request = house.ready()
        assert request.report is not None
        forged = request.report.body.replace(b'"risk"', b'"ri\\u0073k"')
        assert forged != request.report.body
        document = dataclasses.replace(request.report, body=forged)
        assert reason(house, with_report(request, document)) == (1, "REPORT_UNKNOWN")

    def test_a_report_of_a_former_ledger(self, house: House) -> None:
        """Gate 1: a report of another epoch is not accepted, even where its row came along."""
        request = house.ready()
        house.ledger._connection.execute("UPDATE issued_reports SET epoch = 'former'")
        assert reason(house, request) == (1, "REPORT_UNKNOWN")

    def test_a_report_that_is_too_old(self, tmp_path: Path) -> None:
        """Gate 1: a report is good for as long as the policy says; after that its contents need not be here."""
        house = House(tmp_path, report_seconds=1)
        request = house.ready()
        time.sleep(1.01)
        assert reason(house, request) == (1, "REPORT_UNKNOWN")
        with pytest.raises(RefusedError) as caught:
            house.execute(dataclasses.replace(request, request_id="again"))
        assert "dry run again" in caught.value.fault.remedy
        assert house.execute(house.ready(mission="m-2")).ended
        house.close()


class TestSimulation:
    @pytest.mark.parametrize("status", [ReportStatus.UNSAFE, ReportStatus.BLOCKED, ReportStatus.FAILED])
    def test_a_dry_run_that_was_no_success(self, house: House, status: ReportStatus) -> None:
        """Gate 2: an approval does not make an unsafe, blocked or failed dry run executable."""
        house.simulator.status = status
        assert reason(house, house.ready()) == (2, f"SIMULATION_{status.name}")


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


class TestPlan:
    def test_a_swapped_plan(self, house: House) -> None:
        """Gate 4: another plan under the same ids is not the one that was dry run and approved."""
        request = house.ready()
        other = house.sealed_plan(house.plan(content="something else\n"))
        assert reason(house, dataclasses.replace(request, plan=other)) == (4, "PLAN_MISMATCH")

    def test_an_approval_of_another_plan(self, house: House) -> None:
        """Gate 4: an approval is good for the plan bytes that it names."""
        request = house.ready()
        assert request.report is not None
        other = house.sealed_plan(house.plan(content="something else\n"))
        approval = house.approve(other, request.report)
        assert reason(house, approvals(request, approval)) == (4, "PLAN_MISMATCH")

    def test_an_approval_with_another_plan_id(self, house: House) -> None:
        """Gate 4: the ids must agree as well as the digests."""
        request = house.ready()
        assert request.report is not None
        approval = house.approve(request.plan, request.report, plan_id="p-other")
        assert reason(house, approvals(request, approval)) == (4, "PLAN_MISMATCH")


class TestMission:
    @pytest.mark.parametrize(
        ("field", "expected"),
        [
            ("mission_id", "MISSION_MISMATCH"),
            ("intent_id", "MISSION_MISMATCH"),
            ("workspace_id", "WORKSPACE_MISMATCH"),
            ("executor_id", "EXECUTOR_MISMATCH"),
        ],
    )
    def test_the_request_and_the_approval_name_the_same(self, house: House, field: str, expected: str) -> None:
        """Gate 5: each of the four ids must agree in the request, and in the approval."""
        request = house.ready()
        assert request.report is not None
        named = dataclasses.replace(request.named, **{field: "other"})
        assert reason(house, dataclasses.replace(request, named=named)) == (5, expected)
        approval = house.approve(request.plan, request.report, by=house.owner, **{field: "other"})
        assert reason(house, approvals(request, approval)) == (5, expected)

    def test_a_workspace_that_is_no_longer_served(self, house: House) -> None:
        """Gate 5: the workspace must be here."""
        request = house.ready()
        house.core._executions._gates._workspaces = {}  # as after a start with other --workspace options
        assert reason(house, request) == (5, "WORKSPACE_UNKNOWN")

    def test_documents_of_another_executor(self, house: House) -> None:
        """Gate 5: documents that agree with each other are still not for this executor."""
        request = house.ready()
        trust = dataclasses.replace(house.trust, executor_id="executor-other")
        house.core._executions._gates._trust = TrustInForce(house.in_force(trust)).current
        assert reason(house, request) == (5, "EXECUTOR_MISMATCH")


class TestDrift:
    def test_a_workspace_that_changed(self, house: House) -> None:
        """Gate 6: what came between dry run and execution stays as it is, and the refusal names where."""
        request = house.ready()
        (house.site / "hello.txt").write_text("somebody was here\n")
        error = refused(house, request)
        assert (error.fault.reason, error.fault.paths) == ("BASE_DRIFTED", (b"hello.txt",))
        told = sealing.open_sealed(error.refusal.body, evidence_pb2.Refusal)
        assert (told.gate, list(told.paths), told.path_count) == (6, ["hello.txt"], 1)

    def test_a_refusal_uses_nothing_up(self, house: House) -> None:
        """The same request, by the same id, runs once the workspace is as it was."""
        request = house.ready()
        (house.site / "hello.txt").write_text("somebody was here\n")
        refused(house, request)
        (house.site / "hello.txt").unlink()
        assert house.execute(request).ended
        assert house.files() == {"hello.txt": b"hello\n"}

    def test_many_paths_are_counted_and_few_are_named(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        """A refusal fits into a call's trailers however much drifted, with the full number in it."""
        request = house.ready()
        paths = tuple(b"\xff" * 200 + b"%d" % number for number in range(5000))
        monkeypatch.setattr(house.core._executions._gates, "_find_drift", lambda *_: paths)
        told = sealing.open_sealed(refused(house, request).refusal.body, evidence_pb2.Refusal)
        assert told.path_count == 5000
        assert len(told.paths) <= 50
        assert len(told.SerializeToString()) < 2500


class TestOnce:
    def test_the_ledger_has_the_last_word(self, house: House) -> None:
        """Gate 7: where somebody else claims in between, the insert refuses."""
        request = house.ready()
        other = dataclasses.replace(request, request_id="other")
        find_drift = house.core._executions._gates._find_drift

        def meanwhile(plan: Plan, report: Report, workspace: Workspace) -> tuple[bytes, ...]:
            gates = house.core._executions._gates
            gates._find_drift = find_drift
            gates.claim(gates.check(other), workspace)
            return find_drift(plan, report, workspace)

        house.core._executions._gates._find_drift = meanwhile
        with pytest.raises(RefusedError) as caught:
            house.execute(request)
        assert (caught.value.cause.gate, caught.value.fault.reason) == (7, "ALREADY_CLAIMED")  # type: ignore[attr-defined]  # a gate's refusal
        assert house.executioner.runs == []


class TestMalformed:
    def test_wrong_media_types(self, house: House) -> None:
        """A document must claim to be what its place says."""
        request = house.ready()
        wrong = dataclasses.replace(request.plan, media_type=sealing.REPORT)
        assert reason(house, dataclasses.replace(request, plan=wrong)) == (0, "MALFORMED")

    def test_too_many_approvals(self, house: House) -> None:
        """At most sixteen approvals are looked at."""
        request = house.ready()
        assert reason(house, approvals(request, *request.approvals * 17)) == (0, "TOO_LARGE")

    def test_a_huge_approval(self, house: House) -> None:
        """An approval's size is bounded before its signature is verified."""
        request = house.ready()
        huge = house.owner.sign(sealing.APPROVAL, b" " * 100_000)
        assert reason(house, approvals(request, huge)) == (0, "TOO_LARGE")

    def test_a_signed_document_that_is_no_approval(self, house: House) -> None:
        """A good signature over bytes that are not strictly an approval approves nothing."""
        request = house.ready()
        [good] = request.approvals
        for body in (b"{}", b"[]", b"\xff", good.body.replace(b"approval_id", b"approvalId")):
            assert reason(house, approvals(request, house.owner.sign(sealing.APPROVAL, body)))[1] in {
                "MALFORMED",
                "PLAN_INVALID",
            }

    def test_an_unexpected_exception_refuses(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whatever breaks inside a gate is a refusal, and nothing runs."""
        request = house.ready()

        def breaks(*_: object) -> tuple[bytes, ...]:
            raise ZeroDivisionError

        monkeypatch.setattr(house.core._executions._gates, "_find_drift", breaks)
        assert reason(house, request) == (0, "INTERNAL")


def test_the_refusal_is_signed_by_the_executor_and_stored(house: House) -> None:
    """The answer is the executor's own signed word, and it keeps a copy with its event."""
    from gonogo.signatures import verify

    error = refused(house, approvals(house.ready()))
    [signature] = error.refusal.signatures
    verify(
        house.executor_key.public,
        scheme=ED25519,
        signature=signature.signature,
        media_type=sealing.REFUSAL,
        body=error.refusal.body,
        extra=b"",
    )
    [(body, event)] = house.ledger._connection.execute("SELECT body, event FROM refusals").fetchall()
    assert body == error.refusal.body
    assert '"gate_refused":{' in event


def test_evidence_can_not_be_made_up(house: House) -> None:
    """Only the gates build what an execution asks for."""
    with pytest.raises(TypeError):
        CheckedRequest(object(), request=None, plan=None, report=None, report_digest="", agreement=None)  # type: ignore[arg-type]  # the point
    with pytest.raises(TypeError):
        VerifiedRequest(object(), checked=None, claim=None)  # type: ignore[arg-type]  # the point


def test_an_approved_mission_runs_with_either_scheme(house: House) -> None:
    """Both signature schemes approve, and the receipt names the person and the key."""
    for mission, person in (("m-1", house.owner), ("m-2", house.second)):
        plan = house.sealed_plan(house.plan(mission=mission, path=f"{mission}.txt"))
        report = house.dry_run(plan)
        progress = house.execute(house.request(plan, report, house.approve(plan, report, by=person)))
        assert progress.receipt is not None
        receipt = sealing.open_sealed(progress.receipt.body, evidence_pb2.Receipt)
        assert [(one.approver, one.key_id) for one in receipt.approvals] == [(person.name, person.key.public.key_id)]
        assert person.scheme in {SSHSIG, ED25519}
    assert house.files() == {"m-1.txt": b"hello\n", "m-2.txt": b"hello\n"}
