"""A hostile orchestrator: it has every document that ever passed through it, and sends what it likes.

It holds no key of an approver and none of the executor's. What it can do is swap, replay, delay, dress up and leave
out; and it may have an approver or an agent on its side, whose own keys then sign what they should not.
"""

import dataclasses
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import gonogo.sshsig
from executor.domain.sealed import SealedBytes, Signature
from executor.runner.requests import ExecuteInput
from gonogo import sealing
from gonogo.notes import checkpoint_text, log_origin, sign_note
from gonogo.signatures import ED25519, SSHSIG
from gonogo.v1 import evidence_pb2
from tests.attacks.target import OTHER_WORKSPACE, Target
from tests.unit.executor.house import EXECUTOR_ID, Person, stamp

# The order of the group in which Ed25519's second half counts: a lax verifier takes s + L for s.
GROUP_ORDER = 2**252 + 27742317777372353535851937790883648493


class HostileOrchestrator:
    """Each method prepares one attack and returns the request that it sends."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.good = target.good()
        self.own_key = Person("alice")

    @property
    def report(self) -> SealedBytes:
        """The report of the good request."""
        assert self.good.report is not None
        return self.good.report

    @property
    def approval(self) -> SealedBytes:
        """The approval of the good request."""
        return self.good.approvals[0]

    def send(self, **changes: object) -> ExecuteInput:
        """The good request with something else in it."""
        return self.target.again(self.good, **changes)

    def approved(self, **changes: object) -> ExecuteInput:
        """The good request with another approval by bob, who says what he is asked to."""
        return self.send(approvals=(self.target.approve(self.good.plan, self.report, by=self.target.bob, **changes),))

    def resigned(self, change: Callable[[bytes], bytes], *, by: Person | None = None) -> ExecuteInput:
        """The good request with an approval whose text bob's own client wrote otherwise, and signed."""
        body = change(self.approval.body)
        assert body != self.approval.body
        return self.send(approvals=((by or self.target.bob).sign(sealing.APPROVAL, body),))

    def enveloped(self, *signatures: Signature) -> ExecuteInput:
        """The good request with other signatures around the very same approval."""
        return self.send(approvals=(dataclasses.replace(self.approval, signatures=signatures),))

    def resign(self, **changes: object) -> ExecuteInput:
        """The good request with something else in the approval's only signature."""
        return self.enveloped(dataclasses.replace(self.approval.signatures[0], **changes))  # type: ignore[arg-type]  # any

    # Documents swapped.

    def run_b_on_the_approval_of_a(self) -> ExecuteInput:
        other = self.target.good(mission="m-2", path="evil.txt")
        return self.target.again(other, approvals=self.good.approvals)

    def another_plan_under_the_same_ids(self) -> ExecuteInput:
        return self.send(plan=self.target.signed_plan(content="evil\n"))

    def another_missions_report(self) -> ExecuteInput:
        return self.send(report=self.target.good(mission="m-2", path="evil.txt").report)

    def a_second_report_of_the_same_plan(self) -> ExecuteInput:
        return self.send(report=self.target.dry_run(self.good.plan))

    def another_missions_name(self) -> ExecuteInput:
        return self.send(named=dataclasses.replace(self.good.named, mission_id="m-2"))

    def another_intent(self) -> ExecuteInput:
        return self.send(named=dataclasses.replace(self.good.named, intent_id="i-2"))

    def another_workspace(self) -> ExecuteInput:
        return self.send(named=dataclasses.replace(self.good.named, workspace_id=OTHER_WORKSPACE))

    def an_approval_for_another_workspace(self) -> ExecuteInput:
        return self.approved(workspace_id=OTHER_WORKSPACE)

    def another_executor(self) -> ExecuteInput:
        return self.send(named=dataclasses.replace(self.good.named, executor_id="executor-other"))

    def an_approval_for_another_executor(self) -> ExecuteInput:
        return self.approved(executor_id="executor-other")

    def an_approval_under_another_policy(self) -> ExecuteInput:
        return self.approved(policy_digest="sha256:" + "0" * 64)

    # Things of the past, and of the future.

    def a_replay(self) -> ExecuteInput:
        self.target.run(self.good)
        return self.send()

    def a_replay_with_a_fresh_report(self) -> ExecuteInput:
        self.target.run(self.good)
        report = self.target.dry_run(self.good.plan)
        return self.send(report=report, approvals=(self.target.approve(self.good.plan, report, by=self.target.bob),))

    def an_approval_used_for_a_second_mission(self) -> ExecuteInput:
        self.target.run(self.good)
        used = sealing.open_sealed(self.approval.body, evidence_pb2.Approval)
        plan = self.target.signed_plan(mission="m-2", path="second.txt")
        report = self.target.dry_run(plan)
        again = self.target.approve(plan, report, by=self.target.bob, nonce=used.nonce)
        return self.target.request(plan, report, again)

    def a_request_id_of_another_request(self) -> ExecuteInput:
        self.target.run(self.good)
        return dataclasses.replace(self.target.good(mission="m-2", path="b"), request_id=self.good.request_id)

    def a_late_delivery(self) -> ExecuteInput:
        self.target.wall.offset = timedelta(hours=1, seconds=1)
        return self.send()

    def a_delivery_after_the_reports_life(self) -> ExecuteInput:
        self.target.wall.offset = timedelta(days=8)
        return self.send()

    def an_approval_for_a_hundred_years(self) -> ExecuteInput:
        now = datetime.now(UTC)
        early = stamp(now - timedelta(days=2))
        return self.approved(approved_at=early, not_before=early, expires_at=stamp(now + timedelta(days=36_500)))

    def an_approval_for_tomorrow(self) -> ExecuteInput:
        return self.approved(not_before=stamp(datetime.now(UTC) + timedelta(days=1)))

    def a_clock_set_back(self) -> ExecuteInput:
        self.target.wall.offset = timedelta(seconds=-31)
        return self.send()

    def a_clock_set_forward_and_back(self) -> ExecuteInput:
        self.target.wall.offset = timedelta(days=1)
        self.target.dry_run(self.target.signed_plan(mission="m-2", path="b"))
        self.target.wall.offset = timedelta(0)
        return self.send()

    # Reports that the executor never issued.

    def no_report(self) -> ExecuteInput:
        return self.send(report=None)

    def a_forged_report(self) -> ExecuteInput:
        told = sealing.open_sealed(self.report.body, evidence_pb2.Report)
        told.risk.level = evidence_pb2.RISK_LEVEL_LOW
        told.report_id = "r-forged"
        return self.send(report=self.own_key.sign(sealing.REPORT, sealing.seal(told)))

    def a_report_with_its_blanks_moved(self) -> ExecuteInput:
        return self.send(report=dataclasses.replace(self.report, body=self.report.body + b" "))

    # Who approved.

    def nobody(self) -> ExecuteInput:
        return self.send(approvals=())

    def its_own_key(self) -> ExecuteInput:
        forged = self.target.approve(self.good.plan, self.report, by=self.own_key, approver="bob")
        return self.send(approvals=(forged,))

    def another_persons_name(self) -> ExecuteInput:
        spoofed = self.target.approve(self.good.plan, self.report, by=self.target.carol, approver="bob")
        return self.send(approvals=(spoofed,))

    def the_executors_own_signature(self) -> ExecuteInput:
        return self.send(approvals=(dataclasses.replace(self.report, media_type=sealing.APPROVAL),))

    def a_report_where_an_approval_belongs(self) -> ExecuteInput:
        return self.send(approvals=(self.report,))

    def the_plans_signature_around_the_approval(self) -> ExecuteInput:
        return self.enveloped(*self.good.plan.signatures)

    def a_signature_over_another_kind_of_document(self) -> ExecuteInput:
        signed = self.target.bob.sign(sealing.PLAN, self.approval.body)
        return self.send(approvals=(dataclasses.replace(signed, media_type=sealing.APPROVAL),))

    def one_of_two_persons(self) -> ExecuteInput:
        return self.target.deleting(self.target.bob)

    def one_person_with_two_keys(self) -> ExecuteInput:
        request = self.target.deleting(self.target.bob)
        assert request.report is not None
        more = self.target.approve(
            request.plan, request.report, by=self.target.bobs_other_key, approval_id="a-2", nonce="n-2"
        )
        return dataclasses.replace(request, approvals=(*request.approvals, more))

    def one_document_in_sixteen_envelopes(self) -> ExecuteInput:
        request = self.target.deleting(self.target.bob)
        return dataclasses.replace(request, approvals=request.approvals * 16)

    def one_document_signed_with_two_keys(self) -> ExecuteInput:
        request = self.target.deleting(self.target.bob)
        again = self.target.bobs_other_key.sign(sealing.APPROVAL, request.approvals[0].body)
        return dataclasses.replace(request, approvals=(*request.approvals, again))

    def the_proposer_and_one_more_where_two_are_asked_for(self) -> ExecuteInput:
        return self.target.deleting(self.target.alice, self.target.bob)

    # Who proposed.

    def the_proposers_own_approval(self) -> ExecuteInput:
        return self.send(approvals=(self.target.approve(self.good.plan, self.report, by=self.target.alice),))

    def the_sponsor_of_the_agent(self) -> ExecuteInput:
        plan = self.target.signed_plan(by=self.target.bot, mission="m-2")
        report = self.target.dry_run(plan)
        return self.target.request(plan, report, self.target.approve(plan, report, by=self.target.alice))

    def the_agent_itself(self) -> ExecuteInput:
        plan = self.target.signed_plan(by=self.target.bot, mission="m-2")
        report = self.target.dry_run(plan)
        return self.target.request(plan, report, self.target.approve(plan, report, by=self.target.bot))

    def the_proposers_signature_left_out_afterwards(self) -> ExecuteInput:
        mine = self.target.approve(self.good.plan, self.report, by=self.target.alice)
        return self.send(plan=dataclasses.replace(self.good.plan, signatures=()), approvals=(mine,))

    def a_plan_that_nobody_signed(self) -> ExecuteInput:
        plan = self.target.sealed_plan(self.target.plan(mission="m-2"))
        report = self.target.dry_run(plan)
        return self.target.request(plan, report, self.target.approve(plan, report, by=self.target.bob))

    def a_plan_signed_with_its_own_key(self) -> ExecuteInput:
        plan = self.target.sealed_plan(self.target.plan(mission="m-2"), by=self.own_key)
        report = self.target.dry_run(plan)
        return self.target.request(plan, report, self.target.approve(plan, report, by=self.target.bob))

    def another_proposers_signature_afterwards(self) -> ExecuteInput:
        carols = self.target.carol.sign(sealing.PLAN, self.good.plan.body)
        return self.send(plan=carols)

    def a_spoilt_signature_on_the_plan(self) -> ExecuteInput:
        [signature] = self.good.plan.signatures
        *raw, last = signature.signature
        spoilt = dataclasses.replace(signature, signature=bytes([*raw, last ^ 1]))
        return self.send(plan=dataclasses.replace(self.good.plan, signatures=(spoilt,)))

    # How it was signed.

    def a_signature_made_for_git(self) -> ExecuteInput:
        namespace = gonogo.sshsig.NAMESPACE
        try:
            gonogo.sshsig.NAMESPACE = b"git"  # type: ignore[misc]  # as ssh-keygen -Y sign -n git does
            foreign = self.target.bob.sign(sealing.APPROVAL, self.approval.body)
        finally:
            gonogo.sshsig.NAMESPACE = namespace  # type: ignore[misc]  # as it was
        return self.send(approvals=(foreign,))

    def a_hardware_key_that_nobody_touched(self) -> ExecuteInput:
        return self.send(approvals=(self.target.touched(self.good.plan, self.report, flags=0),))

    def a_key_in_a_file_where_hardware_is_demanded(self) -> ExecuteInput:
        return self.target.good(mission="m-2", workspace=OTHER_WORKSPACE)

    def an_ssh_key_used_plain(self) -> ExecuteInput:
        body = self.approval.body
        return self.send(approvals=(self.target.bob.sign(sealing.APPROVAL, body, scheme=ED25519),))

    def a_plain_key_used_as_ssh(self) -> ExecuteInput:
        body = self.target.approve(self.good.plan, self.report, by=self.target.carol).body
        return self.send(approvals=(self.target.carol.sign(sealing.APPROVAL, body, scheme=SSHSIG),))

    def the_scheme_renamed(self) -> ExecuteInput:
        return self.resign(scheme="SSHSIG")

    def no_scheme(self) -> ExecuteInput:
        return self.resign(scheme="")

    # The envelope bent.

    def no_signature(self) -> ExecuteInput:
        return self.enveloped()

    def the_signature_twice(self) -> ExecuteInput:
        return self.enveloped(*self.approval.signatures * 2)

    def a_second_signature_beside_it(self) -> ExecuteInput:
        return self.enveloped(*self.approval.signatures, *self.own_key.sign(sealing.APPROVAL, b"").signatures)

    def another_name_for_the_key(self) -> ExecuteInput:
        return self.resign(key_id=self.approval.signatures[0].key_id + "=")

    def another_case_of_the_keys_name(self) -> ExecuteInput:
        return self.resign(key_id=self.approval.signatures[0].key_id.replace("SHA256", "sha256"))

    def extra_bytes(self) -> ExecuteInput:
        return self.resign(extra=b"\x00")

    def bytes_behind_the_signature(self) -> ExecuteInput:
        return self.resign(signature=self.approval.signatures[0].signature + b"\x00")

    def the_other_form_of_the_same_signature(self) -> ExecuteInput:
        carols = self.target.approve(self.good.plan, self.report, by=self.target.carol)
        [signature] = carols.signatures
        half = int.from_bytes(signature.signature[32:], "little") + GROUP_ORDER
        bent = dataclasses.replace(signature, signature=signature.signature[:32] + half.to_bytes(32, "little"))
        return self.send(approvals=(dataclasses.replace(carols, signatures=(bent,)),))

    def another_media_type(self) -> ExecuteInput:
        return self.send(approvals=(dataclasses.replace(self.approval, media_type="application/json"),))

    def a_letter_of_the_approval_changed(self) -> ExecuteInput:
        body = self.approval.body.replace(b"DECISION_APPROVE", b"DECISION_APPROVe")
        return self.send(approvals=(dataclasses.replace(self.approval, body=body),))

    # Other texts for the same values, signed by an approver whose client is on its side.

    def a_name_in_camel_case(self) -> ExecuteInput:
        return self.resigned(lambda body: body.replace(b'"mission_id"', b'"missionId"'))

    def a_number_for_a_name(self) -> ExecuteInput:
        return self.resigned(lambda body: body.replace(b'"DECISION_APPROVE"', b"1"))

    def a_key_twice(self) -> ExecuteInput:
        return self.resigned(lambda body: body.replace(b"{", b'{"mission_id":"m-2",', 1))

    def an_extra_field(self) -> ExecuteInput:
        return self.resigned(lambda body: body.replace(b"{", b'{"auto_approve":true,', 1))

    def a_null(self) -> ExecuteInput:
        return self.resigned(lambda body: body.replace(b"{", b'{"comment":null,', 1))

    def a_written_out_default(self) -> ExecuteInput:
        return self.resigned(lambda body: body.replace(b"{", b'{"comment":"",', 1))

    def an_odd_timestamp(self) -> ExecuteInput:
        return self.resigned(lambda body: re.sub(rb'("expires_at":"[^"]*)Z"', rb'\1+00:00"', body))

    def something_behind_the_end(self) -> ExecuteInput:
        return self.resigned(lambda body: body + b'{"mission_id":"m-2"}')

    def bytes_that_are_no_text(self) -> ExecuteInput:
        return self.resigned(lambda body: body.replace(b"bob", b"b\xffb"))

    def a_very_deep_text(self) -> ExecuteInput:
        return self.resigned(lambda _: b"[" * 30_000)

    def no_nonce(self) -> ExecuteInput:
        return self.approved(nonce="")

    def a_nonce_of_control_characters(self) -> ExecuteInput:
        return self.approved(nonce="a\nb")

    # Floods.

    def seventeen_approvals(self) -> ExecuteInput:
        return self.send(approvals=self.good.approvals * 17)

    def a_giant_approval(self) -> ExecuteInput:
        value = json.loads(self.approval.body)
        value["comment"] = "x" * 1_000_000
        return self.resigned(lambda _: json.dumps(value).encode())

    def a_thousand_signatures(self) -> ExecuteInput:
        return self.enveloped(*self.approval.signatures * 1_000)

    def a_giant_plan(self) -> ExecuteInput:
        return self.send(plan=dataclasses.replace(self.good.plan, body=b" " * (sealing.MAX_BODY_BYTES + 1)))

    # What was taken back, and what was seen.

    def a_denial_beside_the_approval(self) -> ExecuteInput:
        return self.send(approvals=(*self.good.approvals, self._denial()))

    def a_denial_left_out_of_the_next_request(self) -> ExecuteInput:
        first = self.a_denial_beside_the_approval()
        assert self.target.reason_of(first) == "NOT_APPROVED"
        return self.send()

    def a_mission_that_was_denied_at_the_listener(self) -> ExecuteInput:
        kind = evidence_pb2.REVOCATION_KIND_DENY
        self.target.core.revoke(self.target.revocation(by=self.target.carol, kind=kind))
        return self.send()

    def an_approval_that_was_withdrawn(self) -> ExecuteInput:
        self.target.core.revoke(self.target.revocation(by=self.target.bob))
        return self.send()

    def a_new_approval_of_who_has_withdrawn(self) -> ExecuteInput:
        self.target.core.revoke(self.target.revocation(by=self.target.bob))
        return self.approved(approval_id="a-2", nonce="n-2")

    def an_approver_who_saw_another_history(self) -> ExecuteInput:
        origin = log_origin("executor", EXECUTOR_ID)
        note = sign_note(checkpoint_text(origin, 1, b"\x01" * 32), self.target.executor_key, origin)
        return self.approved(audit_checkpoint=note)

    def a_checkpoint_of_its_own_making(self) -> ExecuteInput:
        origin = log_origin("executor", EXECUTOR_ID)
        note = sign_note(checkpoint_text(origin, 1, b"\x01" * 32), self.own_key.key, origin)
        return self.approved(audit_checkpoint=note)

    def a_rule_that_the_file_gained_since(self) -> ExecuteInput:
        self.target.write_trust(self.target.trust_file(2, more='[workspaces.site]\nlabels = ["prod"]\n'))
        self.target.restart()
        return self.send()

    def an_approver_who_was_removed_since(self) -> ExecuteInput:
        self.target.write_trust(self.target.trust_file(2, without="bob").replace('"bob", ', ""))
        self.target.restart()
        return self.send()

    def a_workspace_that_changed_since(self) -> ExecuteInput:
        (self.target.site / "hello.txt").write_text("somebody else's\n")
        return self.send()

    def _denial(self) -> SealedBytes:
        decision = evidence_pb2.DECISION_DENY
        return self.target.approve(self.good.plan, self.report, by=self.target.carol, decision=decision)
