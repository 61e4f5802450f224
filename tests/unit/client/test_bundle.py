"""The bundle's file: what is written is read back, anything else is refused, and the commands on it."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client.__main__ import run_command
from client.bundle import Bundle
from client.bundle_file import bundle_json, bundle_text, read_bundle
from client.errors import ClientError
from client.proving.proof import prove
from client.state import StateDirectory
from client.strict_json import strict_json
from gonogo.signatures import new_signing_key
from tests.unit.client.orchestrator_simulator import Simulator
from tests.unit.client.proof_house import ProofHouse
from tests.unit.client.test_commands import Command, gonogo, tried, written

__all__ = ["gonogo"]


@pytest.fixture(scope="module")
def honest() -> Bundle:
    return ProofHouse().bundle()


def test_what_is_written_is_read_back(honest: Bundle) -> None:
    """Nothing is lost on the way through the file, and writing again gives the same text."""
    text = bundle_text(honest)
    again = read_bundle(strict_json(text.encode()))
    assert again == honest
    assert bundle_text(again) == text
    assert text.isascii()


def test_a_bundle_of_before_there_were_repairs_is_read(honest: Bundle) -> None:
    """Its mission had one segment and no words about single steps; half of such a file is refused."""
    data = bundle_json(honest)
    before = {name: value for name, value in data["documents"].items() if name not in {"segments", "words"}}
    mission = {name: value for name, value in data["mission"].items() if name != "segment"}
    assert read_bundle({**data, "mission": mission, "documents": before}) == honest
    with pytest.raises(ClientError):
        read_bundle({**data, "mission": mission, "documents": {**before, "words": []}})


def test_a_bundle_holds_public_keys_only(honest: Bundle) -> None:
    """No private half of any key, and no certificate, is in the file."""
    assert "PRIVATE" not in bundle_text(honest)
    assert set(bundle_json(honest)["keys"]) == {"executor", "orchestrator"}


WRONG: dict[str, Any] = {
    "no object": lambda data: [data],
    "another version": lambda data: {**data, "version": 2},
    "a version in words": lambda data: {**data, "version": "1"},
    "an unknown key": lambda data: {**data, "more": 1},
    "a missing key": lambda data: {name: value for name, value in data.items() if name != "logs"},
    "an unknown key of a document": lambda data: at(data, "documents", "plan", more=1),
    "an unknown document": lambda data: at(data, "documents", more=None),
    "an unknown log": lambda data: at(data, "logs", other=None),
    "an unknown key of the mission": lambda data: at(data, "mission", more=""),
    "a number for text": lambda data: at(data, "mission", status=1),
    "null for text": lambda data: at(data, "mission", cloned_from=None),
    "a key of the mission that is missing": lambda data: {
        **data,
        "mission": {name: value for name, value in data["mission"].items() if name != "status"},
    },
    "no mission": lambda data: {**data, "mission": None},
    "text for a number": lambda data: at(data, "mission", last_sequence="1"),
    "true for a number": lambda data: at(data, "mission", last_sequence=True),
    "no plan": lambda data: at(data, "documents", plan=None),
    "a body that is no text": lambda data: at(data, "documents", "plan", body=None),
    "half a character": lambda data: at(data, "documents", "plan", body="\ud800"),
    "no list": lambda data: at(data, "documents", approvals={}),
    "too many approvals": lambda data: at(data, "documents", approvals=data["documents"]["approvals"] * 200),
    "no base64": lambda data: at(data, "documents", "plan", "signatures", 0, signature="=!"),
    "base64 of another text": lambda data: at(data, "documents", "plan", "signatures", 0, extra="QQ=="[:2] + "R="),
    "upper-case hex": lambda data: at(data, "logs", "executor", "entries", 0, path=["AB" * 32]),
    "a short hash": lambda data: at(data, "logs", "executor", "entries", 0, path=["ab" * 31]),
    "a place below zero": lambda data: at(data, "logs", "executor", "entries", 0, index=-1),
    "a place that is none": lambda data: at(data, "logs", "executor", "entries", 0, index=1.0),
    "a path that is too long": lambda data: at(data, "logs", "executor", "entries", 0, path=["ab" * 32] * 65),
}


def at(data: Any, *path: Any, **changes: Any) -> Any:
    """Change what is at a place of some JSON."""
    held = data
    for step in path:
        held = held[step]
    held.update(changes)
    return data


@pytest.mark.parametrize("name", WRONG)
def test_anything_else_is_refused(name: str, honest: Bundle) -> None:
    """Reading is strict: unknown or missing keys, other types, and more than an honest file holds."""
    data = WRONG[name](copy.deepcopy(bundle_json(honest)))
    with pytest.raises(ClientError) as error:
        read_bundle(data)
    assert (error.value.reason, "export" in error.value.remedy) == ("MALFORMED", True)


@pytest.mark.parametrize("text", ['{"a":1,"a":2}', "[" * 100_000, "{", "\xff"])
def test_json_that_two_readers_read_differently_is_refused(text: str) -> None:
    """A key that stands twice, endless nesting, and what is no JSON."""
    with pytest.raises(ValueError, match=r".+"):
        strict_json(text.encode("latin-1"))


def test_a_complete_proof_needs_documents_and_logs_and_nothing_else() -> None:
    """What only some clients keep may be left out; a receipt and the executor's log may not."""
    house = ProofHouse()
    bundle = house.bundle()
    complete = prove(bundle, house.anchors, complete=True)
    assert (complete.valid, len(complete.missing)) == (True, 3)
    proposed = replace(bundle, executor_log=None)
    assert "executor log" in {one.name for one in prove(proposed, house.anchors, complete=True).failed}
    assert "executor log" in {one.name for one in prove(proposed, house.anchors).missing}


