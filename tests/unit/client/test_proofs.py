"""What an honest bundle proves, and what is said of what it leaves out."""

from client.proving.proof import prove
from tests.unit.client.proof_house import ProofHouse


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
