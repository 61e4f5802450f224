"""The seven gates, each refusing on its own, against a real ledger, real keys and real files."""

import dataclasses
import time
from pathlib import Path

import pytest

from executor.domain.plan import Plan
from executor.domain.report import Report, ReportStatus
from executor.domain.sealed import SealedBytes
from executor.runner.executions import RefusedError
from executor.runner.gates import CheckedRequest, VerifiedRequest
from executor.runner.requests import ExecuteInput
from executor.runner.trust import TrustInForce
from executor.workspace.workspace import Workspace
from gonogo import sealing
from gonogo.signatures import ED25519, SSHSIG
from gonogo.v1 import evidence_pb2
from tests.unit.executor.gate_house import approvals, house, reason, refused
from tests.unit.executor.house import House

__all__ = ["house"]


def with_report(request: ExecuteInput, report: SealedBytes | None) -> ExecuteInput:
    return dataclasses.replace(request, report=report)


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

    def test_who_was_first_is_the_answer_and_not_what_they_changed(self, house: House) -> None:
        """Whoever held the workspace before may have run this very mission; then that is told, and no drift."""
        request = house.ready()
        gates = house.core._executions._gates
        find_drift = gates._find_drift

        def meanwhile(plan: Plan, report: Report, workspace: Workspace) -> tuple[bytes, ...]:
            gates._find_drift = find_drift
            gates.claim(gates.check(dataclasses.replace(request, request_id="other")), workspace)
            return (*find_drift(plan, report, workspace), b"hello.txt")

        gates._find_drift = meanwhile
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
