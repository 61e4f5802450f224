"""What must hold whatever else changes, through the real command and the real services."""

import json
import sqlite3
import time
from pathlib import Path

import pytest

from tests.e2e.installation import Installation, tree_of

ALREADY = "Mission has already been executed"


def create_plan(name: str, content: str = "hello\n", **more: object) -> str:
    return json.dumps(
        {
            "objective": f"Create {name}",
            "workspace": "site",
            "steps": [{"create_file": {"path": name, "content": content}}],
            **more,
        }
    )


def slow_plan(name: str, seconds: int) -> str:
    """A plan whose execution takes some seconds: its test run is run again on the committed workspace."""
    return json.dumps(
        {
            "objective": "Take a while",
            "workspace": "site",
            "failure_policy": "roll_back",
            "steps": [
                {"create_file": {"path": name, "content": ""}},
                {"run_tests": {"argv": ["sleep", str(seconds)]}},
            ],
        }
    )


def events_of(house: Installation, mission: str) -> list[dict[str, object]]:
    ran = house.run("events", mission, "-o", "ndjson")
    assert ran.code == 0, ran.err
    return [json.loads(line) for line in ran.out.splitlines()]


def types_of(house: Installation, mission: str) -> list[str]:
    return [str(event["type"]) for event in events_of(house, mission)]


def executions_in_ledger(house: Installation, mission: str) -> int:
    with sqlite3.connect(f"file:{house.state}/executor/ledger.db?mode=ro", uri=True) as ledger:
        (count,) = ledger.execute("select count(*) from executions where mission_id = ?", (mission,)).fetchone()
    ledger.close()
    return int(count)


def test_a_proposed_mission_is_refused_with_nothing_written_and_no_tool_started(
    house: Installation, site: Path
) -> None:
    """Without an approval the executor claims nothing, starts nothing and changes nothing."""
    plan = json.dumps(
        {
            "objective": "Run a tool",
            "workspace": "site",
            "steps": [{"run_command": {"argv": ["touch", "made-by-tool"]}}],
        }
    )
    mission = house.json("propose", "-f", "-", text=plan)["mission_id"]
    house.json("dry-run", mission)
    before = tree_of(site)
    error = house.json("execute", mission, code=3)
    assert error["reason"] == "NOT_APPROVED"
    assert error["remedy"]
    assert tree_of(site) == before
    assert executions_in_ledger(house, mission) == 0
    assert not {"step_started", "execution_started", "checkpoint_created"} & set(types_of(house, mission))


def test_an_approved_mission_executes_once_with_one_record_and_one_receipt(house: Installation, site: Path) -> None:
    """The change is there, the ledger holds one execution, the log one receipt, and both fingerprints agree."""
    mission = house.approved(create_plan("once.txt"))
    report = house.json("show", mission)["report"]
    done = house.json("execute", mission)
    assert done["outcome"] == "success"
    assert (site / "once.txt").read_text() == "hello\n"
    assert executions_in_ledger(house, mission) == 1
    assert types_of(house, mission).count("receipt_issued") == 1
    verified = house.json("verify", mission)
    assert verified["valid"], verified
    trace = house.json("trace", mission)
    assert done["receipt_id"] in json.dumps(trace)
    board = house.json("whiteboard", mission)
    assert board["status"] == "completed"
    assert board["start_time"] <= board["end_time"]
    assert report["after_fingerprint"].startswith("sha256:")


def test_a_second_execution_is_refused(house: Installation, site: Path) -> None:
    """It says that the mission has already been executed, and the file that was removed since stays away."""
    mission = house.approved(create_plan("twice.txt"))
    house.json("execute", mission)
    (site / "twice.txt").unlink()
    error = house.json("execute", mission, code=8)
    assert ALREADY in error["message"]
    assert error["reason"] == "ALREADY_EXECUTED"
    assert not (site / "twice.txt").exists()
    assert executions_in_ledger(house, mission) == 1


def test_approving_twice_leaves_one_approval_record(house: Installation) -> None:
    """The second approval of the same person answers with the first."""
    mission = house.approved(create_plan("approved.txt"))
    again = house.json("approve", mission, "--key", str(house.state / "keys" / "approver"), "--yes")
    assert types_of(house, mission).count("approval_granted") == 1
    board = house.json("whiteboard", mission)
    assert [approval["approval_id"] for approval in board["approvals"]] == [again["approval_id"]]


