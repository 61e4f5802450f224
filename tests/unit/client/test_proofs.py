"""What an honest bundle proves, and what is said of what it leaves out."""

from dataclasses import replace

from client.commands.proving import keys_named
from client.proving.decision import may_be_left_out
from client.proving.opened import open_all
from client.proving.proof import prove
from gonogo.v1 import evidence_pb2
from tests.unit.client.proof_house import ProofHouse
from tests.unit.client.proof_parts import after, stamp


def test_an_honest_bundle_holds_in_every_respect() -> None:
    """Nothing fails, and only what no client kept could not be checked."""
    house = ProofHouse()
    proof = prove(house.bundle(), house.anchors)
    assert [(one.name, one.detail) for one in proof.failed] == []
    assert {one.name for one in proof.missing} == {
        "approval a-bob saw this log",
        "executor log is the one that this side has seen",
        "orchestrator log is the one that this side has seen",
    }
    assert len(proof.checks) > 60


def test_an_approval_that_was_nearly_over_may_be_left_out() -> None:
    """Two services have two clocks: what has run out by the one may have had seconds left by the other."""
    house = ProofHouse()
    opened = open_all(house.bundle())
    claimed = 200
    for left, fine in ((-10, True), (30, True), (600, False)):
        approval = evidence_pb2.Approval()
        approval.CopyFrom(opened.approvals[0].approval)
        approval.approver, approval.approval_id = "carol", "a-carol"
        approval.expires_at.CopyFrom(stamp(after(claimed + left)))
        one = replace(opened.approvals[0], approval=approval, digest="sha256:carol")
        assert opened.receipt is not None
        assert may_be_left_out(one, opened, opened.receipt) is fine


def test_only_keys_that_a_receipt_names_are_taken_from_others() -> None:
    """Without the policy an orchestrator may hand out keys, and only those that the executor's receipt binds."""
    bundle = ProofHouse().bundle()
    receipt = open_all(bundle).receipt
    assert receipt is not None
    assert keys_named(bundle) == {record.key_id for record in receipt.approvals}
    assert keys_named(replace(bundle, receipt=None)) == frozenset()
