from pathlib import Path
from typing import Annotated

import typer

from client.commands.arguments import ExecutorKeyOption, MissionArgument, SignOption, connect
from client.documents import open_documents
from client.json_form import to_json
from client.proposing import propose_draft
from client.render.missions import mission_text
from client.session import Session, run, session_of
from client.undoing import undo_draft
from client.verification import check_signature, require_about, require_asked_for
from gonogo.signatures import PublicKey
from gonogo.v1 import orchestrator_pb2, plan_pb2


def undo(
    context: typer.Context,
    mission: MissionArgument,
    to: Annotated[str, typer.Option("--to", metavar="STEP", help="The last step that stays; all where left out.")] = "",
    sign: SignOption = None,
    executor_key: ExecutorKeyOption = None,
) -> None:
    """Propose the reverse of an ended mission."""
    run(_undo(session_of(context), mission, to, sign, executor_key))


async def _undo(session: Session, mission: str, to: str, sign: Path | None, executor_key: Path | None) -> None:
    async with connect(session, executor_key) as client:
        response = await client.get(mission)
        require_asked_for(mission, response.mission.mission_id)
        draft = _draft(response, to, client.executor_key)
        proposed = (await propose_draft(session, client, draft, sign)).mission
    session.output.emit(to_json(proposed), lambda: mission_text(proposed))
    if not session.output.machine:
        session.output.note(f"nothing is undone yet: gonogo dry-run {proposed.mission_id} shows what it would restore")


def _draft(response: orchestrator_pb2.GetMissionResponse, to: str, executor_key: PublicKey) -> plan_pb2.PlanDraft:
    """Draft it from documents that hold: a receipt that the executor signed."""
    documents = open_documents(response)
    require_about(response.mission.mission_id, documents.plan.mission_id, what="plan")
    if documents.receipt is not None:
        check_signature(response.receipt, executor_key, what="receipt")
        require_about(response.mission.mission_id, documents.receipt.mission_id, what="receipt")
    return undo_draft(documents, to=to)
