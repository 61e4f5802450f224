from typing import Annotated

import typer

from client.commands.arguments import connect, whole_id
from client.json_form import to_json
from client.render.layout import fields, table, when
from client.session import Session, run, session_of
from gonogo.v1 import executor_pb2, orchestrator_pb2


def queue(
    context: typer.Context,
    workspace: Annotated[str, typer.Option("--workspace", metavar="ID", help="Of one workspace only.")] = "",
) -> None:
    """Show what waits for its turn."""
    run(_queue(session_of(context), workspace))


def processes(
    context: typer.Context,
    mission: Annotated[str, typer.Argument(metavar="[MISSION]", help="Of one mission only.")] = "",
) -> None:
    """List the programs that live steps started and that keep running."""
    run(_processes(session_of(context), mission))


def stop_process(
    context: typer.Context,
    process: Annotated[str, typer.Argument(metavar="PROCESS", help="Its id, as gonogo processes tells it.")],
) -> None:
    """End a program that a live step started."""
    run(_stop_process(session_of(context), process))


async def _queue(session: Session, workspace: str) -> None:
    async with connect(session) as client:
        found = await client.queue(workspace)
    session.output.emit(to_json(found), lambda: _queue_text(found))
    if not found.missions:
        session.output.aside("nothing waits for its turn")


async def _processes(session: Session, mission: str) -> None:
    async with connect(session) as client:
        found = await client.processes(await whole_id(client, mission) if mission else "")
    session.output.emit_list([to_json(one) for one in found], lambda: _processes_text(found))
    if not found:
        session.output.aside("no live step keeps a program running")


async def _stop_process(session: Session, process: str) -> None:
    async with connect(session) as client:
        found = await client.stop_process(process)
    session.output.emit(to_json(found), lambda: _process_text(found))


def _queue_text(found: orchestrator_pb2.GetQueueResponse) -> str:
    rows = [
        (
            one.workspace_id,
            str(one.position),
            one.mission_id,
            str(one.priority),
            one.tenant,
            when(one.queued_at),
            when(one.not_before) or "-",
            when(one.expires_at) or "-",
            one.waiting_for,
            one.objective,
        )
        for one in found.missions
    ]
    if not rows:
        return ""
    headers = (
        "workspace",
        "place",
        "mission",
        "priority",
        "queued by",
        "queued",
        "not before",
        "until",
        "why",
        "objective",
    )
    left = found.depth - len(rows)
    return table(headers, rows) + (f"\n… {left} more" if left > 0 else "")


def _processes_text(found: list[executor_pb2.LiveProcess]) -> str:
    rows = [
        (one.process_id, one.mission_id, one.step_id, when(one.started_at), _state(one), one.command) for one in found
    ]
    return table(("process", "mission", "step", "started", "state", "command"), rows) if rows else ""


def _process_text(one: executor_pb2.LiveProcess) -> str:
    return fields(
        [
            ("process", one.process_id),
            ("mission", one.mission_id),
            ("step", one.step_id),
            ("workspace", one.workspace_id),
            ("command", one.command),
            ("started", when(one.started_at)),
            ("state", _state(one)),
        ]
    )


def _state(one: executor_pb2.LiveProcess) -> str:
    return "running" if one.running else one.ended or "ended"
