"""Making a bundle: the mission's documents and leaves, and how their checkpoints continue those that others keep."""

from collections.abc import AsyncIterator, Iterator

from client.api import GonogoClient
from client.bundle import Bundle, Continuity, LogPart, log_part, sealed_text, segment_texts
from client.errors import ClientError, EvidenceError, RemoteError
from client.mission_state import state_of
from client.state import StateDirectory
from client.verification import open_document, require_asked_for
from client.witnessing import AWAY, Seen, pinned_orchestrator, witness_logs
from gonogo.notes import EXECUTOR, Checkpoint, NoteError, log_origin, open_note
from gonogo.signatures import PublicKey, SignatureError, load_public_key
from gonogo.v1 import evidence_pb2, orchestrator_pb2

MAX_SEEN = 16
"""Checkpoints of approvals that are led to; more than any policy asks for."""


async def export_bundle(client: GonogoClient, state: StateDirectory, mission: str) -> Bundle:
    """Fetch everything about a mission, checking both logs as a witness before and after.

    Raises:
        ClientError: a log has forked, the mission is not there, or another was handed out.
    """
    response = await client.export_mission(mission)
    documents = response.documents
    require_asked_for(mission, documents.mission.mission_id)
    plan = sealed_text(documents.plan)
    if plan is None:
        raise ClientError("MALFORMED", "the mission was handed out without its plan", "ask the orchestrator's operator")
    seen = await witness_logs(client, state, documents.mission.executor_id)
    return Bundle(
        mission=state_of(documents.mission),
        plan=plan,
        policy=sealed_text(response.policy),
        report=sealed_text(documents.report),
        approvals=tuple(one for sealed in documents.approvals if (one := sealed_text(sealed))),
        segments=segment_texts(documents.segments),
        words=tuple(one for sealed in documents.words if (one := sealed_text(sealed))),
        receipt=sealed_text(documents.receipt),
        refusal=sealed_text(documents.refusal),
        orchestrator_log=await _orchestrator_part(client, state, response, seen),
        executor_log=await _executor_part(client, response, seen),
        executor_key=client.executor_key.line,
        orchestrator_key=response.orchestrator_public_key,
    )


async def _executor_part(
    client: GonogoClient, response: orchestrator_pb2.ExportMissionResponse, seen: Seen
) -> LogPart | None:
    key, origin = client.executor_key, log_origin(EXECUTOR, response.documents.mission.executor_id)
    note = response.executor_log.checkpoint
    pairs: list[Continuity] = []
    if note and response.kept_executor_checkpoint not in {"", note}:
        proof = tuple(response.executor_consistency)
        pairs.append(Continuity(older=response.kept_executor_checkpoint, newer=note, consistency=proof))
    if note and seen.executor is not None:
        log = orchestrator_pb2.AUDIT_LOG_EXECUTOR
        olds = [note, *_seen_by_approvers(response)][:MAX_SEEN]
        pairs += [pair async for pair in _lead_on(client, log, olds, origin, key)]
    return log_part(response.executor_log, pairs)


async def _orchestrator_part(
    client: GonogoClient, state: StateDirectory, response: orchestrator_pb2.ExportMissionResponse, seen: Seen
) -> LogPart | None:
    note = response.orchestrator_log.checkpoint
    key = pinned_orchestrator(state) or _readable(response.orchestrator_public_key)
    if not note or seen.orchestrator is None or key is None:
        return log_part(response.orchestrator_log)
    origin, log = seen.orchestrator.checkpoint.origin, orchestrator_pb2.AUDIT_LOG_ORCHESTRATOR
    return log_part(response.orchestrator_log, [pair async for pair in _lead_on(client, log, [note], origin, key)])


async def _lead_on(
    client: GonogoClient, log: orchestrator_pb2.AuditLog.ValueType, olds: list[str], origin: str, key: PublicKey
) -> AsyncIterator[Continuity]:
    """Yield how checkpoints continue into the newest one; those that are none are left to the proof to find."""
    for note in dict.fromkeys(olds):
        known = _checkpoint(note, origin, key)
        if known is None:
            continue
        try:
            answer = await client.get_log(log, known_size=known.size)
        except RemoteError as error:
            if error.reason != AWAY:
                raise
            return
        newest = _checkpoint(answer.checkpoint, origin, key)
        if newest is not None and newest != known:
            yield Continuity(older=note, newer=answer.checkpoint, consistency=tuple(answer.consistency))


def _seen_by_approvers(response: orchestrator_pb2.ExportMissionResponse) -> Iterator[str]:
    documents = response.documents
    for sealed in [*documents.approvals, *(one for segment in documents.segments for one in segment.approvals)]:
        try:
            note = open_document(sealed, evidence_pb2.Approval, what="approval").audit_checkpoint
        except EvidenceError:  # the proof says so
            continue
        if note:
            yield note


def _checkpoint(note: str, origin: str, key: PublicKey) -> Checkpoint | None:
    try:
        return open_note(note, key, origin)
    except NoteError:
        return None


def _readable(line: str) -> PublicKey | None:
    try:
        return load_public_key(line)
    except SignatureError:
        return None
