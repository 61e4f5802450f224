"""Missions under way by the command alone: what each command prints, how it ends, and that the proof holds after it."""

import http.server
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.e2e.by_hand import prepared, start_executor, start_orchestrator
from tests.e2e.installation import Installation, Ran
from tests.unit.client.test_verify_by_hand import MISSING, by_hand

pytestmark = [pytest.mark.sandbox, pytest.mark.long]

SECONDS = 30
HOST = "localhost"


class Hanging(http.server.BaseHTTPRequestHandler):
    """Takes every request, and answers only while it is asked to: nobody can tell whether the others did anything."""

    answers: ClassVar[threading.Event] = threading.Event()
    taken: ClassVar[list[str]] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.taken.append(self.path)
        self.answers.wait(SECONDS)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's own name
        """Stay silent."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server that hangs unless it is told not to."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hanging) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        Hanging.answers.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder whose files decide about verdicts."""
    return tmp_path_factory.mktemp("tools")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, tools: Path) -> Iterator[Installation]:
    """Both services; the trust file lets steps reach this machine's own loopback."""
    installation = prepared(tmp_path_factory.mktemp("control"))
    trust = installation.state / "trust.toml"
    text = trust.read_text().replace("[policy]", f'domains = ["{HOST}"]\n\n[policy]', 1)
    trust.write_text(text + '\n[network]\nprivate_addresses = ["127.0.0.0/8", "::1/128"]\n')
    executor = start_executor(installation.state, installation.workspaces, tools=[tools])
    orchestrator = start_orchestrator(installation.state, executor.address)
    yield installation
    orchestrator.stop()
    executor.stop()


@pytest.fixture(autouse=True)
def fresh(tools: Path, site: Path) -> None:
    """Nothing of another test in the workspace; the verdict is good."""
    (tools / "on").touch()
    for path in site.iterdir():
        path.unlink()


def plan_text(*steps: Any, **more: Any) -> str:
    return json.dumps({"objective": "Try it", "workspace": "site", "steps": steps, **more})


def written(name: str, **more: Any) -> dict[str, Any]:
    return {"write_file": {"path": name, "content": f"{name}\n"}, **more}


def verdict(tools: Path) -> dict[str, Any]:
    return {"run_tests": {"argv": ["test", "-e", str(tools / "on")]}}


def waiting_test(tools: Path) -> dict[str, Any]:
    """A test that waits in the execution until it is let go."""
    return {"run_tests": {"argv": ["sh", "-c", f"while ! test -e {tools}/on; do sleep 0.02; done"]}}


def failed(house: Installation, tools: Path, *names: str) -> tuple[str, Ran]:
    """Execute a plan whose test fails after its first step; return the mission and how the command ended."""
    first, *others = [written(name) for name in names]
    mission = house.approved(plan_text(first, verdict(tools), *others))
    (tools / "on").unlink()
    ran = house.run("execute", mission, "-o", "json")
    (tools / "on").touch()
    return mission, ran


def proven(house: Installation, mission: str, folder: Path | None = None) -> dict[str, str]:
    """Verify a mission with everything that its bundle must have, and return the checks that were made."""
    bundle = (folder or house.state) / f"{mission}.json"
    house.json("export", mission, "--bundle", str(bundle))
    ran = house.run("verify", str(bundle), "--complete", "-o", "json")
    assert [(one["name"], one["detail"]) for one in ran.json["checks"] if not one["ok"]] == []
    assert ran.code == 0
    assert house.json("trace", mission)["complete"]
    return {one["name"]: one["detail"] for one in ran.json["checks"]}


def until(house: Installation, mission: str, *statuses: str) -> Any:
    """Return the mission once it stands so."""
    deadline = time.monotonic() + SECONDS
    found = house.json("show", mission)
    while found["status"] not in statuses and time.monotonic() < deadline:
        time.sleep(0.05)
        found = house.json("show", mission)
    assert found["status"] in statuses
    return found


