"""Somebody writes to the executor's ledger: each edit, gap, cut, rewrite and fork is found and named.

Found at the start where the file does not fit together, and by a checkpoint that an orchestrator or an approver kept
where whoever wrote to it made everything fit together again.
"""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from executor.adapters import audit_check
from executor.adapters.audit_check import AuditFaultError, check_all
from executor.adapters.audit_reader import read_audit
from executor.domain.errors import ExecutorError
from gonogo.merkle import Frontier, leaf_hash, verify_consistency
from gonogo.notes import checkpoint_text, open_note, sign_note
from tests.unit.executor.audit_house import CALLER, ORIGIN, LogHouse

MISSIONS = 12


@pytest.fixture
def house(tmp_path: Path) -> LogHouse:
    """A ledger with missions, refusals and kept checkpoints, closed."""
    house = LogHouse(tmp_path)
    for number in range(1, MISSIONS + 1):
        house.mission(number)
        house.refuse(100 + number)
        if number == MISSIONS:
            house.controlled(200)
        house.notes[house.ledger.audit_size] = house.audit.checkpoint()
    house.close()
    return house


def found(house: LogHouse) -> str:
    """Start, which must fail, and return what was said."""
    with pytest.raises(ExecutorError) as caught:
        house.open()
    assert caught.value.fault.reason == "AUDIT_FORKED"
    return caught.value.fault.message


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE receipts SET body = x'7b7d' WHERE execution = 3", "execution_ended, mission m-3"),
        ("UPDATE receipts SET events = '[]' WHERE execution = 3", "execution_ended, mission m-3"),
        ("UPDATE receipts SET signature = x'00' WHERE execution = 3", "execution_ended, mission m-3"),
        ("UPDATE executions SET outcome = 'partial' WHERE mission_id = 'm-4'", "execution_ended, mission m-4"),
        ("UPDATE executions SET claim = replace(claim, 'owner', 'other') WHERE number = 4", "claimed, mission m-4"),
        ("UPDATE executions SET mission_id = 'm-x' WHERE number = 4", "claimed, mission m-4"),
        ("UPDATE event_batches SET events = '[]' WHERE execution = 5", "events_recorded, mission m-5"),
        ("DELETE FROM event_batches WHERE execution = 5", "events_recorded, mission m-5"),
        ("UPDATE issued_reports SET epoch = 'other' WHERE mission_id = 'm-6'", "report_issued, mission m-6"),
        ("UPDATE issued_reports SET body = x'00' WHERE mission_id = 'm-6'", "report_issued, mission m-6"),
        ("DELETE FROM issued_reports WHERE mission_id = 'm-6'", "report_issued, mission m-6"),
        ("DELETE FROM used_approvals WHERE approval_id = 'a-7'", "claimed, mission m-7"),
        ("UPDATE used_approvals SET nonce = 'free' WHERE approval_id = 'a-7'", "claimed, mission m-7"),
        ("UPDATE requests SET reference = 'x-1' WHERE request_id = 'x-8'", "claimed, mission m-8"),
        ("UPDATE refusals SET reason = 'OTHER' WHERE refusal_id = 'rf-109'", "refused, mission m-109"),
        ("DELETE FROM refusals WHERE refusal_id = 'rf-109'", "refused, mission m-109"),
        ("UPDATE controls SET actor = 'other'", "control, mission m-200"),
        ("UPDATE controls SET body = x'7b7d20'", "control, mission m-200"),
        ("DELETE FROM controls", "control, mission m-200"),
        ("DELETE FROM used_approvals WHERE approval_id = 'w-200'", "control, mission m-200"),
        ("UPDATE requests SET body_digest = 'other' WHERE request_id = 'c-200'", "control, mission m-200"),
        ("UPDATE effects SET target = 'elsewhere'", "effect_claimed, mission m-200"),
        ("UPDATE settlements SET state = 'not_done'", "effect_settled, mission m-200"),
        ("UPDATE settlements SET record = '{}'", "effect_settled, mission m-200"),
        ("DELETE FROM settlements", "effect_settled, mission m-200"),
        ("UPDATE segments SET claim = replace(claim, 'owner', 'other')", "claimed, mission m-200"),
        ("DELETE FROM segments", "claimed, mission m-200"),
    ],
)
def test_an_edited_record_is_found(house: LogHouse, statement: str, named: str) -> None:
    """Every row that an entry stands for is bound by it: changed or gone, the entry is named with its mission."""
    house.tamper(statement)
    assert named in found(house)


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE audit_entries SET leaf = replace(leaf, 'm-3', 'm-9') WHERE number = 11", "entry 11 was changed"),
        ("UPDATE audit_entries SET hash = zeroblob(32) WHERE number = 11", "entry 11 was changed"),
        ("UPDATE audit_entries SET mission_id = 'm-9' WHERE number = 11", "entry 11: it is filed under another"),
        ("DELETE FROM audit_entries WHERE number = 11", "entry 11 is not there"),
        ("DELETE FROM audit_entries WHERE number >= 40", "entry 40 is not there"),
        ("DELETE FROM audit_entries", "entry 0 is not there"),
        ("UPDATE audit_tiles SET root = zeroblob(32) WHERE level = 1 AND number = 0", "up to 15 is not theirs"),
        ("DELETE FROM audit_tiles WHERE level = 1 AND number = 1", "up to 31 is not theirs"),
        ("UPDATE meta SET value = 'nothing' WHERE key = 'audit_checkpoint'", "not a checkpoint"),
    ],
)
def test_an_edited_log_is_found(house: LogHouse, statement: str, named: str) -> None:
    """An entry, hash, stored root or checkpoint that was changed or cut is named by the first entry that differs."""
    house.tamper(statement)
    assert named in found(house)


