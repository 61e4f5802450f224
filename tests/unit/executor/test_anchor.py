"""The anchor and the epochs: a ledger that was lost, restored or copied refuses former reports, a crash does not."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from executor.adapters.anchor import SLOT_BYTES, Anchor
from executor.adapters.audit_reader import read_audit
from executor.domain.anchoring import MAX_IN_FLIGHT, Anchored, why_other
from executor.domain.errors import ExecutorError, StoreError
from executor.runner.ports import Claim, RequestRecord
from executor.settings import SettingsError, read_settings
from gonogo.signatures import load_signing_key
from tests.conformance import ledger_values as values
from tests.unit.executor.audit_house import NOW, LogHouse


@pytest.fixture
def house(tmp_path: Path) -> Iterator[LogHouse]:
    house = LogHouse(tmp_path)
    yield house
    house.close()


def is_known(house: LogHouse, report: str) -> bool:
    """What gate 1 asks."""
    return house.ledger.report_epoch(report) == house.ledger.epoch


def test_a_ledger_goes_on_under_its_anchor(house: LogHouse) -> None:
    """The first start begins the first epoch; restarts after any work begin none, and reports stay known."""
    assert house.why == "the ledger is new"
    report = house.issue(1)
    assert house.restart() == ""
    house.claim(1)
    house.end(1)
    house.refuse(2)
    assert house.restart() == ""
    assert is_known(house, report)


def test_every_anchor_write_follows_the_ledgers_commit(house: LogHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever the anchor is written, the ledger's file holds all that it is about to say."""
    behind, whole = [], Anchor._stored

    def looking(self: Anchor, number: int, state: Anchored | None) -> bool:
        with read_audit(house.path) as reader:
            assert reader is not None
            assert state is not None
            [(claims, _)] = reader.reading()("claims_and_clock")
            behind.append(claims < state.claims or reader.audit_size < state.audit_size)
        return whole(self, number, state)

    monkeypatch.setattr(Anchor, "_stored", looking)
    for number in range(1, 20):
        house.mission(number)
    house.anchor.settle()
    assert behind
    assert not any(behind)


@pytest.mark.parametrize("in_place", [False, True], ids=["new file", "same file"])
def test_a_restored_ledger_begins_an_epoch(house: LogHouse, tmp_path: Path, *, in_place: bool) -> None:
    """A copy from before the last claim is behind its anchor: reports of then are unknown, and the log says why."""
    report = house.issue(1)
    house.close()
    shutil.copy(house.path, tmp_path / "backup")
    house.open()
    house.claim(1)
    house.close()
    if not in_place:
        house.path.unlink()
    house.path.write_bytes((tmp_path / "backup").read_bytes())
    house.open()
    assert "restored" in house.why
    assert not is_known(house, report)
    said = json.loads(list(house.ledger.stored_entries())[-1].leaf)
    assert (said["type"], said["why"]) == ("epoch_started", house.why)
    assert is_known(house, house.issue(2))
    assert house.restart() == ""


def test_a_ledger_from_before_one_refusal_is_behind(house: LogHouse, tmp_path: Path) -> None:
    """No claim need be missing: the anchor has seen the audit log, as the background tells it."""
    house.close()
    shutil.copy(house.path, tmp_path / "backup")
    house.open()
    house.refuse(1)
    house.anchor.move(house.ledger.audited_state())
    house.close()
    house.path.write_bytes((tmp_path / "backup").read_bytes())
    house.open()
    assert "the audit log has 1 entries where the anchor has seen 2" in house.why


def test_a_copied_ledger_begins_an_epoch(house: LogHouse, tmp_path: Path) -> None:
    """Another file with the same bytes is not the ledger that the anchor knows, even with a copy of the anchor."""
    report = house.issue(1)
    house.claim(1)
    house.close()
    shutil.copytree(house.path.parent, tmp_path / "copy" / "executor")
    shutil.copytree(house.anchor_path.parent, tmp_path / "copy" / "anchor")
    copy = LogHouse(tmp_path / "copy", house.key)
    assert "not the one that the anchor knows" in copy.why
    assert not is_known(copy, report)
    copy.close()
    house.open()
    assert house.why == ""


def test_a_lost_ledger_or_anchor_begins_an_epoch(house: LogHouse) -> None:
    """Without its anchor a ledger may be any copy; without its ledger an anchor says that one was lost."""
    report, epoch = house.issue(1), house.ledger.epoch
    house.claim(1)
    house.close()
    house.anchor_path.unlink()
    house.open()
    assert "no anchor that could be read" in house.why
    assert not is_known(house, report)
    assert house.ledger.epoch != epoch
    house.close()
    house.path.unlink()
    house.open()
    assert "the ledger was lost" in house.why


def test_an_anchor_that_was_restored_begins_an_epoch(house: LogHouse) -> None:
    """A ledger further ahead than a crash can explain: the anchor is an old one, which would hide a restored ledger."""
    here = Anchored(
        executor_id="box", ledger_file="1:2", epoch="e", claims=1000, clock_us=0, audit_size=4000, audit_root=""
    )
    within = replace(here, claims=here.claims - MAX_IN_FLIGHT, audit_size=10)
    assert why_other(within, here) == ""
    assert "the anchor was restored" in why_other(replace(within, claims=within.claims - 1), here)
    for other in ({"executor_id": "x"}, {"epoch": "x"}, {"ledger_file": "x"}, {"claims": 1001}, {"audit_size": 4001}):
        assert why_other(replace(here, **other), here) != ""


