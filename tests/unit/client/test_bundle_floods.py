"""A hostile bundle keeps nobody waiting: what a file holds is gone through once, not once for all the rest of it."""

import copy
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from client.bundle_file import bundle_json, read_bundle
from client.proving.opened import open_all
from client.proving.proof import prove
from client.proving.segments import segments
from gonogo.digests import digest
from tests.unit.client.proof_house import ProofHouse

Data = dict[str, Any]
SECONDS = 4.0
"""Far more than it takes, and far less than it would."""


@pytest.fixture(scope="module")
def house() -> ProofHouse:
    return ProofHouse()


@pytest.fixture
def data(house: ProofHouse) -> Data:
    return copy.deepcopy(bundle_json(house.bundle()))


@contextmanager
def soon() -> Iterator[None]:
    begun = time.process_time()
    yield
    assert time.process_time() - begun < SECONDS


def edited(document: Data, edit: Callable[[Data], None]) -> None:
    """Change a document and the digest that the file gives for it; its signature does not hold any more."""
    value = json.loads(document["body"])
    edit(value)
    document["body"] = json.dumps(value, separators=(",", ":"))
    document["digest"] = digest(document["body"].encode())


def repaired(data: Data, numbers: list[int]) -> None:
    """Have the file tell of as many segments before the present plan's, and the receipt of a thousand."""
    documents = data["documents"]
    edited(documents["receipt"], lambda said: said.update(segments=[{"segment": one + 1} for one in range(1000)]))
    held = {"plan": documents["plan"], "report": documents["report"], "approvals": []}
    documents["segments"] = [{"segment": one, **held} for one in numbers]
    data["mission"]["segment"] = len(numbers)


def test_one_proof_between_checkpoints_that_stands_there_a_thousand_times_is_looked_at_once(
    house: ProofHouse, data: Data
) -> None:
    """Copies of what honest services signed make a file longer, and nothing else."""
    log = data["logs"]["executor"]
    log["continuity"] = (log["continuity"] * 400)[:400]
    with soon():
        assert prove(read_bundle(data), house.anchors).valid


def test_claims_and_withdrawals_without_number_are_compared_in_one_pass(house: ProofHouse, data: Data) -> None:
    """Leaves that nobody logged are found not to be in the log, however many claims and withdrawals they tell of."""
    log, mission_id = data["logs"]["executor"], data["mission"]["mission_id"]
    claim = next(one["leaf"] for one in log["entries"] if json.loads(one["leaf"])["type"] == "claimed")
    texts = dict.fromkeys(("revocation_id", "reason", "media_type", "document_digest", "signature"), "")
    said = {"type": "revoked", "mission_id": mission_id, "at_us": 1, "person": "zed", "kind": "withdraw", **texts}
    log["entries"] = [
        {"index": number, "leaf": claim if number % 2 else json.dumps(said), "path": []} for number in range(8_000)
    ]
    with soon():
        assert "executor leaves are in its log" in {one.name for one in prove(read_bundle(data), house.anchors).failed}


def test_the_receipt_is_not_copied_for_every_segment(data: Data) -> None:
    """What is about the whole execution stands once, and of segments that say they are the same the first counts."""
    edited(data["documents"]["receipt"], lambda said: said.update(controls=[{"action": "stop"}] * 3))
    repaired(data, [0, 7, 7, 7])
    bundle = read_bundle(data)
    told = [one.opened.receipt for one in segments(bundle, open_all(bundle))]
    assert [None if one is None else (len(one.controls), len(one.segments)) for one in told] == [
        *((3, 1000), (0, 1), None, None),  # of the first segment it is the receipt itself
        (0, 1),
    ]


@pytest.mark.parametrize("told", [{"approvals": [{}] * 257}, {"segments": [{"segment": 1}] * 1001}])
def test_a_receipt_of_what_no_execution_can_have_is_not_compared(house: ProofHouse, data: Data, told: Data) -> None:
    """More approvals or segments than there can be end the reading of a receipt."""
    edited(data["documents"]["receipt"], lambda said: said.update(told))
    failed = {one.name for one in prove(read_bundle(data), house.anchors).failed}
    assert "receipt is of an execution that there can be" in failed


def test_a_receipt_that_says_that_millions_had_to_approve_is_not_counted(house: ProofHouse, data: Data) -> None:
    """Nobody's memory is filled with places for persons whom there are not."""
    wanted = {"requirements": [{"count": 100}] * 40_000}
    edited(data["documents"]["receipt"], lambda said: said["demand"].update(wanted))
    with soon():
        assert "policy decision" in {one.name for one in prove(read_bundle(data), house.anchors).failed}
