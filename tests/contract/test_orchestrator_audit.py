"""The orchestrator's audit log over real sockets: what its callers get, and what its executor is told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from client.state import StateDirectory
from gonogo.merkle import leaf_hash, verify_consistency, verify_inclusion
from gonogo.notes import Checkpoint, open_note
from gonogo.signatures import load_public_key
from gonogo.v1 import audit_pb2
from gonogo.v1 import orchestrator_pb2 as pb
from gonogo.v1.orchestrator_pb2_grpc import AuditServiceStub
from orchestrator.bootstrap import Service
from orchestrator.domain.errors import OrchestratorError
from orchestrator.settings import read_settings
from tests.contract.test_orchestrator_grpc import Site, failed, furnish, site, state

__all__ = ["site", "state"]  # fixtures


def opened(note: str, public_key: str) -> Checkpoint:
    return open_note(note, load_public_key(public_key), note.partition("\n")[0])


def proven(log: audit_pb2.LogExtract, public_key: str) -> Checkpoint:
    """Check every leaf of a log; return its checkpoint."""
    checkpoint = opened(log.checkpoint, public_key)
    for entry in log.entries:
        assert verify_inclusion(leaf_hash(entry.leaf), entry.index, checkpoint.size, entry.path, checkpoint.root)
    return checkpoint


async def test_both_logs_are_given_out(site: Site) -> None:
    """A client gets the newest checkpoint of each log, and later one that continues it."""
    audit: Any = AuditServiceStub(site.channel)
    for log in (pb.AUDIT_LOG_ORCHESTRATOR, pb.AUDIT_LOG_EXECUTOR):
        first = await audit.GetLog(pb.GetLogRequest(log=log))
        old = opened(first.checkpoint, first.public_key)
        await site.approved()
        second = await audit.GetLog(pb.GetLogRequest(log=log, known_size=old.size))
        new = opened(second.checkpoint, first.public_key)
        assert new.size > old.size
        assert verify_consistency(old.size, old.root, new.size, new.root, list(second.consistency))
    key = (site.state.keys / "orchestrator.pub").read_text()
    own = await audit.GetLog(pb.GetLogRequest(log=pb.AUDIT_LOG_ORCHESTRATOR))
    assert load_public_key(own.public_key).line == load_public_key(key).line


async def test_no_log_and_too_much_known_are_refused(site: Site) -> None:
    """A request that names no log is malformed; a checkpoint larger than the log is a fork, with a remedy."""
    audit: Any = AuditServiceStub(site.channel)
    code, _, info, _ = await failed(audit.GetLog(pb.GetLogRequest()))
    assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED")
    for log in (pb.AUDIT_LOG_ORCHESTRATOR, pb.AUDIT_LOG_EXECUTOR):
        code, _, info, _ = await failed(audit.GetLog(pb.GetLogRequest(log=log, known_size=1 << 40)))
        assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "AUDIT_FORKED")
        assert info.metadata["remedy"]


async def test_a_mission_is_exported(site: Site) -> None:
    """Documents, policy and the leaves of both logs come in one answer and hold together."""
    mission_id = await site.approved()
    await site.execute(mission_id)
    found = await site.missions.ExportMission(pb.ExportMissionRequest(mission_id=mission_id))

    assert found.documents == await site.missions.GetMission(pb.GetMissionRequest(mission_id=mission_id))
    assert found.policy.body == site.simulator.policy.body
    assert proven(found.orchestrator_log, found.orchestrator_public_key).size >= len(found.orchestrator_log.entries) > 9
    newer = proven(found.executor_log, site.simulator.key.public.line)
    older = opened(found.kept_executor_checkpoint, site.simulator.key.public.line)
    path = list(found.executor_consistency)
    assert verify_consistency(older.size, older.root, newer.size, newer.root, path)
    assert len(found.executor_log.entries) == 3


async def test_a_forked_executor_is_refused_by_name(site: Site) -> None:
    """Callers are told AUDIT_FORKED by every call that would have to rely on the forked log."""
    mission_id = await site.approved()
    site.simulator.log.rewrite(0)
    audit: Any = AuditServiceStub(site.channel)
    calls: tuple[Callable[[], Any], ...] = (
        lambda: audit.GetLog(pb.GetLogRequest(log=pb.AUDIT_LOG_EXECUTOR)),
        lambda: site.missions.ExportMission(pb.ExportMissionRequest(mission_id=mission_id)),
        lambda: site.missions.ExecuteMission(pb.ExecuteMissionRequest(request_id="forked", mission_id=mission_id)),
    )
    for call in calls:
        code, message, info, _ = await failed(call())
        assert (code, info.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "AUDIT_FORKED")
        assert "does not continue" in message
        assert "audit forget" in info.metadata["remedy"]
    assert "execute" not in site.simulator.calls


async def test_without_its_key_the_service_does_not_start(state: StateDirectory, tmp_path: Path) -> None:
    """A state without the key for checkpoints is refused before anything listens, with the way out."""
    furnish(tmp_path / "bare", state)
    (tmp_path / "bare" / "keys" / "orchestrator").unlink()
    arguments = ["serve", "--state", str(tmp_path / "bare"), "--executor", "127.0.0.1:1", "--listen", "127.0.0.1:0"]
    with pytest.raises(OrchestratorError, match="checkpoints") as caught:
        Service(read_settings(arguments, {}))
    assert "log_key" in caught.value.remedy
