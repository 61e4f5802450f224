"""What persons took back of a mission, as the executor's own log says: entries that are proven to be in it.

The orchestrator hands them out and is not on their way to the executor. It can keep the newest ones to itself, but it
can not make one up.
"""

from dataclasses import dataclass

from client.api import GonogoClient
from client.bundle import LogPart, log_part
from client.errors import EvidenceError
from client.proving.events import LeafError
from client.proving.leaves import DENY, REVOKED, read_entry
from gonogo.merkle import leaf_hash, verify_inclusion
from gonogo.notes import EXECUTOR, NoteError, log_origin, open_note
from gonogo.signatures import PublicKey
from gonogo.v1 import plan_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenBack:
    """One person's word that a mission shall not go on, for ever."""

    person: str
    denied: bool
    """The mission was ended, and not only this person's approval taken back."""
    revocation_id: str
    reason: str

    @property
    def why(self) -> str:
        """What happened, to stand behind the person's name."""
        what = "and one denial is final" if self.denied else "has taken the approval back, and can not approve it again"
        return f"{what} ({self.revocation_id})" + (f": {self.reason}" if self.reason else "")


async def fetch_taken_back(client: GonogoClient, plan: plan_pb2.Plan) -> tuple[TakenBack, ...] | None:
    """Return what was taken back of a plan's mission; None where the executor's log is not to be had now.

    Raises:
        EvidenceError: what is handed out is not of the pinned executor's log.
    """
    part = log_part((await client.export_mission(plan.mission_id)).executor_log)
    return None if part is None else _proven(part, plan, client.executor_key)


def _proven(part: LogPart, plan: plan_pb2.Plan, key: PublicKey) -> tuple[TakenBack, ...]:
    try:
        checkpoint = open_note(part.checkpoint, key, log_origin(EXECUTOR, plan.executor_id))
        entries = [read_entry(leaf) for leaf in part.leaves]
    except (NoteError, LeafError) as error:
        raise _foreign(str(error)) from None
    for leaf in part.leaves:
        hashed = leaf_hash(leaf.text.encode())
        if not verify_inclusion(hashed, leaf.index, checkpoint.size, leaf.path, checkpoint.root):
            raise _foreign(f"entry {leaf.index} is not in it")
    return tuple(
        TakenBack(
            person=entry.value["person"],
            denied=entry.value["kind"] == DENY,
            revocation_id=entry.value["revocation_id"],
            reason=entry.value["reason"],
        )
        for entry in entries
        if entry.kind == REVOKED and entry.value["mission_id"] == plan.mission_id
    )


def _foreign(problem: str) -> EvidenceError:
    message = f"what is told of revocations is not the executor's log: {problem}"
    return EvidenceError("SIGNATURE_INVALID", message, "do not approve; ask the orchestrator's operator")
