import typer

from client.commands.arguments import FileOption, MissionArgument, connect, read_input, whole_id
from client.json_form import to_json
from client.planfile import parse
from client.render.missions import mission_text
from client.reporting import show_report
from client.session import Session, run, session_of
from gonogo.v1 import orchestrator_pb2, plan_pb2


def propose(context: typer.Context, file: FileOption) -> None:
    """Propose the plan in a file as a mission."""
    run(_propose(session_of(context), parse(read_input(file))))


def clone(context: typer.Context, mission: MissionArgument) -> None:
    """Propose a mission's plan again."""
    run(_clone(session_of(context), mission))


def dry_run(context: typer.Context, mission: MissionArgument) -> None:
    """Dry-run a mission's plan."""
    run(_dry_run(session_of(context), mission))


async def _propose(session: Session, draft: plan_pb2.PlanDraft) -> None:
    async with connect(session) as client:
        _show_proposed(session, await client.propose(draft))


async def _clone(session: Session, mission: str) -> None:
    async with connect(session) as client:
        _show_proposed(session, await client.clone(await whole_id(client, mission)))


async def _dry_run(session: Session, mission: str) -> None:
    async with connect(session) as client:
        tried = await client.dry_run(await whole_id(client, mission))
        show_report(session.output, tried.report, client.executor_key)


def _show_proposed(session: Session, proposed: orchestrator_pb2.ProposeMissionResponse) -> None:
    session.output.emit(to_json(proposed.mission), lambda: mission_text(proposed.mission))
