from pathlib import Path
from typing import Annotated

import typer

from client.approving import ApprovalOptions, approve_mission, fetch_verified, this_terminal
from client.commands.arguments import ExecutorKeyOption, KeyOption, MissionArgument, connect, whole_id
from client.durations import parse_duration
from client.json_form import rfc3339, to_json
from client.render.layout import fields, when
from client.render.missions import mission_text
from client.session import Session, run, session_of
from gonogo.v1 import orchestrator_pb2

WhyOption = Annotated[str, typer.Option("-m", "--message", metavar="WHY", help="Why.")]


def approve(
    context: typer.Context,
    mission: MissionArgument,
    key: KeyOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; everything else is checked and shown alike.")] = False,
    message: WhyOption = "",
    expires_in: Annotated[str, typer.Option(metavar="TIME", help="How long it holds: 90s, 15m, 1h, 2d.")] = "1h",
    person: Annotated[str, typer.Option("--as", metavar="PERSON", help="Refuse unless the key is this person's.")] = "",
    executor_key: ExecutorKeyOption = None,
) -> None:
    """Verify plan and report, show them, and sign an approval."""
    session = session_of(context)
    options = ApprovalOptions(
        key=key.expanduser() if key else session.state.approver_key,
        yes=yes,
        comment=message,
        lifetime=parse_duration(expires_in),
        person=person,
    )
    run(_approve(session, mission, options, executor_key))


def reject(context: typer.Context, mission: MissionArgument, message: WhyOption) -> None:
    """Reject a proposed mission."""
    run(_reject(session_of(context), mission, message))


def cancel(context: typer.Context, mission: MissionArgument, message: WhyOption = "") -> None:
    """Cancel a mission that does not run yet."""
    run(_cancel(session_of(context), mission, message))


async def _approve(session: Session, mission: str, options: ApprovalOptions, executor_key: Path | None) -> None:
    async with connect(session, executor_key) as client:
        verified = await fetch_verified(client, mission)
        answer = await approve_mission(session, client, verified, options, this_terminal())
    session.output.emit(_approved_json(answer), lambda: _approved_text(answer))


def _approved_json(answer: orchestrator_pb2.ApproveMissionResponse) -> dict[str, object]:
    return {
        "approval_id": answer.approval_id,
        "approver": answer.approver,
        "expires_at": rfc3339(answer.expires_at),
        **{name: to_json(answer.mission)[name] for name in ("mission_id", "status", "plan_digest", "report_digest")},
    }


def _approved_text(answer: orchestrator_pb2.ApproveMissionResponse) -> str:
    pairs = [("approval", answer.approval_id), ("by", answer.approver), ("until", when(answer.expires_at))]
    return f"{fields(pairs)}\n{mission_text(answer.mission)}"


async def _reject(session: Session, mission: str, why: str) -> None:
    async with connect(session) as client:
        answer = await client.reject(await whole_id(client, mission), why)
    session.output.emit(to_json(answer.mission), lambda: mission_text(answer.mission))


async def _cancel(session: Session, mission: str, why: str) -> None:
    async with connect(session) as client:
        answer = await client.cancel(await whole_id(client, mission), why)
    session.output.emit(to_json(answer.mission), lambda: mission_text(answer.mission))
