from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from client.api import QueueWish
from client.approving import ApprovalOptions, approve_mission, this_terminal
from client.at_pauses import AtPauses
from client.commands.arguments import (
    AsOption,
    ExecutorKeyOption,
    FileOption,
    KeyOption,
    LifetimeOption,
    MissionArgument,
    SignOption,
    WhyOption,
    YesOption,
    approval_options,
    connect,
    read_input,
    whole_id,
)
from client.documents import digest_of
from client.durations import LONGEST, parse_duration
from client.errors import ClientError, NotRunningError
from client.pausing import waiting_mission, watched_to
from client.planfile import parse
from client.proposing import propose_draft
from client.render.events import event_json, event_line
from client.render.pauses import pause_text
from client.render.reports import report_text
from client.reporting import open_report, report_error
from client.running import cut_off, execute_mission
from client.session import Session, run, session_of
from gonogo.v1 import events_pb2, orchestrator_pb2, plan_pb2

TimeOption = Annotated[
    str, typer.Option(metavar="TIME", help="A time such as 2027-01-04T10:00:00Z, or in 90s, 15m, 1h, 2d.")
]


def execute(
    context: typer.Context,
    mission: MissionArgument,
    detach: Annotated[bool, typer.Option("--detach", help="Queue it and return at once.")] = False,
    priority: Annotated[
        int, typer.Option(metavar="N", min=-100, max=100, help="In the queue, a higher number comes first.")
    ] = 0,
    not_before: TimeOption = "",
    expires: TimeOption = "",
) -> None:
    """Execute an approved mission."""
    queue = QueueWish(priority=priority, not_before=moment(not_before), expires_at=moment(expires))
    if not detach and queue != QueueWish():
        remedy = "add --detach, or leave --priority, --not-before and --expires out"
        raise ClientError("USAGE", "only a mission that is queued has a priority and times", remedy)
    run(_execute(session_of(context), mission, queue, detach=detach))


def moment(text: str) -> datetime | None:
    """Read a time, or how long it is until then; None where there is none.

    Raises:
        ClientError: it is neither.
    """
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return datetime.now(UTC) + _duration(text)
    if found.tzinfo is None:
        raise ClientError("USAGE", f"{text!r} does not say in which zone", "add one: 2027-01-04T10:00:00Z")
    return found


def _duration(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ClientError as error:
        message = f"{text!r} is neither a time nor a length of time up to {LONGEST.days}d"
        raise ClientError("USAGE", message, "write 2027-01-04T10:00:00Z, or 90s, 15m, 1h, 2d") from error


def watch(
    context: typer.Context,
    mission: MissionArgument,
    token: Annotated[str, typer.Option("--from", metavar="TOKEN", help="Go on after this resume token.")] = "",
) -> None:
    """Follow a mission's events until it ends, or waits for a person."""
    run(_watch(session_of(context), mission, token))


def run_file(
    context: typer.Context,
    file: FileOption,
    sign: SignOption = None,
    key: KeyOption = None,
    yes: YesOption = False,
    message: WhyOption = "",
    expires_in: LifetimeOption = "1h",
    person: AsOption = "",
    executor_key: ExecutorKeyOption = None,
) -> None:
    """Propose, dry-run, show, ask on the terminal, execute."""
    session = session_of(context)
    options = approval_options(session, key, yes=yes, message=message, expires_in=expires_in, person=person)
    run(_run_file(session, parse(read_input(file)), sign, options, executor_key))


async def _execute(session: Session, mission: str, queue: QueueWish, *, detach: bool) -> None:
    async with connect(session) as client:
        await execute_mission(session, client, await whole_id(client, mission), detach=detach, queue=queue)


async def _watch(session: Session, mission: str, token: str) -> None:
    async with connect(session) as client:
        whole = await whole_id(client, mission)
        seen = token
        try:
            async for part in client.watch(whole, resume_token=token):
                _print_events(session, part.events)
                seen = part.resume_token or seen
                waiting = await waiting_mission(client, whole, part.events)
                if waiting is not None:
                    _end_at_pause(session, waiting)
                    return
        except NotRunningError as error:
            raise cut_off(whole, error, seen) if seen else error from None


def _end_at_pause(session: Session, mission: orchestrator_pb2.Mission) -> None:
    session.output.text("" if session.output.machine else pause_text(mission.pause, mission.mission_id))
    error = watched_to(mission)
    if error is not None:
        raise error


def _print_events(session: Session, events: Iterable[events_pb2.Event]) -> None:
    for event in events:
        if session.output.machine:
            session.output.line(event_json(event))
        else:
            session.output.text(event_line(event))


async def _run_file(
    session: Session,
    draft: plan_pb2.PlanDraft,
    sign: Path | None,
    options: ApprovalOptions,
    executor_key: Path | None,
) -> None:
    async with connect(session, executor_key) as client:
        proposed = await propose_draft(session, client, draft, sign)
        mission_id = proposed.mission.mission_id
        _tell(session, f"proposed {mission_id}")
        tried = await client.dry_run(mission_id)
        report = open_report(tried.report, client.executor_key, mission_id)
        error = report_error(report)
        if error is not None:
            _tell(session, report_text(report, digest_of(tried.report)))
            raise error
        terminal = this_terminal()
        await approve_mission(session, client, client.verified(proposed, tried), options, terminal)
        at_pauses = AtPauses(session=session, client=client, options=options, terminal=terminal)
        await execute_mission(session, client, mission_id, decide=at_pauses)


def _tell(session: Session, text: str) -> None:
    """Tell a person; a program that reads JSON gets nothing on standard error but errors."""
    if not session.output.machine:
        session.output.note(text)
