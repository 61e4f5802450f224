"""The executor's audit log: what is in it, its checkpoints and proofs, and what it keeps of the callers' logs."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from client.bundle import Leaf
from client.proving.leaves import FIELDS, read_entry
from executor.adapters.anchor import Anchor
from executor.adapters.audit_check import check_all
from executor.adapters.audit_reader import read_audit
from executor.adapters.forget_spool import ForgetSpool
from executor.domain.errors import ExecutorError, NotFoundError, RequestMalformedError, StoreError
from executor.runner.audit import Audit
from gonogo import sealing
from gonogo.digests import digest
from gonogo.merkle import leaf_hash, verify_consistency, verify_inclusion
from gonogo.notes import checkpoint_text, open_note, sign_note
from tests.conformance import ledger_values as values
from tests.unit.executor.audit_house import CALLER, NOW, ORIGIN, LogHouse, PlayedLog, refusal


@pytest.fixture
def house(tmp_path: Path) -> Iterator[LogHouse]:
    house = LogHouse(tmp_path)
    yield house
    house.close()


@pytest.fixture
def caller(house: LogHouse) -> PlayedLog:
    """An orchestrator whose key the trust file names."""
    caller = PlayedLog()
    house.log_key = caller.key.public.line
    return caller


def leaves(house: LogHouse) -> list[dict[str, object]]:
    """All entries, read."""
    return [json.loads(entry.leaf) for entry in house.ledger.stored_entries()]


def test_everything_recorded_has_an_entry(house: LogHouse) -> None:
    """Report, claim, events, end and refusal: each names its documents by digest, in the order of what happened."""
    house.mission(1)
    house.refuse(2)
    said = leaves(house)
    kinds = ["epoch_started", "report_issued", "claimed", "events_recorded", "execution_ended", "refused"]
    assert [one["type"] for one in said] == kinds
    assert [one["mission_id"] for one in said] == ["", "m-1", "m-1", "m-1", "m-1", "m-2"]
    _, report, claim, events, end, refused = said
    assert report["report_digest"] == digest(b'{"report":1}')
    assert claim["approvals"] == [digest(b"approval")]
    assert claim["execution_id"] == end["execution_id"] == events["execution_id"] == "x-1"
    assert end["receipt_digest"] == digest(b'{"receipt":1}')
    assert refused["refusal_digest"] == digest(b'{"refusal":2}')


def test_every_entry_is_one_that_a_client_reads(house: LogHouse) -> None:
    """The client that proves a mission knows each kind of entry, and every field of it by name and type."""
    house.mission(1)
    house.refuse(1)
    house.controlled(2)
    entries = [*house.ledger.entries_of("m-1"), *house.ledger.entries_of("m-2")]
    leaves = [Leaf(index=entry.index, text=entry.leaf.decode(), path=()) for entry in entries]
    read = [read_entry(leaf).kind for leaf in leaves]
    assert set(read) == set(FIELDS) - {"revoked"}
    assert read.count("claimed") == 3


def test_decisions_carry_a_checkpoint_in_their_transaction(house: LogHouse) -> None:
    """After a claim and after a refusal the stored checkpoint covers the whole log; a report alone signs nothing."""
    house.issue(1)
    before = house.ledger.own_checkpoints()[0][0]
    house.claim(1)
    size, note = house.ledger.own_checkpoints()[0]
    assert (before, size) == (1, house.ledger.audit_size)
    assert open_note(note, house.key.public, ORIGIN).root == house.ledger.audit_root()[1]
    house.refuse(2)
    assert house.ledger.own_checkpoints()[0][0] == house.ledger.audit_size == size + 1


def test_what_is_not_recorded_has_no_entry(house: LogHouse) -> None:
    """A claim that is not taken leaves neither row nor entry, and the tree goes on as if it had never been."""
    house.mission(1)
    size, root = house.ledger.audit_root()
    assert house.ledger.claim(values.claim(1), values.request("other"), values.PLAN) is not None
    assert house.ledger.audit_root() == (size, root)
    house.refuse(2)
    with read_audit(house.path) as reader:
        assert reader is not None
        assert check_all(reader, house.signer).size == size + 1


def test_without_its_entry_nothing_is_recorded(house: LogHouse) -> None:
    """Where the audit log can not be written, the transaction fails with everything in it."""
    house.issue(1)
    with closing(sqlite3.connect(house.path)) as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON audit_entries BEGIN SELECT raise(ABORT, 'no room'); END")
    with pytest.raises(StoreError):
        house.claim(1)
    assert house.ledger.execution(mission_id="m-1") is None


def test_a_second_connection_does_not_break_the_tree(house: LogHouse) -> None:
    """Two ledgers on one file take turns: each reads the other's end before it appends."""
    other = type(house.ledger)(house.path)
    for number in range(1, 40, 2):
        house.refuse(number)
        other.record_refusal(refusal(number + 1), values.sealed(sealing.REFUSAL, b"%d" % number))
    other.close()
    assert house.restart() == ""
    assert house.ledger.audit_size == 41


