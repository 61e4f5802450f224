"""What every ledger must do: run by each backend's test class, which says how to open one."""

import dataclasses
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import pytest

from executor.domain.errors import StoreError
from executor.domain.events import ExecutionCompleted, ExecutionStarted, Payload, StepCompleted
from executor.domain.ladder import LadderLevel
from executor.domain.plan import FailurePolicy, Stage
from executor.domain.receipt import ApprovalRecord, Outcome, Refusal
from executor.domain.report import Report, ReportStatus, RiskLevel, SelfApproval
from executor.domain.sealed import SealedBytes, Signature
from executor.runner.audit import AuditLog
from executor.runner.ports import (
    Checkpoint,
    Claim,
    ClaimConflict,
    Event,
    ExecutionRecord,
    Ledger,
    RequestRecord,
    Standing,
)
from gonogo import sealing
from gonogo.digests import digest
from gonogo.merkle import EMPTY_ROOT, Frontier, leaf_hash
from gonogo.signatures import ED25519

TIME = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)


def sealed(media_type: str, body: bytes) -> SealedBytes:
    """A document as the executor signs it."""
    signature = Signature(key_id="SHA256:key", scheme=ED25519, signature=b"s" * 64)
    return SealedBytes(media_type=media_type, body=body, signatures=(signature,))


def claim(number: int = 1, **changes: object) -> Claim:
    """A claim that shares nothing with that of another number."""
    record = ApprovalRecord(
        approval_id=f"a-{number}",
        approval_digest=digest(b"approval"),
        approver="owner",
        key_id="SHA256:key",
        approved_at=TIME,
    )
    values = Claim(
        mission_id=f"m-{number}",
        segment=0,
        execution_id=f"x-{number}",
        intent_id="i-1",
        message_id="msg-1",
        transcription_id="",
        plan_id="p-1",
        plan_digest=digest(b"plan"),
        report_digest=digest(b"report"),
        workspace_id="site",
        approvals=(record,),
        nonces=(f"n-{number}",),
        self_approval=SelfApproval.ALLOWED,
        policy_digest=digest(b"policy"),
        claimed_at=TIME,
        failure_policy=FailurePolicy.STOP,
        targets=("docs/guide.md",),
    )
    return dataclasses.replace(values, **changes)  # type: ignore[arg-type]  # a test's own values


def request(request_id: str = "q-1", reference: str = "x-1") -> RequestRecord:
    return RequestRecord(request_id=request_id, kind="execute", body_digest=digest(b"body"), reference=reference)


def report(**changes: object) -> Report:
    """A report as the ledger looks at it."""
    values = Report(
        report_id="r-1",
        mission_id="m-1",
        intent_id="i-1",
        plan_id="p-1",
        plan_digest=digest(b"plan"),
        workspace_id="site",
        executor_id="executor-test",
        ledger_epoch="epoch",
        nonce="nonce",
        status=ReportStatus.SUCCESS,
        problems=(),
        started_at=TIME,
        completed_at=TIME,
        ladder_level=LadderLevel.L3,
        self_approval=SelfApproval.ALLOWED,
        policy_digest=digest(b"policy"),
        base_fingerprint="",
        after_fingerprint="",
        manifest_digest="",
        steps=(),
        risk_level=RiskLevel.LOW,
        risk_facts=(),
    )
    return dataclasses.replace(values, **changes)  # type: ignore[arg-type]  # a test's own values


def checkpoint(number: int, **changes: object) -> Checkpoint:
    """A checkpoint of one step of the first mission."""
    values = Checkpoint(
        slot=f"x-1-{number}",
        execution_id="x-1",
        mission_id="m-1",
        step_id=f"s{number}",
        workspace_id="site",
        kept_at=TIME + timedelta(seconds=number),
        size=number,
        record=b'{"slot":"x-1-%d"}' % number,
    )
    return dataclasses.replace(values, **changes)  # type: ignore[arg-type]  # a test's own values


def event(sequence: int) -> Event:
    payload = StepCompleted(
        step_id="s1", kind="write_file", stage=Stage.EDIT, success=True, duration_ms=3, change_count=1
    )
    return Event(event_id=f"e-{sequence}", mission_id="m-1", sequence=sequence, time=TIME, payload=payload)


