"""Bundles of real missions: exported from both services, and proven with nothing but public keys."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.installation import Installation, Ran, gone, installed
from tests.e2e.test_invariants import create_plan, slow_plan, wait_for
from tests.unit.client.test_verify_by_hand import MISSING, by_hand

pytestmark = pytest.mark.long


def exported(house: Installation, mission: str, folder: Path) -> Path:
    """Export a mission's bundle."""
    path = folder / f"{mission}.json"
    said = house.json("export", mission, "--bundle", str(path))
    assert (said["mission_id"], said["bytes"]) == (mission, path.stat().st_size)
    return path


def verified_elsewhere(house: Installation, bundle: Path, folder: Path, *arguments: str) -> Ran:
    """Verify a bundle where there is no state directory and no service, only the executor's public key."""
    away = Installation(folder / "nothing", {})
    key = folder / "executor.pub"
    shutil.copy(house.state / "keys" / "executor.pub", key)
    return away.run("verify", str(bundle), "--executor-key", str(key), *arguments, "-o", "json")


def proof_of(house: Installation, target: str | Path) -> Any:
    """Return what `gonogo verify` says of a mission or a bundle, whether it holds or not."""
    return house.run("verify", str(target), "-o", "json").json


def failing(proof: Any) -> list[tuple[str, str]]:
    return [(one["name"], one["detail"]) for one in proof["checks"] if not one["ok"]]


def missing(proof: Any) -> set[str]:
    return {one["name"] for one in proof["not_there"]}


def test_an_executed_mission_is_proven_by_its_bundle_alone(house: Installation, tmp_path: Path) -> None:
    """Every check holds, online, offline with the state, and elsewhere with one public key."""
    mission = house.approved(create_plan("bundled.txt"))
    assert house.json("execute", mission)["outcome"] == "success"
    online = proof_of(house, mission)
    assert failing(online) == []
    bundle = exported(house, mission, tmp_path)
    offline = proof_of(house, bundle)
    assert failing(offline) == []
    assert missing(offline) == {"plan signature"}
    ran = verified_elsewhere(house, bundle, tmp_path, "--complete")
    assert (ran.code, failing(ran.json)) == (0, []), ran.err
    assert house.json("trace", mission)["chain"][-1]["kind"] == "audit leaf"


def test_a_mission_from_a_chat_is_proven_from_the_message_on(house: Installation, tmp_path: Path) -> None:
    """The message, its intent and all that follows are in the bundle."""
    said = house.json("chat", "create said.txt with 'hello'", "--workspace", "site")
    mission = said["mission_id"]
    assert mission, said
    house.json("dry-run", mission)
    house.json("approve", mission, "--yes")
    house.json("execute", mission)
    proof = proof_of(house, exported(house, mission, tmp_path))
    assert failing(proof) == []
    names = {one["name"] for one in proof["checks"]}
    assert {"events tell of the message", "message is named by plan.message_id"} <= names


def test_a_mission_that_drifted_was_refused_and_went_on_is_proven(
    house: Installation, site: Path, tmp_path: Path
) -> None:
    """The refusal, the second dry run and both approvals stand in the logs; only the last ones count."""
    mission = house.approved(create_plan("drifted.txt"))
    (site / "drifted.txt").write_text("somebody was faster")
    assert house.json("execute", mission, code=5)["reason"] == "BASE_DRIFTED"
    refused = proof_of(house, exported(house, mission, tmp_path))
    assert failing(refused) == []
    assert {"report", "receipt"} <= missing(refused)
    (site / "drifted.txt").unlink()
    house.json("dry-run", mission)
    house.json("approve", mission, "--yes")
    house.json("execute", mission)
    proof = proof_of(house, exported(house, mission, tmp_path))
    assert failing(proof) == []
    assert "refusal's leaf" in {one["name"] for one in proof["checks"]}


def test_a_denial_at_the_executor_is_in_the_proof(house: Installation, tmp_path: Path) -> None:
    """The executor's log has the denial, and the refusal that it led to; nothing was claimed."""
    mission = house.approved(create_plan("denied.txt"))
    house.json("deny", mission, "-m", "not today")
    assert house.run("execute", mission).code != 0
    proof = proof_of(house, exported(house, mission, tmp_path))
    assert failing(proof) == []
    names = {one["name"]: one["detail"] for one in proof["checks"]}
    assert any(name.endswith(" revoked") and detail.endswith("deny") for name, detail in names.items()), names


