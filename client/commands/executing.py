from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from client.approving import ApprovalOptions, approve_mission, this_terminal
from client.commands.arguments import (
    ExecutorKeyOption,
    FileOption,
    KeyOption,
    MissionArgument,
    connect,
    read_input,
    whole_id,
)
from client.documents import digest_of
from client.planfile import parse
from client.render.events import event_json, event_line
from client.render.reports import report_text
from client.reporting import open_report, report_error
from client.running import execute_mission
from client.session import Session, run, session_of
from gonogo.v1 import events_pb2, plan_pb2


def execute(
    context: typer.Context,
    mission: MissionArgument,
    detach: Annotated[bool, typer.Option("--detach", help="Queue it and return at once.")] = False,
) -> None:
    """Execute an approved mission."""
    run(_execute(session_of(context), mission, detach=detach))


def watch(
    context: typer.Context,
    mission: MissionArgument,
    token: Annotated[str, typer.Option("--from", metavar="TOKEN", help="Go on after this resume token.")] = "",
) -> None:
    """Follow a mission's events until it ends."""
    run(_watch(session_of(context), mission, token))


def run_file(
    context: typer.Context, file: FileOption, key: KeyOption = None, executor_key: ExecutorKeyOption = None
) -> None:
    """Propose, dry-run, show, ask on the terminal, execute."""
    session = session_of(context)
    options = ApprovalOptions(key=key.expanduser() if key else session.state.approver_key)
    run(_run_file(session, parse(read_input(file)), options, executor_key))


async def _execute(session: Session, mission: str, *, detach: bool) -> None:
    async with connect(session) as client:
        await execute_mission(session, client, await whole_id(client, mission), detach=detach)


async def _watch(session: Session, mission: str, token: str) -> None:
    async with connect(session) as client:
        async for part in client.watch(await whole_id(client, mission), resume_token=token):
            _print_events(session, part.events)


def _print_events(session: Session, events: Iterable[events_pb2.Event]) -> None:
    for event in events:
        if session.output.machine:
            session.output.line(event_json(event))
        else:
            session.output.text(event_line(event))


async def _run_file(
    session: Session, draft: plan_pb2.PlanDraft, options: ApprovalOptions, executor_key: Path | None
) -> None:
    async with connect(session, executor_key) as client:
        proposed = await client.propose(draft)
        mission_id = proposed.mission.mission_id
        _tell(session, f"proposed {mission_id}")
        tried = await client.dry_run(mission_id)
        report = open_report(tried.report, client.executor_key, mission_id)
        error = report_error(report)
        if error is not None:
            _tell(session, report_text(report, digest_of(tried.report)))
            raise error
        await approve_mission(session, client, client.verified(proposed, tried), options, this_terminal())
        await execute_mission(session, client, mission_id, detach=False)


def _tell(session: Session, text: str) -> None:
    """Tell a person; a program that reads JSON gets nothing on standard error but errors."""
    if not session.output.machine:
        session.output.note(text)
