from typing import Annotated

import typer

from client.commands.arguments import MissionArgument, WhyOption, connect, whole_id
from client.errors import ClientError
from client.json_form import to_json
from client.render.missions import mission_text
from client.render.signals import signals_json, signals_text
from client.session import Session, run, session_of
from gonogo.v1 import events_pb2

NOTHING_YET = "no mission has come to its end yet: there is nothing to learn from"
NOTHING_OF_THAT = "no outcome is of that kind, tool and workspace; gonogo signals shows what there is"


def feedback(
    context: typer.Context,
    mission: MissionArgument,
    good: Annotated[bool, typer.Option("--good", help="It is what was wanted.")] = False,
    bad: Annotated[bool, typer.Option("--bad", help="It is not.")] = False,
    message: WhyOption = "",
) -> None:
    """Say what you think of a mission's result."""
    if good == bad:
        raise ClientError("USAGE", "say what you think of it", "give one of --good and --bad")
    rating = events_pb2.RATING_GOOD if good else events_pb2.RATING_BAD
    run(_feedback(session_of(context), mission, rating, message))


def signals(
    context: typer.Context,
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help="Of one step kind only.")] = "",
    tool: Annotated[
        str, typer.Option("--tool", metavar="TOOL", help="Of one program, server's tool, host or database only.")
    ] = "",
    workspace: Annotated[str, typer.Option("--workspace", metavar="ID", help="Of one workspace only.")] = "",
) -> None:
    """Show what outcomes have taught: it only ever asks for more care."""
    run(_signals(session_of(context), kind, tool, workspace))


async def _feedback(session: Session, mission: str, rating: events_pb2.Rating.ValueType, text: str) -> None:
    async with connect(session) as client:
        found = await client.feedback(await whole_id(client, mission), rating, text)
    session.output.emit(to_json(found), lambda: mission_text(found))
    session.output.aside(f"noted as {'good' if rating == events_pb2.RATING_GOOD else 'bad'}; gonogo signals counts it")


async def _signals(session: Session, kind: str, tool: str, workspace: str) -> None:
    async with connect(session) as client:
        found = await client.signals(kind=kind, tool=tool, workspace_id=workspace)
    session.output.emit(signals_json(found), lambda: signals_text(found))
    if not found.rates:
        session.output.aside(NOTHING_OF_THAT if kind or tool or workspace else NOTHING_YET)
