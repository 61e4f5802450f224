"""The commands against a simulated orchestrator: what they print, where, and how they end."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
from google.rpc import code_pb2

from client.__main__ import run_command
from client.state import StateDirectory
from gonogo.digests import digest
from gonogo.signatures import new_signing_key
from gonogo.v1 import evidence_pb2
from tests.unit.client.orchestrator_simulator import Simulator


@dataclass(frozen=True)
class Ran:
    """How one command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> Any:
        return json.loads(self.err.splitlines()[-1])


Command = Callable[..., Ran]


@pytest.fixture
def gonogo(simulator: Simulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command in this process, with no terminal."""

    def command(*arguments: str, text: str = "") -> Ran:
        monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(text.encode())))
        code = run_command(arguments)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return command


def written(simulator: Simulator, path: str, old: bytes, new: bytes, mode: str = "0644") -> evidence_pb2.Change:
    """Return the change of a file from some bytes to others, with both kept as objects."""
    simulator.objects[digest(old)], simulator.objects[digest(new)] = old, new
    return evidence_pb2.Change(
        path=path,
        kind=evidence_pb2.CHANGE_KIND_MODIFY,
        old=file_node(old, "0644"),
        new=file_node(new, mode),
    )


def file_node(data: bytes, mode: str = "0644") -> evidence_pb2.NodeState:
    return evidence_pb2.NodeState(type=evidence_pb2.NODE_TYPE_FILE, mode=mode, digest=digest(data), size=str(len(data)))


def tried(gonogo: Command, plan_file: Path) -> str:
    """Return a mission that was proposed and dry-run."""
    mission: str = gonogo("propose", "-f", str(plan_file), "-o", "json").json["mission_id"]
    assert gonogo("dry-run", mission).code == 0
    return mission


def test_propose_answers_with_the_mission(gonogo: Command, plan_file: Path) -> None:
    """Ids, digest and status stand in the JSON that scripts read; standard input serves as a file too."""
    answer = gonogo("propose", "-f", "-", "-o", "json", text=plan_file.read_text())
    assert answer.code == 0
    assert answer.json["status"] == "proposed"
    assert answer.json["plan_digest"].startswith("sha256:")
    assert {"mission_id", "plan_id"} <= answer.json.keys()


def test_a_dry_run_reports_net_changes_with_json_types(gonogo: Command, simulator: Simulator, plan_file: Path) -> None:
    """Sizes are numbers, enums short names, and a path that two steps touch counts once."""
    first = written(simulator, "a.txt", b"old\n", b"middle\n")
    second = written(simulator, "a.txt", b"middle\n", b"new\n", mode="0755")
    plan_file.write_text(plan_file.read_text() + "  - write_file: {path: a.txt, content: 'new\\n'}\n")
    simulator.changes = [[first], [second]]
    mission = gonogo("propose", "-f", str(plan_file), "-o", "json").json["mission_id"]
    report = gonogo("dry-run", mission, "-o", "json").json
    assert report["changes"] == [
        {
            "path": "a.txt",
            "kind": "modify",
            "old_digest": digest(b"old\n"),
            "new_digest": digest(b"new\n"),
            "old_mode": "0644",
            "new_mode": "0755",
            "old_size": 4,
            "new_size": 4,
            "moved_from": "",
            "modified_at": "",
        }
    ]
    assert report["risk"] == {"level": "low", "facts": []}
    assert report["status"] == "success"
    assert {"report_id", "report_digest", "base_fingerprint", "after_fingerprint", "problems", "steps"} <= report.keys()


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (evidence_pb2.REPORT_STATUS_UNSAFE, 7),
        (evidence_pb2.REPORT_STATUS_BLOCKED, 7),
        (evidence_pb2.REPORT_STATUS_FAILED, 6),
    ],
)
def test_a_dry_run_that_is_no_success_shows_its_report_and_fails(
    gonogo: Command, simulator: Simulator, plan_file: Path, status: evidence_pb2.ReportStatus.ValueType, code: int
) -> None:
    """The report is on standard output, the first problem and its remedy on standard error."""
    simulator.status = status
    mission = gonogo("propose", "-f", str(plan_file), "-o", "json").json["mission_id"]
    ran = gonogo("dry-run", mission, "-o", "json")
    assert ran.code == code
    assert ran.json["problems"][0]["reason"] == "CONFLICT"
    offered = f"; gonogo repair {mission} proposes a plan without what failed" if code == 6 else ""
    assert (ran.error["code"], ran.error["remedy"]) == (code, f"read it again{offered}")
    assert gonogo("approve", mission, "--yes", "-o", "json").code == code


def test_the_whole_way_to_a_verified_receipt(gonogo: Command, simulator: Simulator, plan_file: Path) -> None:
    """Approve, execute, trace and verify end with 0 and hold together."""
    simulator.changes = [[written(simulator, "a.txt", b"old\n", b"new\n")]]
    mission = tried(gonogo, plan_file)
    approved = gonogo("approve", mission, "--yes", "-m", "fine", "--expires-in", "5m", "-o", "json")
    assert (approved.code, approved.json["approver"], approved.err) == (0, "owner", "")
    done = gonogo("execute", mission, "-o", "json")
    assert (done.code, done.json["outcome"], done.err) == (0, "success", "")
    assert done.json["steps"][0]["kind"] == "write_file"
    assert done.json["steps"][0]["duration_ms"] == 3
    chain = gonogo("trace", mission, "-o", "json").json
    assert [link["kind"] for link in chain["chain"]] == [
        "intent", "mission", "plan", "report", "approval", "execution", "receipt", "audit leaf",
    ]  # fmt: skip
    assert chain["complete"]
    verified = gonogo("verify", mission, "-o", "json")
    assert (verified.code, verified.json["valid"]) == (0, True), verified.out
    assert gonogo("verify", mission).out.rstrip().endswith("checks hold")


def test_what_show_wrote_is_verified_without_a_service(
    gonogo: Command, simulator: Simulator, plan_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The saved documents prove themselves offline; one changed byte is found."""
    simulator.changes = [[written(simulator, "a.txt", b"old\n", b"new\n")]]
    mission = tried(gonogo, plan_file)
    gonogo("approve", mission, "--yes", "-o", "json")
    gonogo("execute", mission, "-o", "json")
    saved = tmp_path / "mission.json"
    saved.write_text(gonogo("show", mission, "-o", "json").out)
    monkeypatch.setenv("GONOGO_ORCHESTRATOR", "127.0.0.1:1")
    proof = gonogo("verify", "--from", str(saved), "-o", "json").json
    assert [one for one in proof["checks"] if not one["ok"]] == []
    tampered = json.loads(saved.read_text())
    body = tampered["documents"]["receipt"]["body"]
    tampered["documents"]["receipt"]["body"] = body.replace('"steps_succeeded":1', '"steps_succeeded":2')
    saved.write_text(json.dumps(tampered))
    ran = gonogo("verify", "--from", str(saved), "-o", "json")
    assert (ran.code, ran.json["valid"], ran.error["reason"]) == (1, False, "CHECK_FAILED")
    saved.write_text("{}")
    assert gonogo("verify", "--from", str(saved), "-o", "json").error["reason"] == "MALFORMED"


def test_live_events_go_to_standard_error_or_as_lines_to_standard_output(gonogo: Command, plan_file: Path) -> None:
    """A person's table stays clean; a program that asked for lines gets each event and then the result."""
    mission = tried(gonogo, plan_file)
    gonogo("approve", mission, "--yes")
    table = gonogo("execute", mission)
    assert "step_started" in table.err
    assert "step_started" not in table.out
    lines = [json.loads(line) for line in gonogo("execute", mission, "-o", "ndjson").out.splitlines()]
    assert (lines[0]["type"], lines[-1]["outcome"]) == ("step_started", "success")
    events = [json.loads(line) for line in gonogo("events", mission, "-o", "ndjson").out.splitlines()]
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))


