"""The client as a witness: it keeps what it saw of both logs, and nothing is approved once a log contradicts that."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.rpc import code_pb2

from client.api import GonogoClient
from client.errors import ClientError, RemoteError
from client.state import StateDirectory
from client.witness import Kept, Witness
from client.witnessing import kept_checkpoints, witness_logs
from gonogo import sealing
from gonogo.signatures import new_signing_key
from gonogo.v1 import evidence_pb2
from tests.unit.client.log_house import LogHouse
from tests.unit.client.orchestrator_simulator import EXECUTOR, Simulator
from tests.unit.client.test_commands import Command, gonogo, tried

ORIGIN = "gonogo.local/executor/e"

__all__ = ["gonogo"]


@pytest.fixture
def log() -> LogHouse:
    return grown(LogHouse(ORIGIN, new_signing_key()), 5)


@pytest.fixture
def witness(tmp_path: Path) -> Witness:
    return Witness(directory=tmp_path / "witness")


def grown(log: LogHouse, count: int, word: str = "leaf") -> LogHouse:
    for number in range(count):
        log.append(f"{word} {number}")
    return log


def look(witness: Witness, log: LogHouse, size: int | None = None) -> Kept:
    """Do what the client does: read what is kept, ask the log, check."""
    known = witness.kept(ORIGIN, log.key.public)
    wanted = log.size if size is None else size
    old = known.checkpoint.size if known else 0
    proof = log.consistency(old, wanted) if old <= wanted else []
    return witness.check(known, log.checkpoint(wanted), proof, origin=ORIGIN, key=log.key.public)


def test_the_first_checkpoint_is_kept_and_a_later_one_replaces_it(witness: Witness, log: LogHouse) -> None:
    """The file holds the newest signed note as it was given, and nothing else is left in the directory."""
    look(witness, log)
    grown(log, 7)
    newest = look(witness, log)
    assert newest.checkpoint.size == 12
    assert witness.path(ORIGIN).read_text("utf-8") == newest.note == log.checkpoint()
    assert list(witness.directory.iterdir()) == [witness.path(ORIGIN)]
    assert look(witness, log) == newest


def test_a_log_with_another_past_is_a_fork_that_names_both(witness: Witness, log: LogHouse) -> None:
    """The error has both sizes and roots and says what to do; the kept one stays."""
    kept = look(witness, log)
    other = grown(LogHouse(ORIGIN, log.key), 9, "rewritten")
    with pytest.raises(ClientError, match="another history") as error:
        look(witness, other)
    assert error.value.reason == "AUDIT_FORKED"
    assert kept.checkpoint.root.hex() in error.value.message
    assert "keep both checkpoints" in error.value.remedy
    assert witness.kept(ORIGIN, log.key.public) == kept


def test_a_log_of_the_same_size_with_another_root_is_a_fork(witness: Witness, log: LogHouse) -> None:
    """Equal sizes need equal roots."""
    look(witness, log)
    with pytest.raises(ClientError, match="another history"):
        look(witness, grown(LogHouse(ORIGIN, log.key), 5, "rewritten"))


def test_a_log_that_went_back_is_a_fork(witness: Witness, log: LogHouse) -> None:
    """An older checkpoint than the kept one is refused, though it is of the same history."""
    look(witness, log)
    with pytest.raises(ClientError, match="went back"):
        look(witness, log, 3)


def test_a_checkpoint_by_another_key_or_of_another_log_is_none(witness: Witness, log: LogHouse) -> None:
    """Only the pinned key counts, and only under the log's own name."""
    for stranger in (LogHouse(ORIGIN, new_signing_key()), LogHouse("gonogo.local/executor/f", log.key)):
        note = grown(stranger, 5).checkpoint()
        with pytest.raises(ClientError, match="checkpoint that is none") as error:
            witness.check(None, note, [], origin=ORIGIN, key=log.key.public)
        assert error.value.reason == "AUDIT_FORKED"
    assert witness.kept(ORIGIN, log.key.public) is None


def test_a_damaged_kept_checkpoint_is_not_taken_for_none(witness: Witness, log: LogHouse) -> None:
    """Whoever can spoil the file must not thereby make the client forget."""
    look(witness, log)
    witness.path(ORIGIN).write_text("gone")
    with pytest.raises(ClientError, match="can not be used") as error:
        look(witness, log)
    assert error.value.reason == "AUDIT_FORKED"


def test_two_commands_at_once_keep_the_one_that_was_first(witness: Witness, log: LogHouse) -> None:
    """Whoever asked before somebody else kept a newer one raises no false alarm and does not go back."""
    look(witness, log)
    known = witness.kept(ORIGIN, log.key.public)
    shown, proof = log.checkpoint(), log.consistency(5)
    grown(log, 3)
    newest = look(witness, log)
    witness.check(known, shown, proof, origin=ORIGIN, key=log.key.public)
    assert witness.kept(ORIGIN, log.key.public) == newest


def test_two_commands_at_once_that_were_shown_different_trees_find_it(witness: Witness, log: LogHouse) -> None:
    """Two checkpoints of one size are compared when they are kept, whoever was first."""
    known = witness.kept(ORIGIN, log.key.public)
    look(witness, log)
    other = grown(LogHouse(ORIGIN, log.key), 5, "split view")
    with pytest.raises(ClientError, match="another history"):
        witness.check(known, other.checkpoint(), [], origin=ORIGIN, key=log.key.public)