def test_the_chat_answers_while_an_execution_runs(house: Installation) -> None:
    """A message sent during an execution is answered before that execution ends."""
    mission = house.approved(slow_plan("slow.txt", 3))
    queued = house.json("execute", mission, "--detach")
    assert queued["status"] in {"queued", "active"}
    wait_for(house, mission, {"active"})
    reply = house.json("chat", f"what is the status of {mission}")
    assert "active" in reply["reply"]
    wait_for(house, mission, {"completed"})


def test_the_status_goes_from_proposed_over_approved_and_active_to_completed(house: Installation) -> None:
    """Log and whiteboard tell the same way."""
    mission = house.approved(create_plan("status.txt"))
    assert house.json("whiteboard", mission)["status"] == "approved"
    house.json("execute", mission)
    types = types_of(house, mission)
    milestones = ["mission_proposed", "mission_approved", "mission_started", "mission_completed"]
    assert [kind for kind in types if kind in milestones] == milestones
    assert house.json("whiteboard", mission)["status"] == "completed"


def test_a_failing_execution_ends_as_failed(house: Installation, site: Path) -> None:
    """A test run that turns red between dry run and execution rolls the mission back."""
    flag = site / "flag"
    flag.write_text("ok")
    deadline = int(time.time()) + 8
    plan = json.dumps(
        {
            "objective": "Fail in the execution",
            "workspace": "site",
            "failure_policy": "roll_back",
            "scope": {"paths": ["new-one.txt"]},
            "steps": [
                {"create_file": {"path": "new-one.txt", "content": ""}},
                {"run_tests": {"argv": ["sh", "-c", "test $(date +%s) -lt DEADLINE"]}},
            ],
        }
    ).replace("DEADLINE", str(deadline))
    mission = house.approved(plan)
    time.sleep(max(0.0, deadline + 0.5 - time.time()))
    ran = house.run("execute", mission, "-o", "json")
    assert ran.code == 6
    assert not (site / "new-one.txt").exists()
    board = house.json("whiteboard", mission)
    assert (board["status"], board["outcome"]) == ("failed", "rolled_back")


def test_a_drifted_workspace_is_refused_by_name_and_wants_a_fresh_dry_run(house: Installation, site: Path) -> None:
    """What somebody wrote since is kept, the path is named, and the mission is proposed again."""
    (site / "drift.txt").write_text("one\n")
    plan = json.dumps(
        {
            "objective": "Change a file",
            "workspace": "site",
            "steps": [{"replace_text": {"path": "drift.txt", "old": "one", "new": "two"}}],
        }
    )
    mission = house.approved(plan)
    (site / "drift.txt").write_text("somebody was here\n")
    error = house.json("execute", mission, code=5)
    assert error["reason"] == "BASE_DRIFTED"
    assert "drift.txt" in json.dumps(error)
    assert (site / "drift.txt").read_text() == "somebody was here\n"
    assert house.json("whiteboard", mission)["status"] == "proposed"
    assert executions_in_ledger(house, mission) == 0


def test_a_clone_is_a_mission_of_its_own(house: Installation) -> None:
    """It has its own plan, dry run and approval; the original's approval does not carry over."""
    mission = house.approved(create_plan("clone.txt"))
    clone = house.json("clone", mission)
    assert clone["mission_id"] != mission
    assert clone["plan_digest"] != house.json("show", mission)["plan"]["digest"]
    house.json("dry-run", clone["mission_id"])
    assert house.json("execute", clone["mission_id"], code=3)["reason"] == "NOT_APPROVED"


def test_the_result_of_a_chats_mission_comes_back_into_the_chat(house: Installation) -> None:
    """The end of a mission that a chat proposed is a message in that chat, once."""
    sent = house.json("chat", "in site: create chatted.txt with 'hi'")
    mission, session = sent["mission_id"], sent["session_id"]
    house.json("dry-run", mission)
    house.json("approve", mission, "--key", str(house.state / "keys" / "approver"), "--yes")
    house.json("execute", mission)
    messages = house.json("messages", session)["messages"]
    receipt = house.json("show", mission)["receipt_id"]
    results = [said for said in messages if said["actor"] == "gonogo" and receipt in said["text"]]
    assert len(results) == 1, messages


def wait_for(house: Installation, mission: str, statuses: set[str], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    status = ""
    while time.monotonic() < deadline:
        status = house.json("whiteboard", mission)["status"]
        if status in statuses:
            return
        time.sleep(0.1)
    pytest.fail(f"{mission} is {status}, not {statuses}")