def test_an_execution_that_ended_badly_is_shown_and_fails(
    gonogo: Command, simulator: Simulator, plan_file: Path
) -> None:
    """The receipt is printed, and the exit code says that it failed."""
    simulator.outcome = evidence_pb2.OUTCOME_ROLLED_BACK
    mission = tried(gonogo, plan_file)
    gonogo("approve", mission, "--yes")
    ran = gonogo("execute", mission, "-o", "json")
    assert (ran.code, ran.json["outcome"], ran.error["code"]) == (6, "rolled_back", 6)
    assert "the disk is gone" in ran.error["message"]


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("NOT_APPROVED", 3),
        ("APPROVAL_EXPIRED", 4),
        ("BASE_DRIFTED", 5),
        ("PLAN_MISMATCH", 7),
        ("ALREADY_EXECUTED", 8),
        ("STATE_FORBIDS", 3),  # it stands as proposed: it waits for an approval
        ("EXECUTOR_UNAVAILABLE", 1),
    ],
)
def test_a_refusal_is_one_json_object_and_an_exit_code(
    gonogo: Command, simulator: Simulator, plan_file: Path, reason: str, code: int
) -> None:
    """Standard output stays empty; the object has code, reason, message and remedy."""
    mission = tried(gonogo, plan_file)
    simulator.refuse["execute"] = (reason, code_pb2.FAILED_PRECONDITION)
    ran = gonogo("execute", mission, "-o", "json")
    assert (ran.code, ran.out) == (code, "")
    assert ran.error == {"code": code, "reason": reason, "message": "refused", "remedy": "do the other thing"}
    plain = gonogo("execute", mission)
    assert plain.err == f"error: refused [{reason}]\nremedy: do the other thing\n"


