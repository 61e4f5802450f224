from pathlib import Path
from typing import Annotated

import typer

from client.approving import fetch_verified
from client.changes import net_changes
from client.commands.arguments import ExecutorKeyOption, MissionArgument, connect, whole_id
from client.diffs import file_diff
from client.documents import open_documents, show_json
from client.errors import ClientError
from client.handed_out import require_handed_out
from client.json_form import to_json
from client.render.boards import whiteboard_text
from client.render.diffs import diffs_text, wants_colour
from client.render.missions import documents_text, missions_text
from client.session import Session, run, session_of
from client.witnessing import pinned_executor
from gonogo.v1 import events_pb2

STATUSES = {
    "proposed": events_pb2.MISSION_STATUS_PROPOSED,
    "approved": events_pb2.MISSION_STATUS_APPROVED,
    "queued": events_pb2.MISSION_STATUS_QUEUED,
    "active": events_pb2.MISSION_STATUS_ACTIVE,
    "paused": events_pb2.MISSION_STATUS_PAUSED,
    "completed": events_pb2.MISSION_STATUS_COMPLETED,
    "failed": events_pb2.MISSION_STATUS_FAILED,
    "cancelled": events_pb2.MISSION_STATUS_CANCELLED,
    "rejected": events_pb2.MISSION_STATUS_REJECTED,
    "expired": events_pb2.MISSION_STATUS_EXPIRED,
}


def list_missions(
    context: typer.Context,
    status: Annotated[str, typer.Option(metavar="STATUS", help="Only missions that stand so.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many.")] = 50,
) -> None:
    """List missions, newest first."""
    if status and status not in STATUSES:
        raise ClientError("USAGE", f"{status!r} is no mission status", f"one of: {', '.join(STATUSES)}")
    wanted = STATUSES.get(status, events_pb2.MISSION_STATUS_UNSPECIFIED)
    run(_list(session_of(context), wanted, limit))


def show(context: typer.Context, mission: MissionArgument) -> None:
    """Show a mission with everything that is sealed about it."""
    run(_show(session_of(context), mission))


def whiteboard(context: typer.Context, mission: MissionArgument) -> None:
    """Show how a mission stands."""
    run(_whiteboard(session_of(context), mission))


def diff(context: typer.Context, mission: MissionArgument, executor_key: ExecutorKeyOption = None) -> None:
    """Show what the dry run changed, file by file."""
    run(_diff(session_of(context), mission, executor_key))


async def _list(session: Session, status: events_pb2.MissionStatus.ValueType, limit: int) -> None:
    async with connect(session) as client:
        found = await client.list(status=status, limit=limit)
    session.output.emit_list([to_json(mission) for mission in found], lambda: missions_text(found))


async def _show(session: Session, mission: str) -> None:
    async with connect(session) as client:
        response = await client.get(mission)
    documents = open_documents(response)
    session.output.emit(show_json(response, documents), lambda: documents_text(response.mission, documents))
    require_handed_out(mission, response, documents, pinned_executor(session.state))


async def _whiteboard(session: Session, mission: str) -> None:
    async with connect(session) as client:
        board = await client.whiteboard(await whole_id(client, mission))
    session.output.emit(to_json(board), lambda: whiteboard_text(board))


async def _diff(session: Session, mission: str, executor_key: Path | None) -> None:
    async with connect(session, executor_key) as client:
        verified = await fetch_verified(client, mission)
        net = net_changes(step.changes for step in verified.report.steps)
        diffs = [await file_diff(client, verified.plan.mission_id, change) for change in net]
    coloured = wants_colour(session.output.stdout)
    session.output.emit_list([one.as_json() for one in diffs], lambda: diffs_text(diffs, coloured=coloured))