def test_a_missions_log_is_proven(house: LogHouse) -> None:
    """Every entry of the mission comes with a path to the root of one fresh checkpoint, and no other's."""
    for number in range(1, 30):
        house.mission(number)
    extract = house.audit.mission_log("m-7")
    named = open_note(extract.checkpoint, house.key.public, ORIGIN)
    assert named.size == house.ledger.audit_size
    assert [json.loads(one.entry.leaf)["mission_id"] for one in extract.entries] == ["m-7"] * 4
    for one in extract.entries:
        assert verify_inclusion(leaf_hash(one.entry.leaf), one.entry.index, named.size, one.path, named.root)
    with pytest.raises(NotFoundError):
        house.audit.mission_log("nobody")
    with pytest.raises(NotFoundError):
        house.audit.mission_log("")


def test_the_log_knows_its_own_past(house: LogHouse) -> None:
    """Every checkpoint ever signed is held, after a restart too; another root, size, key or text is not."""
    notes = []
    for number in range(1, 12):
        house.mission(number)
        notes.append(house.audit.checkpoint())
    house.restart()
    assert all(house.audit.holds(note) for note in notes)
    size, root = house.ledger.audit_root()
    for text in (checkpoint_text(ORIGIN, size, bytes(32)), checkpoint_text(ORIGIN, size + 1, root)):
        assert not house.audit.holds(sign_note(text, house.key, ORIGIN))
    stranger = PlayedLog().key
    assert not house.audit.holds(sign_note(checkpoint_text(ORIGIN, size, root), stranger, ORIGIN))
    assert not house.audit.holds("")


def test_what_waits_is_signed_within_a_second(house: LogHouse) -> None:
    """Entries that no decision signs get a checkpoint from the background and go into the anchor; idle logs do not."""
    house.audit.start()
    house.issue(1)
    deadline = time.monotonic() + 10
    while house.ledger.own_checkpoints()[0][0] < house.ledger.audit_size:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    house.refuse(2)
    house.audit.close()
    assert [size for size, _ in house.ledger.own_checkpoints(10)] == [3, 2]
    house.close()
    anchor = Anchor(house.anchor_path)
    assert anchor.last is not None
    assert anchor.last.audit_size == 3
    anchor.close()
    house.open()
    house.audit.start()
    house.audit.close()
    house.audit.close()
    assert [size for size, _ in house.ledger.own_checkpoints(10)] == [3, 2]


def test_callers_get_consistent_checkpoints(house: LogHouse) -> None:
    """An answer continues the checkpoint that the caller knows; where it knows more than that, no proof comes."""
    known = open_note(house.audit.exchange(CALLER, "", (), 0).checkpoint, house.key.public, ORIGIN)
    house.mission(1)
    answer = house.audit.exchange(CALLER, "", (), known.size)
    newest = open_note(answer.checkpoint, house.key.public, ORIGIN)
    assert verify_consistency(known.size, known.root, newest.size, newest.root, answer.consistency)
    beyond = house.audit.exchange(CALLER, "", (), newest.size + 5)
    assert (beyond.checkpoint, beyond.consistency) == (answer.checkpoint, ())


def test_a_caller_that_knows_more_than_there_is_is_told_of_once(
    house: LogHouse, caplog: pytest.LogCaptureFixture
) -> None:
    """The service log has one line about it, however often it calls; a size that no log has is malformed."""
    for size in range(100, 110):
        house.audit.exchange(CALLER, "", (), size)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    for size in (2**48 + 1, 2**63, 2**64 - 1):
        with pytest.raises(RequestMalformedError) as caught:
            house.audit.exchange(CALLER, "", (), size)
        assert caught.value.fault.reason == "MALFORMED"
    assert len(caplog.records) == 1


def test_nothing_is_kept_of_a_caller_without_a_key(house: LogHouse) -> None:
    """Where the trust file names no log_key, a checkpoint is not looked at and kept_size is 0."""
    assert house.audit.exchange(CALLER, PlayedLog().grow(3).note(), (), 0).kept_size == 0
    assert house.ledger.kept_checkpoints() == ()


def test_a_callers_checkpoints_are_kept(house: LogHouse, caller: PlayedLog) -> None:
    """Each one that continues the kept one is kept, over a restart too, and the log says so once in a row."""
    for size in (3, 7, 7, 20):
        before = caller.frontier.size
        caller.grow(size - before)
        assert house.audit.exchange(CALLER, caller.note(), caller.proof(before), 0).kept_size == size
    assert [one["type"] for one in leaves(house)] == ["epoch_started", "checkpoint_kept"]
    house.restart()
    assert house.audit.exchange(CALLER, "", (), 0).kept_size == 20
    house.audit.callers.check_caller(CALLER)