class AuditedLedger(Ledger, AuditLog, Protocol):
    """A ledger and the audit log in it."""


class LedgerSuite:
    """The behaviours; a backend's class adds `open`."""

    def open(self, directory: Path) -> AuditedLedger:
        """Open the ledger in a directory, and make it where there is none."""
        raise NotImplementedError

    @pytest.fixture
    def ledger(self, tmp_path: Path) -> AuditedLedger:
        return self.open(tmp_path)

    def test_each_write_is_one_entry_of_the_audit_log(self, tmp_path: Path) -> None:
        """Report, claim, events, end and refusal append one leaf each, and the tree is the same after a restart."""
        ledger = self.open(tmp_path)
        document = sealed(sealing.REPORT, b"1")
        assert ledger.audit_root() == (0, EMPTY_ROOT)
        ledger.issue_report(report(), document, request=request("q-0", document.digest), small_objects={})
        ledger.claim(claim(), request())
        ledger.append_events("x-1", [event(1)])
        self._finish(ledger, events=[event(2)])
        leaves = [leaf_hash(entry.leaf) for entry in ledger.entries_of("m-1")]
        frontier = Frontier()
        for hashed in leaves:
            frontier.append(hashed)
        assert ledger.audit_root() == self.open(tmp_path).audit_root() == (4, frontier.root())
        assert list(ledger.audit_hashes(0, 0, 4)) == leaves

    def test_what_is_not_taken_is_not_in_the_audit_log(self, ledger: AuditedLedger) -> None:
        """A claim that conflicts and an end that does not count leave the tree as it was."""
        ledger.claim(claim(), request())
        self._finish(ledger)
        before = ledger.audit_root()
        assert ledger.claim(claim(), request("q-2")) is not None
        with pytest.raises(StoreError):
            self._finish(ledger)
        assert ledger.audit_root() == before
        ledger.claim(claim(2), request("q-3"))
        assert ledger.audit_size == before[0] + 1

    def test_the_epoch_is_made_once(self, tmp_path: Path) -> None:
        """The epoch stays over every restart, and another ledger has another."""
        first = self.open(tmp_path).epoch
        assert self.open(tmp_path).epoch == first
        (tmp_path / "other").mkdir()
        assert self.open(tmp_path / "other").epoch != first

    def test_a_claim_is_taken_once(self, ledger: Ledger) -> None:
        """The second claim of a mission is told that the first is there, whatever else differs."""
        assert ledger.standing("m-1") is Standing.FREE
        assert ledger.claim(claim(), request()) is None
        assert ledger.standing("m-1") is Standing.CLAIMED
        second = dataclasses.replace(claim(2), mission_id="m-1")
        assert ledger.claim(second, request("q-2")) is ClaimConflict.MISSION_CLAIMED
        assert ledger.request("q-2") is None
        assert [one.execution_id for one in ledger.unfinished()] == ["x-1"]

    def test_a_mission_that_ended_stays_executed(self, ledger: Ledger) -> None:
        """After its end a mission is executed for ever, and a claim says so."""
        ledger.claim(claim(), request())
        self._finish(ledger)
        assert ledger.standing("m-1") is Standing.EXECUTED
        second = dataclasses.replace(claim(2), mission_id="m-1")
        assert ledger.claim(second, request("q-2")) is ClaimConflict.MISSION_EXECUTED
        assert ledger.unfinished() == ()

    @pytest.mark.parametrize("same", ["approval", "nonce"])
    def test_an_approval_is_used_once(self, ledger: Ledger, same: str) -> None:
        """A claim with a used approval id or nonce is not taken, and leaves no trace."""
        ledger.claim(claim(), request())
        second = claim(2)
        if same == "approval":
            second = dataclasses.replace(second, approvals=claim().approvals)
        else:
            second = dataclasses.replace(second, nonces=claim().nonces)
        assert ledger.claim(second, request("q-2")) is ClaimConflict.APPROVAL_USED
        assert ledger.standing("m-2") is Standing.FREE

    def test_of_many_claims_at_once_one_is_taken(self, ledger: Ledger) -> None:
        """Sixteen threads claim one mission; fifteen are refused."""
        answers: list[ClaimConflict | None] = []
        barrier = threading.Barrier(16)

        def one(number: int) -> None:
            mine = dataclasses.replace(claim(number), mission_id="m-0")
            barrier.wait()
            answers.append(ledger.claim(mine, request(f"q-{number}")))

        threads = [threading.Thread(target=one, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers, key=str) == [ClaimConflict.MISSION_CLAIMED] * 15 + [None]

    def test_a_claim_survives_whole(self, tmp_path: Path) -> None:
        """What was claimed is read back after a restart, every field of it."""
        self.open(tmp_path).claim(claim(), request())
        ledger = self.open(tmp_path)
        assert ledger.unfinished() == (claim(),)
        assert ledger.request("q-1") == request()
        assert ledger.execution(mission_id="m-1") == ExecutionRecord(
            execution_id="x-1", mission_id="m-1", claimed_at=TIME, ended_at=None, outcome=None, last_sequence=0
        )

    def test_the_end_is_stored_with_receipt_and_events(self, tmp_path: Path) -> None:
        """Receipt, outcome and events are there together after a restart."""
        ledger = self.open(tmp_path)
        ledger.claim(claim(), request())
        ledger.append_events("x-1", [event(1), event(2)])
        self._finish(ledger, events=[event(3)])
        again = self.open(tmp_path)
        assert again.receipt("m-1") == sealed(sealing.RECEIPT, b"{}")
        assert again.events("x-1", 0) == (event(1), event(2), event(3))
        assert again.events("x-1", 2) == (event(3),)
        assert again.execution(execution_id="x-1") == ExecutionRecord(
            execution_id="x-1",
            mission_id="m-1",
            claimed_at=TIME,
            ended_at=TIME + timedelta(seconds=1),
            outcome=Outcome.SUCCESS,
            last_sequence=3,
        )

    def test_only_the_first_end_counts(self, ledger: Ledger) -> None:
        """A second receipt for one execution is not taken."""
        ledger.claim(claim(), request())
        self._finish(ledger)
        with pytest.raises(StoreError):
            self._finish(ledger, outcome=Outcome.UNKNOWN)
        record = ledger.execution(mission_id="m-1")
        assert record is not None
        assert record.outcome is Outcome.SUCCESS

    def test_checkpoints_are_kept_with_the_end_until_they_are_forgotten(self, tmp_path: Path) -> None:
        """They come in the order of the commits, also after a restart, and each is forgotten by itself."""
        ledger = self.open(tmp_path)
        ledger.claim(claim(), request())
        # Ten steps: in the order of their names the tenth would come second.
        kept = tuple(checkpoint(number) for number in range(1, 11))
        self._finish(ledger, checkpoints=kept)
        again = self.open(tmp_path)
        assert again.checkpoints("m-1") == kept
        assert again.checkpoints("m-2") == ()
        assert again.checkpoints_before(TIME + timedelta(seconds=3)) == kept[:2]
        assert again.has_checkpoint("x-1-10")
        again.forget_checkpoint("x-1-10")
        again.forget_checkpoint("x-1-10")
        assert not again.has_checkpoint("x-1-10")
        assert again.checkpoints("m-1") == kept[:-1]

    def test_checkpoints_of_an_end_that_does_not_count_are_not_kept(self, ledger: Ledger) -> None:
        """End and checkpoints are one commit: a second end leaves nothing behind, nor does a slot that is known."""
        ledger.claim(claim(), request())
        ledger.claim(claim(2), request("q-2"))
        self._finish(ledger, checkpoints=[checkpoint(1)])
        with pytest.raises(StoreError):
            self._finish(ledger, checkpoints=[checkpoint(2)])
        assert ledger.checkpoints("m-1") == (checkpoint(1),)
        with pytest.raises(StoreError):
            self._finish(ledger, "x-2", checkpoints=[checkpoint(1)])
        assert ledger.standing("m-2") is Standing.CLAIMED

    def test_a_report_with_its_objects_and_request(self, tmp_path: Path) -> None:
        """An issued report is found by the digest of its bytes, with what came with it."""
        ledger = self.open(tmp_path)
        document = sealed(sealing.REPORT, b'{"report_id":"r-1"}')
        content = b"hello\n"
        answer = dataclasses.replace(request(reference=document.digest), kind="dry_run")
        ledger.issue_report(
            report(ledger_epoch=ledger.epoch), document, request=answer, small_objects={digest(content): content}
        )
        again = self.open(tmp_path)
        assert again.report_epoch(document.digest) == again.epoch
        assert again.issued_report(document.digest) == document
        assert again.small_object(digest(content)) == content
        assert again.request("q-1") == answer
        assert again.report_epoch(digest(b"other")) is None
        assert again.issued_report(digest(b"other")) is None
        assert again.small_object(digest(b"other")) is None

    def test_an_object_of_two_reports_is_kept_once(self, ledger: Ledger) -> None:
        """The second report with the same content is taken too."""
        for number in (1, 2):
            document = sealed(sealing.REPORT, b"%d" % number)
            ledger.issue_report(
                report(report_id=f"r-{number}"),
                document,
                request=request(f"q-{number}", document.digest),
                small_objects={digest(b"x"): b"x"},
            )
        assert ledger.small_object(digest(b"x")) == b"x"

    def test_the_clock_remembers_the_latest_write(self, tmp_path: Path) -> None:
        """The high water of time only rises, and stays over a restart."""
        ledger = self.open(tmp_path)
        ledger.claim(claim(claimed_at=TIME + timedelta(days=1)), request())
        ledger.claim(claim(2), request("q-2"))
        assert self.open(tmp_path).clock_high_water() == TIME + timedelta(days=1)

    def test_the_newest_trust_file_is_never_forgotten(self, tmp_path: Path) -> None:
        """Version and digest of the newest trust file survive a restart; an older one changes nothing."""
        ledger = self.open(tmp_path)
        assert ledger.trust_seen() is None
        ledger.see_trust(2, "sha256:two", "sha256:policy", TIME)
        ledger.see_trust(2, "sha256:other", "sha256:policy", TIME)
        ledger.see_trust(1, "sha256:one", "sha256:policy", TIME)
        again = self.open(tmp_path)
        assert again.trust_seen() == (2, "sha256:two")
        again.see_trust(3, "sha256:three", "sha256:policy", TIME)
        assert again.trust_seen() == (3, "sha256:three")

    def test_a_refusal_is_kept(self, ledger: Ledger) -> None:
        """A refusal is stored and claims nothing."""
        refusal = Refusal(
            refusal_id="rf-1",
            mission_id="m-1",
            plan_digest=digest(b"plan"),
            report_digest="",
            executor_id="executor-test",
            gate=3,
            abort_reason="NOT_APPROVED",
            message="nobody approved",
            remedy="approve",
            paths=(b"a\xff",),
            path_count=1,
            refused_at=TIME,
        )
        ledger.record_refusal(refusal, sealed(sealing.REFUSAL, b"{}"))
        assert ledger.standing("m-1") is Standing.FREE
        assert ledger.clock_high_water() == TIME

    def test_what_is_not_there(self, ledger: Ledger) -> None:
        """Unknown names are answered with nothing, not with an error."""
        assert ledger.request("q") is None
        assert ledger.execution(execution_id="x") is None
        assert ledger.execution(mission_id="m") is None
        assert ledger.receipt("m") is None
        assert ledger.events("x", 0) == ()
        ledger.claim(claim(), request())
        assert ledger.execution(execution_id="x-1", mission_id="m-other") is None
        assert ledger.receipt("m-1") is None

    def test_every_kind_of_event_is_read_back(self, ledger: Ledger) -> None:
        """Events come back as what they were."""
        ledger.claim(claim(), request())
        payloads: tuple[Payload, ...] = (
            ExecutionStarted(execution_id="x-1"),
            ExecutionCompleted(execution_id="x-1", outcome=Outcome.PARTIAL),
        )
        events = [dataclasses.replace(event(number), payload=payload) for number, payload in enumerate(payloads, 1)]
        ledger.append_events("x-1", events)
        assert ledger.events("x-1", 0) == tuple(events)

    def _finish(
        self,
        ledger: Ledger,
        execution_id: str = "x-1",
        *,
        outcome: Outcome = Outcome.SUCCESS,
        events: Sequence[Event] = (),
        checkpoints: Sequence[Checkpoint] = (),
    ) -> None:
        ledger.finish(
            execution_id,
            outcome=outcome,
            ended_at=TIME + timedelta(seconds=1),
            receipt=sealed(sealing.RECEIPT, b"{}"),
            events=events,
            checkpoints=checkpoints,
        )