@pytest.mark.parametrize("moment", ["before", "torn"])
@pytest.mark.parametrize("writes", [1, 2, 5])
def test_a_crash_between_claim_and_anchor_begins_none(tmp_path: Path, moment: str, writes: int) -> None:
    """The ledger is one claim ahead, which had no effect; a slot that was torn counts for nothing."""
    (tmp_path / "effects").mkdir()
    script = Path(__file__).with_name("die_while_claiming.py")
    command = [sys.executable, str(script), str(tmp_path), str(writes), moment]
    done = subprocess.run(command, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 9
    anchor = Anchor(tmp_path / "anchor" / "box.json")
    last = anchor.last
    anchor.close()
    assert last is not None
    assert last.claims == len(list((tmp_path / "effects").iterdir())) == writes - 1
    house = LogHouse(tmp_path, load_signing_key((tmp_path / "key").read_bytes()))
    assert house.why == ""
    assert house.ledger.audited_state().claims == writes
    house.close()


def test_one_torn_slot_leaves_the_state_before(house: LogHouse) -> None:
    """The newest slot is spoilt: the other one counts, and the ledger is ahead of it. Both spoilt is no anchor."""
    house.claim(1)
    house.anchor.settle()
    house.claim(2)
    house.close()
    raw = house.anchor_path.read_bytes()
    numbers = [json.loads(raw[at : at + SLOT_BYTES])["anchor"]["number"] for at in (0, SLOT_BYTES)]
    newest = numbers.index(max(numbers)) * SLOT_BYTES
    rest = raw[newest + SLOT_BYTES :]
    spoilt = raw[:newest] + raw[newest : newest + SLOT_BYTES].replace(b'"claims":2', b'"claims":1') + rest
    assert spoilt != raw
    house.anchor_path.write_bytes(spoilt)
    house.open()
    assert house.why == ""
    house.close()
    house.anchor_path.write_bytes(b"{}".ljust(2 * SLOT_BYTES))
    house.open()
    assert "no anchor that could be read" in house.why


def test_where_the_anchor_can_not_be_written_nothing_happens(house: LogHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first effect is not let through, the next claim is not taken; once it can be written again both go on."""

    def fails(fd: int) -> None:
        raise OSError(5, f"no disk behind {fd}")

    monkeypatch.setattr(os, "fdatasync", fails)
    house.claim(1)
    with pytest.raises(StoreError):
        house.anchor.settle()
    with pytest.raises(StoreError):
        house.claim(2)
    assert house.ledger.execution(mission_id="m-2") is None
    monkeypatch.undo()
    house.claim(2)
    house.anchor.settle()
    assert house.restart() == ""


def test_claims_of_many_threads_settle(house: LogHouse) -> None:
    """A state of the past does not move the anchor back, and whoever waits is let through."""
    early = house.ledger.audited_state()
    for number in range(1, 30):
        house.claim(number)
    house.anchor.move(early)
    house.anchor.settle()
    house.close()
    anchor = Anchor(house.anchor_path)
    assert anchor.last is not None
    assert anchor.last.claims == 29
    anchor.close()
    house.open()


def test_an_anchor_serves_one_executor(house: LogHouse) -> None:
    """A second one on the same file is refused."""
    with pytest.raises(SettingsError, match="another executor"):
        Anchor(house.anchor_path)


def test_clock_and_trust_file_outlive_the_ledger(house: LogHouse) -> None:
    """What only the anchor knows after a loss: the latest time, and which trust file came last."""
    house.ledger.claim(*_late_claim(), values.PLAN)
    late = house.ledger.clock_high_water()
    house.anchor.see_trust(4, "sha256:four")
    house.close()
    house.path.unlink()
    house.open()
    assert house.ledger.clock_high_water() == late > NOW
    assert house.anchor.trust_seen() == (4, "sha256:four")
    house.close()
    house.open()
    assert house.anchor.trust_seen() == (4, "sha256:four")


def test_another_history_may_not_start(house: LogHouse) -> None:
    """The same ledger file at the same place with other entries than the anchor saw: refused, not a new epoch."""
    house.claim(1)
    house.close()
    state = Anchor(house.anchor_path)
    last = state.last
    assert last is not None
    state.start(replace(last, audit_root="00" * 32))
    state.close()
    with pytest.raises(ExecutorError, match="not those that the anchor has seen"):
        house.open()
    house.anchor_path.unlink()
    house.open()
    assert "no anchor" in house.why


def _late_claim() -> tuple[Claim, RequestRecord]:
    return values.claim(1, claimed_at=NOW + timedelta(days=3)), values.request()


def test_an_anchor_in_a_workspace_is_refused(tmp_path: Path) -> None:
    """A plan could change it there; elsewhere any absolute path will do, and without one it is beside the ledger."""
    site = tmp_path / "site"
    options = ["--state", str(tmp_path / "state"), "--workspace", f"site={site}"]
    with pytest.raises(SettingsError, match="lies in a workspace"):
        read_settings([*options, "--anchor", str(site / "anchor.json")], {})
    with pytest.raises(SettingsError, match="not an absolute path"):
        read_settings(options, {"GONOGO_ANCHOR": "anchor.json"})
    elsewhere = tmp_path / "elsewhere.json"
    assert read_settings(options, {"GONOGO_ANCHOR": str(elsewhere)}).anchor_of("box") == elsewhere
    assert read_settings(options, {}).anchor_of("a/b") == tmp_path / "state" / "anchor" / "a%2Fb.json"
