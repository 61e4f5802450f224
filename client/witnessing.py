"""Looking at both audit logs as a witness: what is new must continue what was kept."""

from dataclasses import dataclass

from client.api import GonogoClient
from client.errors import ClientError, RemoteError
from client.signing import read_public_key
from client.state import StateDirectory
from client.witness import FORKED, Kept, Witness
from gonogo.notes import EXECUTOR, ORCHESTRATOR, Checkpoint, log_origin
from gonogo.signatures import PublicKey
from gonogo.v1 import orchestrator_pb2

AWAY = "EXECUTOR_UNAVAILABLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The newest checkpoints that were checked; None where a log has none, or no key of it is pinned."""

    executor: Kept | None
    orchestrator: Kept | None

    @property
    def executor_note(self) -> str:
        """The executor's checkpoint as an approval carries it."""
        return self.executor.note if self.executor else ""


async def witness_logs(client: GonogoClient, state: StateDirectory, executor_id: str) -> Seen:
    """Fetch, check and keep the newest checkpoint of both logs.

    While the executor is away its kept checkpoint stands: an approval that carries it is refused by an executor whose
    log does not continue it, so that nothing is gained by keeping the newest one back.

    Raises:
        ClientError: a log does not continue what was kept of it: reason AUDIT_FORKED.
    """
    witness = Witness(directory=state.witness)
    orchestrator = await _look_at_orchestrator(client, state, witness)
    origin, key = log_origin(EXECUTOR, executor_id), client.executor_key
    try:
        executor = await _look(client, witness, orchestrator_pb2.AUDIT_LOG_EXECUTOR, origin, key)
    except RemoteError as error:
        if error.reason != AWAY:
            raise
        executor = witness.kept(origin, key)
    return Seen(executor=executor, orchestrator=orchestrator)


def kept_checkpoints(state: StateDirectory, executor_id: str, executor_key: PublicKey) -> dict[str, Checkpoint]:
    """Return what is kept of both logs, by origin; asks nobody.

    Raises:
        ClientError: a kept checkpoint is damaged.
    """
    witness = Witness(directory=state.witness)
    found = [witness.kept(log_origin(EXECUTOR, executor_id), executor_key)] if executor_id else []
    key = pinned_orchestrator(state)
    origin = witness.origin_of(ORCHESTRATOR)
    if key is not None and origin:
        found.append(witness.kept(origin, key))
    return {one.checkpoint.origin: one.checkpoint for one in found if one is not None}


def pinned_executor(state: StateDirectory) -> PublicKey | None:
    """Return the executor's key that this side knows, None where it knows none."""
    path = state.executor_public_key
    return read_public_key(path) if path.exists() else None


def pinned_orchestrator(state: StateDirectory) -> PublicKey | None:
    """Return the key of the orchestrator's log that this side knows, None where it knows none."""
    path = state.orchestrator_public_key
    return read_public_key(path) if path.exists() else None


async def _look_at_orchestrator(client: GonogoClient, state: StateDirectory, witness: Witness) -> Kept | None:
    key = pinned_orchestrator(state)
    if key is None:
        return None
    # The log's name is its own to choose, once: under another name it would begin anew.
    origin = witness.origin_of(ORCHESTRATOR)
    return await _look(client, witness, orchestrator_pb2.AUDIT_LOG_ORCHESTRATOR, origin, key)


async def _look(
    client: GonogoClient,
    witness: Witness,
    log: orchestrator_pb2.AuditLog.ValueType,
    origin: str,
    key: PublicKey,
) -> Kept | None:
    known = witness.kept(origin, key) if origin else None
    try:
        answer = await client.get_log(log, known_size=known.checkpoint.size if known else 0)
    except RemoteError as error:
        if error.reason != FORKED or known is None:
            raise
        answer = await client.get_log(log)  # what it shows to somebody who keeps nothing: the error names both
    if not answer.checkpoint and known is None:
        return None
    named = origin or _orchestrator_origin(answer.checkpoint)
    return witness.check(known, answer.checkpoint, answer.consistency, origin=named, key=key)


def _orchestrator_origin(note: str) -> str:
    origin = note.partition("\n")[0]
    if not origin.startswith(log_origin(ORCHESTRATOR, "")):
        message = f"{origin[:100]!r} is not the name of an orchestrator's log"
        raise ClientError(FORKED, message, "ask the orchestrator's operator")
    return origin
