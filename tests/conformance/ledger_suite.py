"""What every ledger must do: run by each backend's test class, which says how to open one."""

import dataclasses
import threading
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import pytest

from executor.domain.errors import GateRefusedError, RequestMalformedError, StoreError
from executor.domain.events import ExecutionCompleted, ExecutionStarted, Payload
from executor.domain.receipt import (
    EffectRecord,
    EffectState,
    Outcome,
    Refusal,
)
from executor.domain.report import Excerpt
from executor.domain.revocation import RevocationKind
from executor.domain.sealed import SealedBytes
from executor.runner.audit import AuditLog
from executor.runner.control_ports import EffectEntry
from executor.runner.ports import (
    Checkpoint,
    ClaimConflict,
    Event,
    ExecutionRecord,
    Ledger,
    Standing,
)
from gonogo import sealing
from gonogo.digests import digest
from gonogo.merkle import EMPTY_ROOT, Frontier, leaf_hash
from tests.conformance.ledger_values import (
    PLAN,
    RECONCILED,
    SIGNED,
    TIME,
    WORD,
    checkpoint,
    claim,
    control,
    effect,
    event,
    report,
    request,
    revocation,
    sealed,
)


class AuditedLedger(Ledger, AuditLog, Protocol):
    """A ledger, the audit log in it, and what its retention needs."""

    def forget_plans(self, before: datetime, after: int = 0) -> int: ...


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
        ledger.claim(claim(), request(), PLAN)
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
        ledger.claim(claim(), request(), PLAN)
        self._finish(ledger)
        before = ledger.audit_root()
        assert ledger.claim(claim(), request("q-2"), PLAN) is not None
        with pytest.raises(StoreError):
            self._finish(ledger)
        assert ledger.audit_root() == before
        ledger.claim(claim(2), request("q-3"), PLAN)
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
        assert ledger.claim(claim(), request(), PLAN) is None
        assert ledger.standing("m-1") is Standing.CLAIMED
        second = dataclasses.replace(claim(2), mission_id="m-1")
        assert ledger.claim(second, request("q-2"), PLAN) is ClaimConflict.MISSION_CLAIMED
        assert ledger.request("q-2") is None
        assert [one.execution_id for one in ledger.unfinished()] == ["x-1"]

    def test_a_mission_that_ended_stays_executed(self, ledger: Ledger) -> None:
        """After its end a mission is executed for ever, and a claim says so."""
        ledger.claim(claim(), request(), PLAN)
        self._finish(ledger)
        assert ledger.standing("m-1") is Standing.EXECUTED
        second = dataclasses.replace(claim(2), mission_id="m-1")
        assert ledger.claim(second, request("q-2"), PLAN) is ClaimConflict.MISSION_EXECUTED
        assert ledger.unfinished() == ()

    @pytest.mark.parametrize("same", ["approval", "nonce"])
    def test_an_approval_is_used_once(self, ledger: Ledger, same: str) -> None:
        """A claim with a used approval id or nonce is not taken, and leaves no trace."""
        ledger.claim(claim(), request(), PLAN)
        second = claim(2)
        if same == "approval":
            second = dataclasses.replace(second, approvals=claim().approvals)
        else:
            second = dataclasses.replace(second, nonces=claim().nonces)
        assert ledger.claim(second, request("q-2"), PLAN) is ClaimConflict.APPROVAL_USED
        assert ledger.standing("m-2") is Standing.FREE

    def test_of_many_claims_at_once_one_is_taken(self, ledger: Ledger) -> None:
        """Sixteen threads claim one mission; fifteen are refused."""
        answers: list[ClaimConflict | None] = []
        barrier = threading.Barrier(16)

        def one(number: int) -> None:
            mine = dataclasses.replace(claim(number), mission_id="m-0")
            barrier.wait()
            answers.append(ledger.claim(mine, request(f"q-{number}"), PLAN))

        threads = [threading.Thread(target=one, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answers, key=str) == [ClaimConflict.MISSION_CLAIMED] * 15 + [None]

    def test_a_claim_survives_whole(self, tmp_path: Path) -> None:
        """What was claimed is read back after a restart, every field of it."""
        self.open(tmp_path).claim(claim(), request(), PLAN)
        ledger = self.open(tmp_path)
        assert ledger.unfinished() == (claim(),)
        assert ledger.request("q-1") == request()
        assert ledger.execution(mission_id="m-1") == ExecutionRecord(
            execution_id="x-1", mission_id="m-1", claimed_at=TIME, ended_at=None, outcome=None, last_sequence=0
        )

    def test_the_end_is_stored_with_receipt_and_events(self, tmp_path: Path) -> None:
        """Receipt, outcome and events are there together after a restart."""
        ledger = self.open(tmp_path)
        ledger.claim(claim(), request(), PLAN)
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
        ledger.claim(claim(), request(), PLAN)
        self._finish(ledger)
        with pytest.raises(StoreError):
            self._finish(ledger, outcome=Outcome.UNKNOWN)
        record = ledger.execution(mission_id="m-1")
        assert record is not None
        assert record.outcome is Outcome.SUCCESS

    def test_checkpoints_are_kept_with_the_end_until_they_are_forgotten(self, tmp_path: Path) -> None:
        """They come in the order of the commits, also after a restart, and each is forgotten by itself."""
        ledger = self.open(tmp_path)
        ledger.claim(claim(), request(), PLAN)
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
        ledger.claim(claim(), request(), PLAN)
        ledger.claim(claim(2), request("q-2"), PLAN)
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
        ledger.claim(claim(claimed_at=TIME + timedelta(days=1)), request(), PLAN)
        ledger.claim(claim(2), request("q-2"), PLAN)
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
        ledger.claim(claim(), request(), PLAN)
        assert ledger.execution(execution_id="x-1", mission_id="m-other") is None
        assert ledger.receipt("m-1") is None

    def test_every_kind_of_event_is_read_back(self, ledger: Ledger) -> None:
        """Events come back as what they were."""
        ledger.claim(claim(), request(), PLAN)
        payloads: tuple[Payload, ...] = (
            ExecutionStarted(execution_id="x-1"),
            ExecutionCompleted(execution_id="x-1", outcome=Outcome.PARTIAL),
        )
        events = [dataclasses.replace(event(number), payload=payload) for number, payload in enumerate(payloads, 1)]
        ledger.append_events("x-1", events)
        assert ledger.events("x-1", 0) == tuple(events)

    def test_an_execution_goes_on_in_segments(self, tmp_path: Path) -> None:
        """The next segment of an execution under way is taken once, and all of them are read back in their order."""
        ledger = self.open(tmp_path)
        ledger.claim(claim(), request(), PLAN)
        second = claim(2, mission_id="m-1", execution_id="x-1", segment=1, journal_digest=digest(b"so far"))
        repair = SealedBytes(media_type=sealing.PLAN, body=b"plan", signatures=SIGNED)
        assert ledger.standing("m-1", 1) is Standing.FREE
        assert ledger.claim(second, request("q-2"), repair) is None
        third = dataclasses.replace(claim(3, mission_id="m-1", execution_id="x-1"), segment=1)
        assert ledger.claim(third, request("q-3"), PLAN) is ClaimConflict.MISSION_CLAIMED
        again = self.open(tmp_path)
        assert again.claims_of("x-1") == (claim(), second)
        assert again.plan_of("x-1", 0) == PLAN
        assert again.plan_of("x-1", 1) == repair
        assert again.plan_of("x-1", 2) is None
        assert again.standing("m-1", 1) is Standing.CLAIMED
        assert again.unfinished() == (claim(),)
        self._finish(again)
        assert again.standing("m-1", 1) is Standing.EXECUTED
        assert again.unfinished() == ()

    def test_a_segment_fits_or_is_not_taken(self, ledger: Ledger) -> None:
        """Without its execution, out of order, after its end, or with a used approval nothing is taken."""

        def answer(number: int, segment: int, **changes: object) -> ClaimConflict | None:
            mine = claim(number, **{"mission_id": "m-1", "execution_id": "x-1", "segment": segment, **changes})
            return ledger.claim(mine, request(f"q-{number}"), PLAN)

        assert answer(2, 1) is ClaimConflict.OUT_OF_ORDER
        ledger.claim(claim(), request(), PLAN)
        assert answer(3, 2) is ClaimConflict.OUT_OF_ORDER
        assert answer(4, 1, execution_id="x-other") is ClaimConflict.OUT_OF_ORDER
        assert answer(5, 1, nonces=("n-1",)) is ClaimConflict.APPROVAL_USED
        assert ledger.claims_of("x-1") == (claim(),)
        self._finish(ledger)
        assert answer(6, 1) is ClaimConflict.MISSION_EXECUTED
        assert ledger.request("q-6") is None

    def test_what_was_taken_back_voids_a_segments_approvals_too(self, ledger: Ledger) -> None:
        """Who withdrew approves no repair, others may; a denied mission is repaired by nobody."""
        ledger.claim(claim(), request(), PLAN)
        assert ledger.revoke(revocation(RevocationKind.WITHDRAW)).stopping
        mine = claim(2, mission_id="m-1", execution_id="x-1", segment=1)
        assert ledger.claim(mine, request("q-2"), PLAN) is ClaimConflict.REVOKED
        [record] = mine.approvals
        others = dataclasses.replace(mine, approvals=(dataclasses.replace(record, approver="second"),))
        assert ledger.claim(others, request("q-2"), PLAN) is None
        # It stands on the second person's approval now.
        assert not ledger.revoke(revocation(RevocationKind.WITHDRAW)).stopping
        assert ledger.revoke(revocation(RevocationKind.DENY)).stopping
        last = dataclasses.replace(claim(3, mission_id="m-1", execution_id="x-1", segment=2), approvals=(), nonces=())
        assert ledger.claim(last, request("q-3"), PLAN) is ClaimConflict.REVOKED

    def test_plans_are_kept_until_their_execution_ended_long_ago(self, ledger: AuditedLedger) -> None:
        """A plan is forgotten a time after the end, never before."""
        for number in (1, 2):
            ledger.claim(claim(number), request(f"q-{number}", f"x-{number}"), PLAN)
        self._finish(ledger)
        assert ledger.forget_plans(TIME) == 0
        assert ledger.plan_of("x-1", 0) == PLAN
        assert ledger.forget_plans(TIME + timedelta(days=1)) == 0
        assert ledger.plan_of("x-1", 0) is None
        assert ledger.plan_of("x-2", 0) == PLAN

    def test_a_control_is_recorded_once(self, tmp_path: Path) -> None:
        """The same request id is answered with what was recorded, in this life and the next, and everything is kept."""
        ledger = self.open(tmp_path)
        ledger.claim(claim(), request(), PLAN)
        stop, word = control(), control(2, document=WORD, document_id="w-1", nonce="once")
        assert ledger.record_control(stop) is None
        assert ledger.record_control(word) is None
        size = ledger.audit_size
        again = self.open(tmp_path)
        assert again.record_control(dataclasses.replace(stop, body_digest="sha256:other")) == stop
        assert again.controls("x-1") == (stop, word)
        assert again.controls("x-2") == ()
        assert again.word_used("w-1", "other")
        assert again.word_used("other", "once")
        assert not again.word_used("other", "other")
        assert again.audit_size == size

    @pytest.mark.parametrize("same", ["document_id", "nonce"])
    def test_a_signed_word_is_used_once(self, ledger: AuditedLedger, same: str) -> None:
        """Its id and its nonce are good for one control, whoever used them up; the second leaves no trace."""
        ledger.claim(claim(), request(), PLAN)
        ids: dict[str, Any] = {
            "document_id": "w-2",
            "nonce": "second",
            same: {"document_id": "a-1", "nonce": "n-1"}[same],
        }
        before = ledger.audit_root()
        with pytest.raises(GateRefusedError) as caught:
            ledger.record_control(control(document=WORD, **ids))
        assert caught.value.fault.reason == "NOT_APPROVED"
        assert ledger.controls("x-1") == ()
        assert ledger.request("c-1") is None
        assert ledger.audit_root() == before

    def test_a_control_has_a_request_id_of_its_own(self, ledger: Ledger) -> None:
        """The id of an execution's request is no control's, and the other way round."""
        ledger.claim(claim(), request(), PLAN)
        with pytest.raises(RequestMalformedError) as caught:
            ledger.record_control(control(request_id="q-1"))
        assert caught.value.fault.reason == "REQUEST_REUSED"
        ledger.record_control(control())
        known = ledger.request("c-1")
        assert known is not None
        assert (known.kind, known.reference) == ("control", "x-1")

    def test_an_effect_is_claimed_once_and_settled_by_rules(self, tmp_path: Path) -> None:
        """An effect without a settlement may have happened; only a person's word or a compensation changes one."""
        ledger = self.open(tmp_path)
        ledger.claim(claim(), request(), PLAN)
        for attempt in (1, 2):
            ledger.claim_effect(effect(attempt))
        with pytest.raises(StoreError):
            ledger.claim_effect(effect(1))
        assert ledger.effects("x-1") == (EffectEntry(claim=effect(1)), EffectEntry(claim=effect(2)))
        unknown = EffectRecord(state=EffectState.UNKNOWN, idempotency_key="x-1-s1")
        ledger.settle_effect(effect(1).effect_id, unknown, TIME)
        with pytest.raises(StoreError):
            ledger.settle_effect(effect(1).effect_id, EffectRecord(state=EffectState.DONE), TIME)
        said = dataclasses.replace(unknown, state=EffectState.NOT_DONE, reconciliation=RECONCILED)
        for later in (1, 5):
            ledger.settle_effect(effect(1).effect_id, said, TIME + timedelta(seconds=later))
        answer = Excerpt(head="created", tail="", total_bytes=7, digest=digest(b"created"), truncated=False)
        done = EffectRecord(state=EffectState.DONE, summary="201", answer=answer, answer_digest=digest(b"created"))
        ledger.settle_effect(effect(2).effect_id, done, TIME)
        with pytest.raises(StoreError):
            ledger.settle_effect(effect(2).effect_id, unknown, TIME)
        made_up = dataclasses.replace(done, state=EffectState.COMPENSATED, compensation="deleted again")
        ledger.settle_effect(effect(2).effect_id, made_up, TIME + timedelta(seconds=2))
        with pytest.raises(StoreError):
            ledger.settle_effect("x-1-s9-1", done, TIME)
        assert self.open(tmp_path).effects("x-1") == (
            EffectEntry(claim=effect(1), settled_at=TIME + timedelta(seconds=1), record=said),
            EffectEntry(claim=effect(2), settled_at=TIME + timedelta(seconds=2), record=made_up),
        )

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
