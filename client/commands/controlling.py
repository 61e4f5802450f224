from typing import Annotated

import typer

from client.approving import diff_text
from client.commands.arguments import ExecutorKeyOption, MissionArgument, WhyOption, connect, read_input
from client.control_calls import PAUSE, RESUME, RETRY, STOP
from client.controlling import control_mission, fetch_mission
from client.json_form import to_json
from client.planfile import parse_repair
from client.render.diffs import wants_colour
from client.render.missions import mission_text
from client.repairing import Repair, fetch_repair
from client.reporting import report_error
from client.session import Session, run, session_of
from gonogo.v1 import events_pb2, orchestrator_pb2


def pause(context: typer.Context, mission: MissionArgument, message: WhyOption = "") -> None:
    """Have a running mission pause before its next step."""
    run(_control(session_of(context), mission, PAUSE, message))


def resume(context: typer.Context, mission: MissionArgument) -> None:
    """Have a paused mission go on."""
    run(_control(session_of(context), mission, RESUME))


def retry(context: typer.Context, mission: MissionArgument) -> None:
    """Run the failed step again."""
    run(_control(session_of(context), mission, RETRY))


def stop(
    context: typer.Context,
    mission: MissionArgument,
    roll_back: Annotated[bool, typer.Option("--roll-back", help="Undo all that was committed, newest first.")] = False,
    message: WhyOption = "",
) -> None:
    """End a mission."""
    run(_control(session_of(context), mission, STOP, message, roll_back=roll_back))


def repair(
    context: typer.Context,
    mission: MissionArgument,
    file: Annotated[
        str,
        typer.Option(
            "-f",
            "--file",
            metavar="FILE",
            help="The plan for the rest; - reads standard input; left out: one is proposed.",
        ),
    ] = "",
    dry_run: Annotated[bool, typer.Option(help="Dry-run it at once.")] = True,
    executor_key: ExecutorKeyOption = None,
) -> None:
    """Give a paused mission, or one whose dry run failed, another plan."""
    draft = parse_repair(read_input(file)) if file else None
    session = session_of(context)

    async def repaired() -> None:
        async with connect(session, executor_key) as client:
            found = await fetch_repair(client, mission, draft, dry_run=dry_run)
            shown = found.tried is not None and not session.output.machine
            coloured = wants_colour(session.output.stdout)
            diffs = await diff_text(client, found.tried, coloured=coloured) if found.tried and shown else ""
        _show_repair(session, found, diffs)

    run(repaired())


async def _control(
    session: Session,
    mission: str,
    action: events_pb2.ControlAction.ValueType,
    why: str = "",
    *,
    roll_back: bool = False,
) -> None:
    async with connect(session) as client:
        before = await fetch_mission(client, mission)
        now = await control_mission(client, before, action, reason=why, roll_back=roll_back)
    show_controlled(session, now)


def show_controlled(session: Session, mission: orchestrator_pb2.Mission) -> None:
    """Show how a mission stands after a control."""
    session.output.emit(to_json(mission), lambda: mission_text(mission))


def _show_repair(session: Session, repair: Repair, diffs: str) -> None:
    session.output.emit(repair.as_json(), lambda: "\n".join(part for part in (repair.text(), diffs) if part))
    error = report_error(repair.tried.report) if repair.tried else None
    if error is not None:
        raise error
    if not session.output.machine:
        session.output.note(_what_next(repair))


def _what_next(repair: Repair) -> str:
    mission_id = repair.mission.mission_id
    first = "" if repair.tried else f"gonogo dry-run {mission_id} tries it, "
    return (
        f"nothing happens yet: {first}gonogo approve {mission_id} signs it, gonogo execute {mission_id} goes on with it"
    )