def test_without_a_terminal_nothing_is_signed_unless_yes_was_said(
    gonogo: Command, simulator: Simulator, plan_file: Path
) -> None:
    """`approve` and `run` end as waiting, with the command that goes on from here."""
    mission = tried(gonogo, plan_file)
    for arguments in (("approve", mission), ("run", "-f", str(plan_file))):
        ran = gonogo(*arguments, "-o", "json")
        assert (ran.code, json.loads(ran.err)["reason"]) == (3, "NO_TERMINAL")
        assert "gonogo approve m-" in ran.error["remedy"]
    assert not any(stored.approvals for stored in simulator.missions.values())


def test_run_asks_and_goes_to_the_end(
    gonogo: Command,
    simulator: Simulator,
    plan_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A yes on the terminal leads from the plan file to the receipt; what was asked about is on standard error."""
    simulator.changes = [[written(simulator, "a.txt", b"old\n", b"new\n")]]
    monkeypatch.setattr("client.commands.executing.this_terminal", lambda: _terminal("y"))
    ran = gonogo("run", "-f", str(plan_file), "-o", "json")
    assert (ran.code, ran.json["outcome"]) == (0, "success")
    assert "-old" in ran.err
    assert "+new" in ran.err


@pytest.mark.parametrize(("answer", "code"), [("", 3), ("n", 3), ("yes please", 3), ("Y", 0), ("yes", 0)])
def test_only_a_clear_yes_signs(
    gonogo: Command, plan_file: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    """Anything else leaves the mission waiting."""
    mission = tried(gonogo, plan_file)
    monkeypatch.setattr("client.commands.deciding.this_terminal", lambda: _terminal(answer))
    assert gonogo("approve", mission, "-o", "json").code == code


def test_a_high_risk_wants_the_digest_typed(
    gonogo: Command, simulator: Simulator, plan_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A yes is not enough; the first eight digits of the plan's digest are."""
    simulator.risk = evidence_pb2.RISK_LEVEL_HIGH
    mission = tried(gonogo, plan_file)
    short = simulator.missions[mission].mission.plan_digest.removeprefix("sha256:")[:8]
    for answer, code in (("y", 3), (short[:7], 3), (short, 0)):
        monkeypatch.setattr("client.commands.deciding.this_terminal", lambda line=answer: _terminal(line))
        assert gonogo("approve", mission, "-o", "json").code == code


def _terminal(answer: str) -> Any:
    from client.approving import Terminal

    return Terminal(ask=lambda _question: answer)


def test_a_key_of_nobody_is_told_clearly(gonogo: Command, plan_file: Path, tmp_path: Path) -> None:
    """A key that the trust file does not list, no key, and no file each say so."""
    mission = tried(gonogo, plan_file)
    stranger = tmp_path / "stranger"
    stranger.write_bytes(new_signing_key().private_bytes())
    ran = gonogo("approve", mission, "--yes", "--key", str(stranger), "-o", "json")
    assert (ran.code, ran.error["reason"]) == (7, "APPROVER_UNKNOWN")
    assert "belongs to no person" in ran.error["message"]
    stranger.write_text("nonsense")
    assert gonogo("approve", mission, "--yes", "--key", str(stranger), "-o", "json").error["reason"] == "KEY_UNUSABLE"
    missing = gonogo("approve", mission, "--yes", "--key", str(tmp_path / "none"), "-o", "json")
    assert "No such file" in missing.error["message"]


def test_a_diff_is_made_from_checked_objects(gonogo: Command, simulator: Simulator, plan_file: Path) -> None:
    """Old and new come by digest, control characters are spelt out, nothing is coloured in a pipe."""
    simulator.changes = [
        [
            written(simulator, "a.txt", b"one\ntwo\n", b"one\n2\x1b[31m\nno end"),
            written(simulator, "image.bin", b"\0old", b"\0new!"),
            written(simulator, "same.sh", b"x\n", b"x\n", mode="0755"),
        ]
    ]
    mission = tried(gonogo, plan_file)
    shown = gonogo("diff", mission, "-o", "json").json
    assert shown[0]["diff"].splitlines() == [
        "--- a/a.txt",
        "+++ b/a.txt",
        "@@ -1,2 +1,3 @@",
        " one",
        "-two",
        "+2\\x1b[31m",
        "+no end",
        "\\ No newline at end of file",
    ]
    assert shown[1]["diff"] is None
    assert "4 bytes" in shown[1]["note"]
    assert shown[2]["note"] == "mode 0644 → 0755"
    text = gonogo("diff", mission).out
    assert "\x1b" not in text
    simulator.lie_object = b"other bytes"
    assert gonogo("diff", mission, "-o", "json").code == 7


def test_lists_follow_pages_and_an_empty_list_is_a_list(gonogo: Command, plan_file: Path) -> None:
    """Pages are joined up to the limit; no mission is `[]`."""
    assert gonogo("list", "-o", "json").out.strip() == "[]"
    assert gonogo("list").out == ""
    for _ in range(5):
        gonogo("propose", "-f", str(plan_file))
    assert len(gonogo("list", "-o", "json").json) == 5
    assert len(gonogo("list", "--limit", "3", "-o", "ndjson").out.splitlines()) == 3
    assert gonogo("list", "--status", "done").code == 2


def test_the_beginning_of_an_id_serves(gonogo: Command, plan_file: Path) -> None:
    """Every command takes a unique beginning; one that fits nothing is not found."""
    mission = tried(gonogo, plan_file)
    assert gonogo("whiteboard", mission[:10], "-o", "json").json["mission_id"] == mission
    assert gonogo("whiteboard", "m-9", "-o", "json").error["reason"] == "NOT_FOUND"
    assert gonogo("execute", "").code == 2


def test_a_mission_is_rejected_and_cancelled_with_a_reason(gonogo: Command, plan_file: Path) -> None:
    """The answer is the mission as it stands then; a rejection wants its reason."""
    first, second = tried(gonogo, plan_file), tried(gonogo, plan_file)
    assert gonogo("reject", first).code == 2
    assert gonogo("reject", first, "-m", "too broad", "-o", "json").json["status"] == "rejected"
    assert gonogo("cancel", second, "-o", "json").json["status"] == "cancelled"
    assert "too broad" in gonogo("events", first).out


def test_the_messages_of_a_session_are_all_there(gonogo: Command) -> None:
    """Pages are joined; as lines, each message is one."""
    assert len(gonogo("messages", "c-1", "-o", "json").json["messages"]) == 2
    assert len(gonogo("messages", "c-1", "-o", "ndjson").out.splitlines()) == 2
    assert "gonogo: in c-1" in gonogo("messages", "c-1").out


def test_an_unclear_message_is_answered_and_fails(gonogo: Command) -> None:
    """The envelope is printed with the nearest forms; escapes in the reply are spelt out for a person."""
    ran = gonogo("chat", "make it so", "-o", "json")
    assert (ran.code, ran.json["intent"], ran.json["mission_id"]) == (1, "unclear", None)
    assert ran.json["nearest"] == ["delete FILE"]
    assert "\x1b" not in gonogo("chat", "make it so").out


def test_the_doctor_names_what_the_executor_found(gonogo: Command) -> None:
    """Each finding of the executor is there with its remedy."""
    findings = {finding["name"]: finding for finding in gonogo("doctor", "-o", "json").json["findings"]}
    assert findings["executor overlay"] == {
        "name": "executor overlay", "level": "warn", "detail": "not there", "remedy": "a newer kernel",
    }  # fmt: skip
    assert findings["keys/approver"]["level"] == "ok"


@pytest.mark.parametrize("command", ["list", "show m-1", "execute m-1", "chat hello", "whiteboard m-1"])
def test_without_services_every_command_says_how_to_start_them(
    shared_state: StateDirectory, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """The reason is NOT_RUNNING and the remedy names `gonogo up`."""
    code = run_command([*command.split(), "--state", str(shared_state.root), "-o", "json"])
    error = json.loads(capsys.readouterr().err)
    assert (code, error["reason"]) == (1, "NOT_RUNNING")
    assert "gonogo up" in error["remedy"]


@pytest.mark.parametrize(
    "arguments", [["-o", "xml", "list"], ["no-such"], ["propose"], [], ["approve", "m", "--expires-in", "soon"]]
)
def test_a_wrong_command_line_is_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Usage errors end with 2 and say where help is."""
    assert run_command(arguments) == 2
    assert "remedy: " in capsys.readouterr().err


LIES = {
    "dry-run": "lie_report_of",
    "diff": "lie_report_of",
    "show": "lie_report_of",
    "execute": "lie_receipt_of",
    "undo": "lie_receipt_of",
}


@pytest.mark.parametrize("command", sorted(LIES))
def test_what_is_another_mission_s_is_not_shown_for_this_one(
    gonogo: Command, simulator: Simulator, plan_file: Path, command: str
) -> None:
    """However well a report or receipt is signed: a person who looks at one mission decides nothing by another's."""
    simulator.changes = [[written(simulator, "a.txt", b"old\n", b"new\n")]]
    missions = []
    for _ in range(2):
        missions.append(tried(gonogo, plan_file))
        gonogo("approve", missions[-1], "--yes", "-o", "json")
        assert gonogo("execute", missions[-1], "-o", "json").code == 0
        assert gonogo("show", missions[-1], "-o", "json").code == 0
    setattr(simulator, LIES[command], missions[0])
    ran = gonogo(command, missions[1], "-o", "json")
    assert (ran.code, ran.error["reason"]) in {(7, "MISSION_MISMATCH"), (7, "PLAN_MISMATCH")}
    assert "MISMATCH" not in gonogo(command, missions[0], "-o", "json").err


def test_what_is_shown_is_signed_by_the_executor(gonogo: Command, simulator: Simulator, plan_file: Path) -> None:
    """A report that anybody could have written is not passed off as the executor's by showing it."""
    mission = tried(gonogo, plan_file)
    report = simulator.missions[mission].report
    assert report is not None
    report.signatures[0].signature = bytes(64)
    ran = gonogo("show", mission, "-o", "json")
    assert (ran.code, ran.error["reason"]) == (7, "SIGNATURE_INVALID")