def test_an_answer_that_was_lost_is_no_fork(house: LogHouse, caller: PlayedLog) -> None:
    """A larger checkpoint without a proof, or with one from before the kept one, is not kept and nobody is accused."""
    caller.grow(3)
    house.audit.exchange(CALLER, caller.note(), (), 0)
    caller.grow(2)
    house.audit.exchange(CALLER, caller.note(), caller.proof(3), 0)  # the answer never arrives
    caller.grow(4)
    assert house.audit.exchange(CALLER, caller.note(), caller.proof(3), 0).kept_size == 5
    assert house.audit.exchange(CALLER, caller.note(), (), 0).kept_size == 5
    assert house.audit.exchange(CALLER, caller.note(), caller.proof(5), 0).kept_size == 9
    house.audit.callers.check_caller(CALLER)


def test_a_call_that_was_given_up_and_served_late_is_no_fork(house: LogHouse, caller: PlayedLog) -> None:
    """The checkpoint before the kept one comes once more, after the newer one: nobody is accused, nothing goes back."""
    caller.grow(3)
    given_up, proof = caller.note(), ()
    house.audit.exchange(CALLER, given_up, proof, 0)
    caller.grow(4)
    house.audit.exchange(CALLER, caller.note(), caller.proof(3), 0)
    assert house.audit.exchange(CALLER, given_up, proof, 0).kept_size == 7
    house.audit.callers.check_caller(CALLER)
    assert house.audit.callers.findings() == ()


@pytest.mark.parametrize("how", ["rewritten", "shorter", "same size", "other log"])
def test_a_callers_fork_stops_its_calls(house: LogHouse, caller: PlayedLog, how: str) -> None:
    """A log that does not continue is refused, at once and after a restart, until the operator had it forgotten."""
    caller.grow(10)
    house.audit.exchange(CALLER, caller.note(), (), 0)
    forked = PlayedLog("two" if how == "other log" else "one")
    forked.key = caller.key
    forked.grow({"rewritten": 14, "shorter": 6, "same size": 10, "other log": 14}[how], b"another leaf")
    proof = forked.proof(10) if forked.frontier.size >= 10 else ()
    with pytest.raises(ExecutorError) as caught:
        house.audit.exchange(CALLER, forked.note(), proof, 0)
    assert caught.value.fault.reason == "AUDIT_FORKED"
    house.restart()
    again = lambda: house.audit.exchange(CALLER, caller.note(), (), 0)  # noqa: E731 - two attempts, told apart by nothing
    for attempt in (lambda: house.audit.callers.check_caller(CALLER), again):
        with pytest.raises(ExecutorError) as caught:
            attempt()
        assert caught.value.fault.reason == "AUDIT_FORKED"
        assert f"forget --orchestrator {CALLER}" in caught.value.fault.remedy
    assert leaves(house)[-1]["type"] == "fork_found"
    [finding] = house.audit.callers.findings()
    assert CALLER in finding.detail
    assert house.audit.callers.forget(CALLER)
    house.audit.callers.check_caller(CALLER)
    assert house.audit.exchange(CALLER, forked.note(), (), 0).kept_size == forked.frontier.size


def test_a_checkpoint_by_another_key_is_refused_and_proves_nothing(house: LogHouse, caller: PlayedLog) -> None:
    """What is not signed by the key of the trust file is malformed, not a fork: anybody could send it."""
    caller.grow(5)
    house.audit.exchange(CALLER, caller.note(), (), 0)
    for note in (PlayedLog().grow(9).note(), "nonsense", house.audit.checkpoint()):
        with pytest.raises(RequestMalformedError):
            house.audit.exchange(CALLER, note, (), 0)
    house.audit.callers.check_caller(CALLER)


def test_the_operators_wish_is_granted(house: LogHouse, caller: PlayedLog, tmp_path: Path) -> None:
    """A caller named in the spool is forgotten before the first call of an executor that starts, and the file goes."""
    house.audit.exchange(CALLER, caller.grow(5).note(), (), 0)
    spool = ForgetSpool(tmp_path / "forget")
    wish = spool.ask(CALLER)
    audit = Audit(house.ledger, house.signer, log_key_of=lambda _: house.log_key, now=lambda: NOW, wishes=spool.waiting)
    audit.start()
    audit.close()
    assert not wish.exists()
    assert house.ledger.kept_checkpoints() == ()
    assert leaves(house)[-1]["type"] == "checkpoint_forgotten"