def test_an_execution_that_was_stopped_by_a_withdrawal_is_in_the_proof(house: Installation, tmp_path: Path) -> None:
    """After the claim the execution stops before its next step; log, events and receipt agree about it."""
    mission = house.approved(slow_plan("withdrawn.txt", 4))
    house.json("execute", mission, "--detach")
    wait_for(house, mission, {"active"})
    house.json("revoke", mission, "-m", "stop")
    wait_for(house, mission, {"failed", "completed", "cancelled"})
    assert failing(proof_of(house, exported(house, mission, tmp_path))) == []


@pytest.mark.parametrize("steps", [("propose",), ("propose", "dry-run"), ("propose", "dry-run", "approve")])
def test_a_mission_proves_as_much_as_it_has(house: Installation, tmp_path: Path, steps: tuple[str, ...]) -> None:
    """What is not there yet is named, and fails only where completeness is asked for."""
    plan = create_plan(f"{len(steps)}-steps.txt")
    mission = house.json("propose", "-f", "-", text=plan)["mission_id"]
    if "dry-run" in steps:
        house.json("dry-run", mission)
    if "approve" in steps:
        house.json("approve", mission, "--yes")
    bundle = exported(house, mission, tmp_path)
    proof = proof_of(house, bundle)
    assert failing(proof) == []
    assert "receipt" in missing(proof)
    assert house.run("verify", str(bundle), "--complete").code == 1


def test_the_page_for_checking_by_hand_holds_on_a_real_bundle(house: Installation, tmp_path: Path) -> None:
    """Every command of docs/verify.md runs on what the services made."""
    if MISSING:
        pytest.skip(f"make setup installs: {', '.join(MISSING)}")
    mission = house.approved(create_plan("by-hand.txt"))
    house.json("execute", mission)
    text = exported(house, mission, tmp_path).read_text()
    ran = by_hand(tmp_path, text, (house.state / "keys" / "executor.pub").read_text().strip())
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_bundle_with_the_executor_away_lacks_its_log(tmp_path: Path) -> None:
    """The receipt without its leaf does not hold: it is said by name."""
    with installed(tmp_path) as house:
        mission = house.approved(create_plan("a.txt"))
        house.json("execute", mission)
        data = json.loads(exported(house, mission, tmp_path).read_text())
    data["logs"]["executor"] = None
    path = tmp_path / "without.json"
    path.write_text(json.dumps(data))
    ran = house.run("verify", str(path), "-o", "json")
    assert ran.code == 1
    assert [name for name, _ in failing(ran.json)] == ["receipt's leaf"]


def test_an_execution_that_was_cut_off_is_proven_as_what_it_came_to(tmp_path: Path) -> None:
    """The receipt that the next start issued has its leaf, and the state follows from the events."""
    with installed(tmp_path) as house:
        mission = house.approved(slow_plan("half.txt", 8))
        house.json("execute", mission, "--detach")
        wait_for(house, mission, {"active"})
        pids = house.service_pids()
        house.kill()
        assert all(gone(pid) for pid in pids)
        house.start()
        wait_for(house, mission, {"failed"})
        proof = proof_of(house, exported(house, mission, tmp_path))
        assert failing(proof) == []
        assert "receipt's leaf" in {one["name"] for one in proof["checks"]}


def test_services_that_were_put_back_together_are_found_by_the_approvers_client(tmp_path: Path) -> None:
    """Both services agree on the past that was restored; whoever kept a checkpoint signs nothing for them."""
    with installed(tmp_path) as house:
        first = house.approved(create_plan("first.txt"))
        second = house.json("propose", "-f", "-", text=create_plan("second.txt"))["mission_id"]
        house.json("dry-run", second)
        house.stop()
        saved = tmp_path / "saved"
        shutil.copytree(house.state, saved, ignore=shutil.ignore_patterns("witness"))
        house.start()
        assert house.json("execute", first)["outcome"] == "success"
        assert proof_of(house, first)["valid"]
        house.stop()
        for path in house.state.iterdir():
            if path.name != "witness":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        shutil.copytree(saved, house.state, dirs_exist_ok=True)
        house.start()
        error = house.json("approve", second, "--yes", code=7)
        assert error["reason"] == "AUDIT_FORKED"
        assert "kept" in error["message"]
        assert "shown" in error["message"]
        shutil.rmtree(house.state / "witness")
        house.json("approve", second, "--yes")
