from pathlib import Path
from typing import Annotated

import typer

from client.approving import this_terminal
from client.commands.arguments import FileOption, KeyOption, MissionArgument, SignOption, connect, read_input, whole_id
from client.json_form import to_json
from client.planfile import parse
from client.proposing import SigningOptions, propose_draft, sign_mission
from client.render.missions import mission_text
from client.reporting import show_report
from client.session import Session, run, session_of
from gonogo.v1 import orchestrator_pb2, plan_pb2


def propose(context: typer.Context, file: FileOption, sign: SignOption = None) -> None:
    """Propose the plan in a file as a mission."""
    run(_propose(session_of(context), parse(read_input(file)), sign))


def sign(
    context: typer.Context,
    mission: MissionArgument,
    key: KeyOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; the plan is checked and shown alike.")] = False,
) -> None:
    """Show a mission's plan, and sign it as its proposer."""
    session = session_of(context)
    options = SigningOptions(key=key.expanduser() if key else session.state.approver_key, yes=yes)
    run(_sign(session, mission, options))


def clone(
    context: typer.Context,
    mission: MissionArgument,
    sign: SignOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Sign without being asked; the plan is shown alike.")] = False,
) -> None:
    """Propose a mission's plan again."""
    options = SigningOptions(key=sign, yes=yes) if sign else None
    run(_clone(session_of(context), mission, options))


def dry_run(context: typer.Context, mission: MissionArgument) -> None:
    """Dry-run a mission's plan."""
    run(_dry_run(session_of(context), mission))


async def _propose(session: Session, draft: plan_pb2.PlanDraft, key: Path | None) -> None:
    async with connect(session) as client:
        _show_proposed(session, (await propose_draft(session, client, draft, key)).mission)


async def _sign(session: Session, mission: str, options: SigningOptions) -> None:
    async with connect(session) as client:
        signed = await sign_mission(session, client, mission, options, this_terminal())
    session.output.emit(to_json(signed.mission), lambda: mission_text(signed.mission))


async def _clone(session: Session, mission: str, options: SigningOptions | None) -> None:
    async with connect(session) as client:
        proposed = (await client.clone(await whole_id(client, mission))).mission
        if options is not None:  # nobody's draft says what it has to be: whoever signs reads it
            proposed = (await sign_mission(session, client, proposed.mission_id, options, this_terminal())).mission
        _show_proposed(session, proposed)


async def _dry_run(session: Session, mission: str) -> None:
    async with connect(session) as client:
        whole = await whole_id(client, mission)
        tried = await client.dry_run(whole)
        show_report(session.output, tried.report, client.executor_key, whole)


def _show_proposed(session: Session, proposed: orchestrator_pb2.Mission) -> None:
    session.output.emit(to_json(proposed), lambda: mission_text(proposed))