def test_one_orchestrator_has_one_log(witness: Witness, log: LogHouse) -> None:
    """Two kept logs of an orchestrator are named, and none of them is chosen."""
    witness.directory.mkdir()
    assert witness.origin_of("orchestrator") == ""
    for name in ("a", "b"):
        origin = f"gonogo.local/orchestrator/{name}"
        witness.path(origin).write_text(LogHouse(origin, log.key).checkpoint())
        if name == "a":
            assert witness.origin_of("orchestrator") == origin
    with pytest.raises(ClientError, match="more than one log"):
        witness.origin_of("orchestrator")


# --- With services. ---


@pytest.fixture
async def client(simulator: Simulator, shared_state: StateDirectory) -> AsyncIterator[GonogoClient]:
    async with GonogoClient.connect(shared_state) as connected:
        yield connected


async def test_both_logs_are_looked_at_and_kept(
    client: GonogoClient, simulator: Simulator, shared_state: StateDirectory
) -> None:
    """What is kept can be read without asking anybody."""
    grown(simulator.audit.executor, 3)
    grown(simulator.audit.orchestrator, 4)
    seen = await witness_logs(client, shared_state, EXECUTOR)
    assert (seen.executor_note, seen.orchestrator is not None) == (simulator.audit.executor.checkpoint(), True)
    grown(simulator.audit.executor, 2)
    await witness_logs(client, shared_state, EXECUTOR)
    kept = kept_checkpoints(shared_state, EXECUTOR, client.executor_key)
    assert {origin: one.size for origin, one in kept.items()} == {
        simulator.audit.executor.origin: 5,
        simulator.audit.orchestrator.origin: 4,
    }


async def test_an_orchestrator_can_not_begin_its_log_anew_under_another_name(
    client: GonogoClient, simulator: Simulator, shared_state: StateDirectory
) -> None:
    """The name that was seen first is the only one."""
    grown(simulator.audit.orchestrator, 4)
    await witness_logs(client, shared_state, EXECUTOR)
    simulator.audit.orchestrator = LogHouse("gonogo.local/orchestrator/new", simulator.audit.orchestrator.key)
    with pytest.raises(ClientError) as error:
        await witness_logs(client, shared_state, EXECUTOR)
    assert error.value.reason == "AUDIT_FORKED"


async def test_while_the_executor_is_away_the_kept_checkpoint_stands(
    client: GonogoClient, simulator: Simulator, shared_state: StateDirectory
) -> None:
    """Keeping the newest checkpoint back gains nothing: the approval then carries the one that was seen."""
    grown(simulator.audit.executor, 3)
    first = await witness_logs(client, shared_state, EXECUTOR)
    grown(simulator.audit.executor, 3)
    simulator.refuse["executor_log"] = ("EXECUTOR_UNAVAILABLE", code_pb2.UNAVAILABLE)
    assert (await witness_logs(client, shared_state, EXECUTOR)).executor == first.executor
    simulator.refuse["executor_log"] = ("INTERNAL", code_pb2.INTERNAL)
    with pytest.raises(RemoteError):
        await witness_logs(client, shared_state, EXECUTOR)


def test_an_approval_carries_the_checkpoint_that_was_checked(
    gonogo: Command, simulator: Simulator, plan_file: Path
) -> None:
    """The executor can tell from it whether its log still is what the approver saw."""
    mission = tried(gonogo, plan_file)
    assert gonogo("approve", mission, "--yes").code == 0
    [sealed] = simulator.missions[mission].approvals
    approval = sealing.open_sealed(sealed.body, evidence_pb2.Approval)
    assert approval.audit_checkpoint == simulator.audit.executor.checkpoint()


@pytest.mark.parametrize("which", ["executor", "orchestrator"])
def test_a_fork_of_either_log_stops_approving_exporting_and_verifying(
    which: str, gonogo: Command, simulator: Simulator, plan_file: Path, tmp_path: Path
) -> None:
    """Nothing is signed; the doctor says so, too."""
    first, second = tried(gonogo, plan_file), tried(gonogo, plan_file)
    grown(getattr(simulator.audit, which), 3)
    assert gonogo("approve", first, "--yes").code == 0
    log = getattr(simulator.audit, which)
    setattr(simulator.audit, which, grown(LogHouse(log.origin, log.key), 50, "rewritten"))
    simulator.audit._leaves.clear()
    simulator.audit._events.clear()
    refused = gonogo("approve", second, "--yes", "-o", "json")
    assert (refused.code, refused.error["reason"]) == (7, "AUDIT_FORKED")
    assert simulator.missions[second].approvals == []
    for arguments in (("verify", second), ("export", second, "--bundle", str(tmp_path / "b.json"))):
        assert gonogo(*arguments, "-o", "json").error["reason"] == "AUDIT_FORKED"
    found = json.loads(gonogo("doctor", "-o", "json").out)
    [finding] = (
        [one for one in found["findings"] if one["name"] == "audit logs"]
        if isinstance(found, dict)
        else [one for one in found if one["name"] == "audit logs"]
    )
    assert finding["level"] == "fail"