def rewrite(house: LogHouse, index: int, *, keep: int | None = None, sign: bool = False) -> None:
    """Change an entry, and make hashes, stored roots and, with the executor's key, the checkpoint fit again.

    The record that it stands for is left out of the log's words, as somebody would who wants to deny it.
    """
    with closing(sqlite3.connect(house.path)) as connection:
        leaves = [row[0] for row in connection.execute("SELECT leaf FROM audit_entries ORDER BY number")][:keep]
        leaves[index] = json.dumps({"type": "nothing", "mission_id": "", "at_us": 0})
        for name in ("audit_entries_stay", "audit_entries_are_not_rewritten"):
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute("DELETE FROM audit_entries")
        connection.execute("DELETE FROM audit_tiles")
        frontier = Frontier()
        for number, leaf in enumerate(leaves):
            hashed = leaf_hash(leaf.encode())
            row = (number, hashed, json.loads(leaf)["mission_id"], leaf)
            connection.execute("INSERT INTO audit_entries (number, hash, mission_id, leaf) VALUES (?, ?, ?, ?)", row)
            for tile in frontier.append(hashed):
                connection.execute("INSERT INTO audit_tiles VALUES (?, ?, ?)", (tile.level, tile.index, tile.root))
        if sign:
            connection.execute("DELETE FROM audit_checkpoints")
            text = checkpoint_text(ORIGIN, frontier.size, frontier.root())
            note = sign_note(text, house.key, ORIGIN)
            connection.execute("UPDATE meta SET value = ? WHERE key = 'audit_checkpoint'", (note,))
        connection.commit()


def test_a_consistent_rewrite_is_found_by_the_own_checkpoint(house: LogHouse) -> None:
    """A tree that was built anew does not have the root that was signed."""
    rewrite(house, 11)
    assert "is not what was signed, and its hashes were made to fit" in found(house)


def test_a_rewrite_with_the_executors_key_is_found_by_the_anchor(house: LogHouse) -> None:
    """Who signs the new tree, too, still has another history than the anchor has seen."""
    rewrite(house, 11, sign=True)
    assert "are not those that the anchor has seen" in found(house)