def running(house: Installation, site: Path, tools: Path, *more: Any) -> str:
    """Return a mission that runs a test which waits to be let go."""
    mission = house.approved(plan_text(written("first.txt"), waiting_test(tools), written("last.txt"), *more))
    (tools / "on").unlink()
    house.json("execute", mission, "--detach")
    deadline = time.monotonic() + SECONDS
    while not (site / "first.txt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    until(house, mission, "active")  # the executor is ahead of what is told of it
    return mission


def test_pause_and_resume(house: Installation, site: Path, tools: Path) -> None:
    """It pauses at the next step, says so in every command, and goes on to a success."""
    mission = running(house, site, tools)
    asked = house.json("pause", mission, "-m", "lunch")
    assert (asked["mission_id"], asked["status"] in {"active", "paused"}) == (mission, True)
    (tools / "on").touch()
    waiting = until(house, mission, "paused")
    pause = waiting["pause"]
    assert (pause["kind"], pause["step_id"], pause["repairable"]) == ("requested", "s3", True)
    assert (set(pause["actions"]), pause["default_action"]) == ({"resume", "stop"}, "roll_back")
    assert "lunch" in pause["reason"]
    assert not (site / "last.txt").exists()
    watched = house.run("watch", mission)
    assert (watched.code, f"gonogo resume {mission}" in watched.out) == (0, True)
    again = house.run("execute", mission, "-o", "json")
    assert (again.code, again.error["reason"], again.json["pause"]["kind"]) == (3, "EXECUTION_PAUSED", "requested")
    assert house.run("retry", mission).code == 7
    assert house.json("resume", mission)["status"] in {"active", "completed"}
    assert until(house, mission, "completed")["outcome"] == "success"
    assert (site / "last.txt").exists()
    assert "receipt tells what people had it do" in proven(house, mission)


def test_stop_kills_what_runs_and_keeps_what_is_committed(house: Installation, site: Path, tools: Path) -> None:
    """Status and outcome say that a person stopped it, and how far it was."""
    mission = running(house, site, tools)
    stopped = house.json("stop", mission, "-m", "enough")
    assert stopped["status"] in {"active", "cancelled"}
    ended = until(house, mission, "cancelled")
    assert (ended["outcome"], ended["receipt"]["abort_reason"]) == ("partial", "STOPPED")
    assert [one["action"] for one in ended["receipt"]["controls"]] == ["stop"]
    assert (site / "first.txt").exists()
    assert house.json("resume", mission, code=7)["reason"] == "STATE_FORBIDS"
    proven(house, mission)


def test_stop_with_roll_back_undoes_everything(house: Installation, site: Path, tools: Path) -> None:
    """Nothing is left of it."""
    mission = running(house, site, tools)
    house.json("stop", mission, "--roll-back")
    assert until(house, mission, "cancelled")["outcome"] == "rolled_back"
    assert list(site.iterdir()) == []
    proven(house, mission)


def test_stop_before_the_claim_cancels(house: Installation) -> None:
    """A mission that nobody has claimed is cancelled, and pausing it makes no sense."""
    mission = house.approved(plan_text(written("never.txt")))
    assert house.json("pause", mission, code=7)["reason"] == "STATE_FORBIDS"
    assert house.json("stop", mission)["status"] == "cancelled"


def test_a_failure_ends_execute_and_a_retry_goes_on(house: Installation, site: Path, tools: Path) -> None:
    """Exit code 6 with the commands that go on; the retry runs the same step to a success, which is 0 for watch."""
    mission, ran = failed(house, tools, "retry-1.txt", "retry-2.txt")
    assert (ran.code, ran.error["reason"], ran.json["status"]) == (6, "EXECUTION_PAUSED", "paused")
    assert (ran.json["pause"]["kind"], ran.json["pause"]["step_id"]) == ("failure", "s2")
    assert all(f"gonogo {word} {mission}" in ran.error["remedy"] for word in ("retry", "stop", "repair"))
    assert f"gonogo retry {mission}" in house.run("show", mission).out
    assert house.json("whiteboard", mission)["pause"]["kind"] == "failure"
    assert house.json("retry", mission)["mission_id"] == mission
    assert until(house, mission, "completed")["outcome"] == "success"
    assert house.run("watch", mission).code == 0
    receipt = house.json("show", mission)["receipt"]
    assert [step["attempts"] for step in receipt["steps"]] == [1, 2, 1]
    proven(house, mission)


def test_a_repair_is_another_segment_of_the_same_execution(
    house: Installation, site: Path, tools: Path, tmp_path: Path
) -> None:
    """Planned, dry-run, approved and executed by command; one receipt; the proof and the page by hand hold for it."""
    mission, _ = failed(house, tools, "repair-1.txt", "repair-2.txt")
    given = tmp_path / "repair.json"
    given.write_text(json.dumps({"steps": [written("fixed.txt"), verdict(tools)]}))
    repair = house.json("repair", mission, "-f", str(given))
    assert (repair["status"], repair["segment"], repair["report"]["status"]) == ("paused", 1, "success")
    assert [step["step_id"] for step in repair["plan"]["steps"]] == ["r1-s1", "r1-s2"]
    assert repair["explanation"]
    assert house.json("execute", mission, code=3)["reason"] == "NOT_APPROVED"
    house.json("approve", mission, "--yes")
    done = house.json("execute", mission)
    assert (done["outcome"], done["status"], [one["segment"] for one in done["segments"]]) == (
        "success", "completed", [1],
    )  # fmt: skip
    assert ((site / "fixed.txt").exists(), (site / "repair-2.txt").exists()) == (True, False)
    shown = house.json("show", mission)
    assert [one["segment"] for one in shown["segments"]] == [0]
    assert "PLAN OF SEGMENT 1" in house.run("show", mission).out
    kinds = [link["kind"] for link in house.json("trace", mission)["chain"]]
    assert kinds[-7:] == [
        "execution", "segment 1", "segment 1 plan", "segment 1 report", "segment 1 approval", "receipt", "audit leaf",
    ]  # fmt: skip
    checks = proven(house, mission, tmp_path)
    assert {"segment 1 policy decision", "segment 1 gate 7 once saw these documents"} <= checks.keys()
    if not MISSING:
        text = (tmp_path / f"{mission}.json").read_text()
        ran = by_hand(tmp_path, text, (house.state / "keys" / "executor.pub").read_text().strip())
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "holds: segment 1" in ran.stdout


def test_a_repair_is_proposed_where_none_is_given(house: Installation, tools: Path) -> None:
    """Whatever the proposer can make of it, plan and report are shown, and how to approve them."""
    mission, _ = failed(house, tools, "asked-1.txt", "asked-2.txt")
    ran = house.run("repair", mission)
    if ran.code == 0:
        assert f"gonogo approve {mission}" in ran.err
        assert "REPORT (signed by the executor" in ran.out
    house.json("stop", mission, "--roll-back")
    until(house, mission, "cancelled")
    proven(house, mission)


def test_a_failed_dry_run_gets_another_plan(house: Installation, tools: Path) -> None:
    """Before anything was approved the repair takes the place of the first plan, and the proof says which it was."""
    (tools / "on").unlink()
    mission = house.json("propose", "-f", "-", text=plan_text(verdict(tools)))["mission_id"]
    assert house.run("dry-run", mission).code == 6
    repair = house.json("repair", mission, "-f", "-", text=plan_text(written("instead.txt")))
    assert (repair["segment"], repair["report"]["status"]) == (0, "success")
    house.json("approve", mission, "--yes")
    assert house.json("execute", mission)["outcome"] == "success"
    proven(house, mission)


def test_a_step_waits_for_its_own_approval(house: Installation, site: Path) -> None:
    """Execute ends as waiting; the signature is shown, kept, counted and proven."""
    steps = (written("free.txt"), written("asked.txt", needs_approval=True))
    mission = house.approved(plan_text(*steps))
    ran = house.run("execute", mission, "-o", "json")
    assert (ran.code, ran.json["pause"]["kind"], ran.json["pause"]["step_id"]) == (3, "step_approval", "s2")
    assert ran.json["pause"]["default_action"] == "stop"
    assert house.json("approve-step", mission, "s2", code=3)["reason"] == "NO_TERMINAL"
    assert not (site / "asked.txt").exists()
    approved = house.run("approve-step", mission, "s2", "--yes", "-m", "looks right")
    assert (approved.code, "+asked.txt" in approved.err) == (0, True), approved.err
    assert until(house, mission, "completed")["outcome"] == "success"
    shown = house.json("show", mission)
    assert [(one["kind"], one["step_id"], one["comment"]) for one in shown["words"]] == [
        ("step_approval", "s2", "looks right")
    ]
    assert shown["receipt"]["steps"][1]["step_approvals"][0]["approver"] == "owner"
    assert "STEP APPROVAL" in house.run("show", mission).out
    checks = proven(house, mission)
    assert "step s2 was approved by itself" in checks
    assert house.json("approve-step", mission, "s2", "--yes", code=7)["reason"] == "STEP_NOT_WAITING"


def test_a_denied_step_stops_the_execution(house: Installation, site: Path) -> None:
    """Nothing of the step is done, and the denial is in the proof."""
    mission = house.approved(plan_text(written("free.txt"), written("asked.txt", needs_approval=True)))
    assert house.run("execute", mission).code == 3
    house.json("deny-step", mission, "s2", "-m", "no")
    ended = until(house, mission, "cancelled")
    assert (ended["outcome"], ended["words"][0]["decision"]) == ("partial", "deny")
    assert not (site / "asked.txt").exists()
    proven(house, mission)


def posting(port: int) -> str:
    request = {"method": "POST", "url": f"http://{HOST}:{port}/deploy", "content": "go"}
    scope = {"network": "listed_domains", "domains": [HOST], "max_duration_seconds": 2}
    return plan_text(written("before.txt"), {"http_request": request}, written("after.txt"), scope=scope)


@pytest.mark.parametrize("happened", [True, False])
def test_an_effect_that_nobody_knows_of_is_reconciled(
    house: Installation, site: Path, port: int, happened: bool
) -> None:
    """The far side never answered: a person says whether it happened, signs that, and it is never done again."""
    Hanging.answers.clear()
    Hanging.taken.clear()
    mission = house.approved(posting(port))
    ran = house.run("execute", mission, "-o", "json")
    assert (ran.code, ran.error["reason"]) == (3, "EFFECT_UNKNOWN"), ran.err
    assert (ran.json["pause"]["kind"], ran.json["pause"]["deadline"]) == ("unknown_effect", None)
    assert Hanging.taken == ["/deploy"]
    Hanging.answers.set()
    assert house.json("retry", mission, code=7)["reason"] == "STATE_FORBIDS"
    said = house.json("reconcile", mission, "s2", "--happened" if happened else "--did-not", "-m", "I looked")
    if not happened:
        assert (said["pause"]["kind"], "retry" in said["pause"]["actions"]) == ("failure", True)
        house.json("retry", mission)
    ended = until(house, mission, "completed")
    assert ended["outcome"] == "success"
    assert Hanging.taken == ["/deploy"] * (1 if happened else 2)
    effect = ended["receipt"]["steps"][1]["effect"]
    assert effect["state"] == "done"
    if happened:
        assert (effect["reconciliation"]["person"], effect["reconciliation"]["happened"]) == ("owner", True)
    assert (site / "after.txt").exists()
    checks = proven(house, mission)
    assert "receipt tells what was done outside" in checks


def test_what_is_known_besides(house: Installation, tools: Path) -> None:
    """Queue, processes, feedback and signals have their shapes; doctor says what live steps could use."""
    mission = house.approved(plan_text(written("queued.txt")))
    said = house.json("execute", mission, "--detach", "--priority", "5", "--not-before", "30m")
    assert (said["status"], said["priority"], said["queue_position"]) == ("queued", 5, 1)
    queue = house.json("queue", "--workspace", "site")
    assert (queue["depth"], queue["missions"][0]["mission_id"], queue["missions"][0]["position"]) == (1, mission, 1)
    assert house.json("stop", mission)["status"] == "cancelled"
    assert house.json("queue")["missions"] == []
    assert house.json("processes") == []
    assert house.json("stop-process", "pr-none", code=1)["reason"] == "NOT_FOUND"
    assert house.json("feedback", mission, "--good", "-m", "never ran")["mission_id"] == mission
    signals = house.json("signals")
    assert signals.keys() == {"rates", "calibration", "failures", "stages"}
    for rate in signals["rates"]:
        assert rate["success_rate"] is None or 0 <= rate["success_rate"] <= 1
        assert {"kind", "tool", "workspace_id", "samples", "insufficient", "low", "high"} <= rate.keys()
    found = {one["name"]: one for one in house.run("doctor", "-o", "json").json["findings"]}
    assert HOST in found["executor domains"]["detail"]
    assert "executor live_steps" in found
