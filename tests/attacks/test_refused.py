"""Every attack of the hostile orchestrator on one execution: refused with its reason, and nothing changes.

After each the workspaces are what they were, byte for byte and inode for inode; no execution began; the refusal is
signed with the executor's key, stored, and an entry of the audit log names it.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gonogo import sealing
from gonogo.digests import digest
from gonogo.signatures import ED25519, verify
from gonogo.v1 import evidence_pb2
from tests.attacks.hostile import HostileOrchestrator as Hostile
from tests.attacks.target import Target

ATTACKS = [
    (Hostile.run_b_on_the_approval_of_a, "PLAN_MISMATCH", "Approve A, run B: the approval names A's plan."),
    (Hostile.another_plan_under_the_same_ids, "PLAN_MISMATCH", "Ids do not make a plan; its bytes do."),
    (Hostile.another_missions_report, "PLAN_MISMATCH", "A report is about one plan."),
    (Hostile.a_second_report_of_the_same_plan, "NOT_APPROVED", "Who approved one dry run approved no other."),
    (Hostile.another_missions_name, "MISSION_MISMATCH", "The request can not rename the mission."),
    (Hostile.another_intent, "MISSION_MISMATCH", "Nor its intent."),
    (Hostile.another_workspace, "WORKSPACE_MISMATCH", "A mission never moves to another workspace."),
    (Hostile.an_approval_for_another_workspace, "WORKSPACE_MISMATCH", "Nor does an approval."),
    (Hostile.another_executor, "EXECUTOR_MISMATCH", "A mission is for one executor."),
    (Hostile.an_approval_for_another_executor, "EXECUTOR_MISMATCH", "So is an approval."),
    (Hostile.an_approval_under_another_policy, "NOT_APPROVED", "The approval names the policy that was shown."),
    (Hostile.a_replay, "ALREADY_EXECUTED", "A mission is executed once."),
    (Hostile.a_replay_with_a_fresh_report, "ALREADY_EXECUTED", "A fresh report does not make it new."),
    (Hostile.an_approval_used_for_a_second_mission, "NOT_APPROVED", "An approval's nonce is good once."),
    (Hostile.a_request_id_of_another_request, "REQUEST_REUSED", "One request id is one request."),
    (Hostile.a_late_delivery, "APPROVAL_EXPIRED", "Held back past its expiry an approval is worth nothing."),
    (Hostile.a_delivery_after_the_reports_life, "REPORT_UNKNOWN", "A report is good for a week."),
    (Hostile.an_approval_for_a_hundred_years, "APPROVAL_EXPIRED", "The executor caps every lifetime."),
    (Hostile.an_approval_for_tomorrow, "NOT_APPROVED", "Before its time an approval is none."),
    (Hostile.a_clock_set_back, "CLOCK_BEHIND", "With a clock far behind nothing can be decided."),
    (Hostile.a_clock_set_forward_and_back, "CLOCK_BEHIND", "A jump forward and back is far behind, too."),
    (Hostile.no_report, "REPORT_MISSING", "Without a dry run nothing is executed."),
    (Hostile.a_forged_report, "REPORT_UNKNOWN", "Only what this executor issued is a report."),
    (Hostile.a_report_with_its_blanks_moved, "REPORT_UNKNOWN", "One blank more is another document."),
    (Hostile.nobody, "NOT_APPROVED", "Somebody must approve."),
    (Hostile.its_own_key, "APPROVER_UNKNOWN", "The orchestrator's keys approve nothing."),
    (Hostile.another_persons_name, "SIGNATURE_INVALID", "A person approves in no other name."),
    (Hostile.the_executors_own_signature, "APPROVER_UNKNOWN", "The executor approves nothing itself."),
    (Hostile.a_report_where_an_approval_belongs, "MALFORMED", "A document says what it is."),
    (Hostile.the_plans_signature_around_the_approval, "SIGNATURE_INVALID", "A proposal is no approval."),
    (Hostile.a_signature_over_another_kind_of_document, "SIGNATURE_INVALID", "The kind of document is signed."),
    (Hostile.one_of_two_persons, "QUORUM_NOT_MET", "Where two must approve, one does not do."),
    (Hostile.one_person_with_two_keys, "QUORUM_NOT_MET", "Two keys do not make two persons."),
    (Hostile.one_document_in_sixteen_envelopes, "QUORUM_NOT_MET", "One document counts once."),
    (Hostile.one_document_signed_with_two_keys, "QUORUM_NOT_MET", "However many keys have signed it."),
    (
        Hostile.the_proposer_and_one_more_where_two_are_asked_for,
        "SELF_APPROVAL",
        "The proposer fills no place beside others.",
    ),
    (Hostile.the_proposers_own_approval, "SELF_APPROVAL", "Who proposed does not approve."),
    (Hostile.the_sponsor_of_the_agent, "SELF_APPROVAL", "Nor does the person behind the agent that proposed."),
    (Hostile.the_agent_itself, "APPROVER_UNKNOWN", "An agent's key can propose and nothing else."),
    (Hostile.the_proposers_signature_left_out_afterwards, "SELF_APPROVAL", "What was proven stays proven."),
    (Hostile.a_plan_that_nobody_signed, "SELF_APPROVAL", "Whoever proposed may be the one who approves."),
    (Hostile.a_plan_signed_with_its_own_key, "SELF_APPROVAL", "A stranger's signature proves nobody."),
    (Hostile.another_proposers_signature_afterwards, "SIGNATURE_INVALID", "Nobody signs as somebody else."),
    (Hostile.a_spoilt_signature_on_the_plan, "SIGNATURE_INVALID", "A bad signature is worse than none."),
    (Hostile.a_signature_made_for_git, "SIGNATURE_INVALID", "A signature over a commit is no approval."),
    (Hostile.a_hardware_key_that_nobody_touched, "SIGNATURE_INVALID", "A hardware key without a touch is nobody."),
    (Hostile.a_key_in_a_file_where_hardware_is_demanded, "HARDWARE_KEY_NEEDED", "A file is no hardware."),
    (Hostile.an_ssh_key_used_plain, "SIGNATURE_INVALID", "A key is taken for the scheme it is listed for."),
    (Hostile.a_plain_key_used_as_ssh, "SIGNATURE_INVALID", "In neither direction for another one."),
    (Hostile.the_scheme_renamed, "SIGNATURE_INVALID", "A scheme has one name."),
    (Hostile.no_scheme, "SIGNATURE_INVALID", "And it has one."),
    (Hostile.no_signature, "SIGNATURE_INVALID", "An unsigned approval is none."),
    (Hostile.the_signature_twice, "SIGNATURE_INVALID", "An approval has exactly one signature."),
    (Hostile.a_second_signature_beside_it, "SIGNATURE_INVALID", "Not a good one and another."),
    (Hostile.another_name_for_the_key, "APPROVER_UNKNOWN", "A key has one name."),
    (Hostile.another_case_of_the_keys_name, "APPROVER_UNKNOWN", "In one spelling."),
    (Hostile.extra_bytes, "SIGNATURE_INVALID", "Nothing rides along that the scheme has no use for."),
    (Hostile.bytes_behind_the_signature, "SIGNATURE_INVALID", "Nor behind the signature."),
    (Hostile.the_other_form_of_the_same_signature, "SIGNATURE_INVALID", "A signature has one form."),
    (Hostile.another_media_type, "MALFORMED", "An approval calls itself one."),
    (Hostile.a_letter_of_the_approval_changed, "SIGNATURE_INVALID", "What was signed are the bytes."),
    (Hostile.a_name_in_camel_case, "MALFORMED", "One text stands for one document: no other names,"),
    (Hostile.a_number_for_a_name, "MALFORMED", "no numbers for names,"),
    (Hostile.a_key_twice, "MALFORMED", "no key twice,"),
    (Hostile.an_extra_field, "MALFORMED", "nothing that is not known,"),
    (Hostile.a_null, "MALFORMED", "no null,"),
    (Hostile.a_written_out_default, "MALFORMED", "no default that is written out,"),
    (Hostile.an_odd_timestamp, "MALFORMED", "no other form of a time,"),
    (Hostile.something_behind_the_end, "MALFORMED", "nothing behind its end,"),
    (Hostile.bytes_that_are_no_text, "MALFORMED", "no bytes that are no text,"),
    (Hostile.a_very_deep_text, "MALFORMED", "and no depth that a reader drowns in."),
    (Hostile.no_nonce, "MALFORMED", "An approval without a nonce could be used twice."),
    (Hostile.a_nonce_of_control_characters, "MALFORMED", "Ids are what can be stored and shown."),
    (Hostile.seventeen_approvals, "TOO_LARGE", "At most sixteen approvals are looked at."),
    (Hostile.a_giant_approval, "TOO_LARGE", "An approval's size is bounded before its signature is verified."),
    (Hostile.a_thousand_signatures, "TOO_LARGE", "So is the number of its signatures."),
    (Hostile.a_giant_plan, "TOO_LARGE", "A plan's size is bounded before it is read."),
    (Hostile.a_denial_beside_the_approval, "NOT_APPROVED", "One no is enough."),
    (Hostile.a_denial_left_out_of_the_next_request, "NOT_APPROVED", "A no that was seen once is final."),
    (Hostile.a_mission_that_was_denied_at_the_listener, "NOT_APPROVED", "However it came."),
    (Hostile.an_approval_that_was_withdrawn, "APPROVAL_REVOKED", "Before the claim a withdrawal wins."),
    (Hostile.a_new_approval_of_who_has_withdrawn, "APPROVAL_REVOKED", "And it is for ever."),
    (Hostile.an_approver_who_saw_another_history, "AUDIT_FORKED", "An approver's checkpoint is of this log's past."),
    (Hostile.a_checkpoint_of_its_own_making, "AUDIT_FORKED", "And signed by this executor."),
    (Hostile.a_rule_that_the_file_gained_since, "NOT_APPROVED", "Another policy asks for another approval."),
    (Hostile.an_approver_who_was_removed_since, "APPROVER_UNKNOWN", "Who was removed approves nothing any more."),
    (Hostile.a_workspace_that_changed_since, "BASE_DRIFTED", "What was approved is a change of what was there."),
]


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    """An executor as it is started, with alice, bob, carol and an agent."""
    target = Target(tmp_path)
    yield target
    target.close()


@pytest.mark.parametrize(
    ("attack", "reason"),
    [pytest.param(attack, reason, id=attack.__name__) for attack, reason, _ in ATTACKS],
)
def test_the_attack_is_refused_and_nothing_changes(target: Target, attack: object, reason: str) -> None:
    """Refused with the stable reason, signed, stored, and in the audit log; both workspaces are as they were."""
    hostile = Hostile(target)
    request = attack(hostile)  # type: ignore[operator]  # a method of the simulator
    before, begun = target.tree(), list(target.begun)
    refusal = target.refused(request)
    told = sealing.open_sealed(refusal.body, evidence_pb2.Refusal)
    assert told.abort_reason == reason
    assert told.remedy
    assert (target.tree(), target.begun) == (before, begun)
    [signature] = refusal.signatures
    verify(
        target.executor_key.public,
        scheme=ED25519,
        signature=signature.signature,
        media_type=sealing.REFUSAL,
        body=refusal.body,
        extra=b"",
    )
    assert target.refusals()[-1] == (refusal.body, target.executor_key.public.key_id, reason)
    entry = json.loads(list(target.ledger.stored_entries())[-1].leaf)
    assert (entry["type"], entry["refusal_digest"]) == ("refused", digest(refusal.body))


def test_the_good_request_is_good(target: Target) -> None:
    """What all the attacks start from is a request that is executed, so that each is refused for what it changes."""
    hostile = Hostile(target)
    target.run(hostile.good)
    assert (target.site / "hello.txt").read_text() == "hello\n"
    target.run(target.deleting(target.bob, target.carol))
    assert not (target.site / "kept.txt").exists()


def test_every_attack_is_in_the_table() -> None:
    """The simulator can do nothing that is not tried."""
    kept = {"send", "approved", "resigned", "enveloped", "resign"}
    methods = {name for name, value in vars(Hostile).items() if callable(value) and not name.startswith("_")}
    assert methods - kept == {attack.__name__ for attack, _, _ in ATTACKS}