@pytest.mark.parametrize("keep", [None, 40], ids=["rewritten", "rewritten and cut"])
def test_what_fits_together_is_found_by_a_kept_checkpoint(house: LogHouse, keep: int | None) -> None:
    """With key and anchor at hand all of it fits again; no checkpoint that somebody kept is continued any more."""
    rewrite(house, 11, keep=keep, sign=True)
    house.anchor_path.unlink()
    house.open()
    try:
        kept = {size: note for size, note in house.notes.items() if size > 11}
        assert kept
        assert not any(house.audit.holds(note) for note in kept.values())  # an approver's, in an approval
        for size, note in kept.items():  # an orchestrator's
            old = open_note(note, house.key.public, ORIGIN)
            answer = house.audit.exchange(CALLER, "", (), size)
            new = open_note(answer.checkpoint, house.key.public, ORIGIN)
            assert not verify_consistency(old.size, old.root, new.size, new.root, answer.consistency)
    finally:
        house.close()


def test_two_futures_of_one_log_are_a_fork(house: LogHouse, tmp_path: Path) -> None:
    """A copy that went on by itself holds the common past, and not what the original signed since."""
    (tmp_path / "copy" / "executor").mkdir(parents=True)
    shutil.copy(house.path, tmp_path / "copy" / "executor" / house.path.name)
    copy = LogHouse(tmp_path / "copy", house.key)
    house.open()
    try:
        common = house.notes.popitem()[1]
        house.mission(50)
        copy.mission(60)
        mine = sign_note(checkpoint_text(ORIGIN, *house.ledger.audit_root()), house.key, ORIGIN)
        assert copy.audit.holds(common)
        assert not copy.audit.holds(mine)
    finally:
        house.close()
        copy.close()


def test_the_whole_check_finds_what_the_start_does_not_look_at(
    house: LogHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old entries are looked at one by one by `audit check` only, and it finds an edit there."""
    monkeypatch.setattr(audit_check, "NEWEST", 16)
    house.tamper("UPDATE refusals SET reason = 'OTHER' WHERE refusal_id = 'rf-101'")
    house.open()
    house.close()
    assert "refused, mission m-101" in whole(house)


def test_a_record_without_an_entry_is_found(house: LogHouse) -> None:
    """A report that was put into the ledger by hand has no entry, and the whole check counts."""
    house.tamper(
        "INSERT INTO issued_reports SELECT 'sha256:forged', report_id, mission_id, plan_digest, epoch, status,"
        " issued_at_us, key_id, signature, body FROM issued_reports LIMIT 1"
    )
    assert "14 records of the kind report_issued are stored, and the log says 13" in whole(house)


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("INSERT INTO segments SELECT execution, 2, mission_id, '', 0, claim FROM segments", "of the kind claimed"),
        (
            "INSERT INTO settlements SELECT effect_id, 2, state, record, 0 FROM settlements",
            "of the kind effect_settled",
        ),
        (
            (
                "INSERT INTO controls (request_id, body_digest, execution_id, mission_id, action, actor, reason,"
                " roll_back, step_id, recorded_at_us, document_id, nonce)"
                " VALUES ('', '', '', '', '', '', '', 0, '', 0, '', '')"
            ),
            "of the kind control",
        ),
    ],
)
def test_a_control_or_effect_without_an_entry_is_found(house: LogHouse, statement: str, named: str) -> None:
    """What people do and what happens outside is counted, too: nothing of it is recorded beside the log."""
    house.tamper(statement)
    assert named in whole(house)


def test_an_untouched_log_holds(house: LogHouse) -> None:
    """Nothing is found where nothing was done, at the start and by the whole check."""
    with read_audit(house.path) as reader:
        assert reader is not None
        checked = check_all(reader, house.signer)
    assert checked.size == checked.entries == 1 + 5 * MISSIONS + 8
    house.open()
    assert house.why == ""
    house.close()


def whole(house: LogHouse) -> str:
    """Check everything, which must fail, and return what was said."""
    with read_audit(house.path) as reader:
        assert reader is not None
        with pytest.raises(AuditFaultError) as caught:
            check_all(reader, house.signer)
    return caught.value.fault.message
