"""Starting, stopping and dying: nothing is left behind, and what was there goes on."""

import json
import os
import signal
from pathlib import Path

from tests.e2e.installation import gone, installed
from tests.e2e.test_invariants import create_plan, slow_plan, wait_for


def test_the_services_die_with_their_parent_and_a_new_start_carries_on(tmp_path: Path) -> None:
    """Kill -9 of `gonogo up` leaves no service; what was approved before can be executed afterwards."""
    with installed(tmp_path) as house:
        mission = house.approved(create_plan("kept.txt"))
        pids = house.service_pids()
        house.kill()
        assert all(gone(pid) for pid in pids)
        house.start()
        assert house.json("execute", mission)["outcome"] == "success"
        assert (house.workspaces["site"] / "kept.txt").exists()
        replay = house.json("replay")
        assert replay["equal"], replay


def test_a_dead_service_ends_the_other_and_the_parent(tmp_path: Path) -> None:
    """When one service dies, `gonogo up` ends with an error and takes the other along."""
    with installed(tmp_path) as house:
        executor, orchestrator = house.service_pids()
        parent = house.pid
        os.kill(executor, signal.SIGKILL)
        assert gone(orchestrator, 30)
        assert gone(parent, 30)


def test_a_dead_executor_is_a_clear_error_and_loses_nothing(tmp_path: Path) -> None:
    """A frozen executor does not hang the command for ever, and the approved mission stays approved."""
    with installed(tmp_path) as house:
        ran = house.run("list", "-o", "json")
        assert ran.code == 0
        house.stop()
        error = house.json("list", code=1)
        assert error["reason"] == "EXECUTOR_UNAVAILABLE" or "gonogo up" in error["remedy"]


def test_an_execution_that_dies_half_way_is_rolled_back_and_never_run_again(tmp_path: Path) -> None:
    """The next start undoes what was done and the mission has failed; a second execution is refused."""
    with installed(tmp_path) as house:
        mission = house.approved(slow_plan("half.txt", 8))
        house.json("execute", mission, "--detach")
        wait_for(house, mission, {"active"})
        pids = house.service_pids()
        house.kill()
        assert all(gone(pid) for pid in pids)
        house.start()
        wait_for(house, mission, {"failed"})
        board = house.json("whiteboard", mission)
        assert board["outcome"] == "rolled_back"
        assert list(house.workspaces["site"].iterdir()) == []
        assert house.run("execute", mission, "-o", "json").code == 8


def test_two_starts_on_one_state_directory_are_refused(tmp_path: Path) -> None:
    """The second `gonogo up` says that the first one runs."""
    with installed(tmp_path) as house:
        error = house.json("up", "--workspace", f"site={house.workspaces['site']}", code=1)
        assert error["remedy"]


def test_export_gives_the_log_as_json_lines(tmp_path: Path) -> None:
    """Every line is a JSON object, and the mission's events are among them."""
    with installed(tmp_path) as house:
        mission = house.approved(create_plan("exported.txt"))
        house.json("execute", mission)
        ran = house.run("export")
        assert ran.code == 0, ran.err
        lines = [json.loads(line) for line in ran.out.splitlines()]
        assert any(line.get("type") == "mission_completed" for line in lines)


def test_the_state_directory_survives_a_second_init(tmp_path: Path) -> None:
    """`gonogo init` never overwrites keys."""
    with installed(tmp_path) as house:
        before = (house.state / "keys" / "approver").read_bytes()
        error = house.json("init", code=1)
        assert error["remedy"]
        assert (house.state / "keys" / "approver").read_bytes() == before
