from pathlib import Path
from typing import Annotated

import typer

from client.approving import this_terminal
from client.commands.arguments import FileOption, KeyOption, MissionArgument, connect, read_input, whole_id
from client.json_form import to_json
from client.planfile import parse
from client.proposing import SigningOptions, proposer_at, say_signed, sign_mission
from client.render.missions import mission_text
from client.reporting import show_report
from client.session import Session, run, session_of
from gonogo.v1 import orchestrator_pb2, plan_pb2

SignOption = Annotated[
    Path | None,
    typer.Option(
        "--sign", metavar="KEY", help="Sign the plan as its proposer: a private key, or the .pub of an agent's."
    ),
]


def propose(context: typer.Context, file: FileOption, sign: SignOption = None) -> None:
    """Propose the plan in a file as a mission."""
    run(_propose(session_of(context), parse(read_input(file)), sign.expanduser() if sign else None))


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


def clone(context: typer.Context, mission: MissionArgument) -> None:
    """Propose a mission's plan again."""
    run(_clone(session_of(context), mission))


def dry_run(context: typer.Context, mission: MissionArgument) -> None:
    """Dry-run a mission's plan."""
    run(_dry_run(session_of(context), mission))


async def _propose(session: Session, draft: plan_pb2.PlanDraft, key: Path | None) -> None:
    async with connect(session) as client:
        signer = await proposer_at(session, client, key) if key else None
        _show_proposed(session, await client.propose(draft, sign=signer))
        if signer is not None:
            say_signed(session, signer)


async def _sign(session: Session, mission: str, options: SigningOptions) -> None:
    async with connect(session) as client:
        signed = await sign_mission(session, client, mission, options, this_terminal())
    session.output.emit(to_json(signed.mission), lambda: mission_text(signed.mission))


async def _clone(session: Session, mission: str) -> None:
    async with connect(session) as client:
        _show_proposed(session, await client.clone(await whole_id(client, mission)))


async def _dry_run(session: Session, mission: str) -> None:
    async with connect(session) as client:
        whole = await whole_id(client, mission)
        tried = await client.dry_run(whole)
        show_report(session.output, tried.report, client.executor_key, whole)


def _show_proposed(session: Session, proposed: orchestrator_pb2.ProposeMissionResponse) -> None:
    session.output.emit(to_json(proposed.mission), lambda: mission_text(proposed.mission))