# --- The commands. ---


@pytest.fixture
def exported(gonogo: Command, simulator: Simulator, plan_file: Path, tmp_path: Path) -> Path:
    """A file with the bundle of a mission that was executed."""
    simulator.changes = [[written(simulator, "a.txt", b"old\n", b"new\n")]]
    mission = tried(gonogo, plan_file)
    assert gonogo("approve", mission, "--yes").code == 0
    assert gonogo("execute", mission).code == 0
    path = tmp_path / "mission.json"
    ran = gonogo("export", mission, "--bundle", str(path), "-o", "json")
    assert (ran.code, ran.json["mission_id"], ran.json["bytes"]) == (0, mission, path.stat().st_size)
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []
    return path


def test_an_exported_bundle_is_verified_without_services(
    gonogo: Command, exported: Path, shared_state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file alone and the pinned keys prove the mission, and the witness has seen both logs."""
    monkeypatch.setenv("GONOGO_ORCHESTRATOR", "127.0.0.1:1")
    assert gonogo("verify", "--from", str(exported), "-o", "json").json["valid"]
    ran = gonogo("verify", str(exported), "-o", "json")
    assert (ran.code, ran.json["valid"]) == (0, True), ran.out
    names = {one["name"]: one["detail"] for one in ran.json["checks"]}
    assert "executor log is the one that this side has seen" in names
    assert "approval" in ran.json["documents"]
    assert gonogo("verify", "-", "-o", "json", text=exported.read_text()).json["valid"]
    assert gonogo("verify", str(exported)).out.rstrip().endswith("checks hold")


def test_a_bundle_needs_no_state_directory(
    exported: Path,
    shared_state: StateDirectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Anybody with the executor's public key can check it; without the orchestrator's the proof says so."""
    monkeypatch.setenv("GONOGO_STATE", str(tmp_path / "nothing"))
    key = str(shared_state.executor_public_key)
    assert run_command(["verify", str(exported), "--executor-key", key, "-o", "json"]) == 0
    proof = json.loads(capsys.readouterr().out)
    [checkpoint] = [one for one in proof["checks"] if one["name"] == "orchestrator log checkpoint"]
    assert checkpoint["detail"].endswith("which only the bundle names")
    orchestrator = str(shared_state.orchestrator_public_key)
    assert run_command(["verify", str(exported), "--executor-key", key, "--orchestrator-key", orchestrator]) == 0
    assert "only the bundle" not in capsys.readouterr().out
    assert run_command(["verify", str(exported), "-o", "json"]) == 1
    assert "KEY_UNUSABLE" in capsys.readouterr().err


def test_the_bundles_own_key_vouches_for_nothing(gonogo: Command, exported: Path, tmp_path: Path) -> None:
    """Another executor's key fails every document, and the first failure is the error."""
    key = tmp_path / "other.pub"
    key.write_text(new_signing_key().public.line)
    ran = gonogo("verify", str(exported), "--executor-key", str(key), "-o", "json")
    assert (ran.code, ran.json["valid"], ran.error["reason"]) == (1, False, "CHECK_FAILED")
    failed = [one["name"] for one in ran.json["checks"] if not one["ok"]]
    assert failed[:3] == ["policy signature", "report signature", "receipt signature"]
    assert ran.error["message"].startswith("policy signature: ")


def test_a_bundle_goes_to_standard_output(gonogo: Command, exported: Path) -> None:
    """A dash prints it; nothing else is printed."""
    mission = json.loads(exported.read_text())["mission"]["mission_id"]
    ran = gonogo("export", mission, "--bundle", "-")
    assert read_bundle(strict_json(ran.out.encode())).mission.mission_id == mission


def test_a_mission_that_was_not_executed_proves_what_it_has(gonogo: Command, plan_file: Path) -> None:
    """A proposal and its report hold; the receipt is named as not there and only missed when it is asked for."""
    mission = tried(gonogo, plan_file)
    proof = gonogo("verify", mission, "-o", "json").json
    assert proof["valid"], [one for one in proof["checks"] if not one["ok"]]
    assert {"receipt", "policy decision"} <= {one["name"] for one in proof["not_there"]}
    ran = gonogo("verify", mission, "--complete", "-o", "json")
    assert (ran.code, ran.json["valid"]) == (1, False)
    assert "receipt" in {one["name"] for one in ran.json["checks"] if not one["ok"]}


@pytest.mark.parametrize(
    "arguments", [("export", "m-1"), ("export", "--bundle", "-"), ("verify",), ("verify", "m-1", "--from", "x")]
)
def test_half_a_command_is_a_usage_error(gonogo: Command, arguments: tuple[str, ...]) -> None:
    """A bundle is of one mission into one file; a proof is of one mission or one file."""
    ran = gonogo(*arguments, "-o", "json")
    assert (ran.code, ran.error["reason"]) == (2, "USAGE")


def test_a_file_that_is_not_there_is_no_mission(gonogo: Command) -> None:
    """What looks like a file's name is looked for as a file, and no service is asked about it."""
    for name in ("mission.json", "./m-1"):
        ran = gonogo("verify", name, "-o", "json")
        assert (ran.code, ran.error["reason"]) == (1, "FILE_UNREADABLE")


def test_without_the_executors_key_it_is_said_which_is_missing(
    gonogo: Command, plan_file: Path, tmp_path: Path
) -> None:
    """In a directory without any state, the remedy names the option and where the key comes from."""
    mission = tried(gonogo, plan_file)
    assert gonogo("export", mission, "--bundle", str(tmp_path / "b.json")).code == 0
    ran = gonogo("--state", str(tmp_path / "none"), "verify", str(tmp_path / "b.json"), "-o", "json")
    assert (ran.code, ran.error["reason"]) == (1, "KEY_UNUSABLE")
    assert "--executor-key FILE" in ran.error["remedy"]


def test_a_file_that_can_not_be_written_is_named(gonogo: Command, plan_file: Path, tmp_path: Path) -> None:
    """The error names it, and nothing is left beside it."""
    mission = tried(gonogo, plan_file)
    ran = gonogo("export", mission, "--bundle", str(tmp_path / "missing" / "b.json"), "-o", "json")
    assert (ran.code, ran.error["reason"]) == (1, "FILE_UNREADABLE")
