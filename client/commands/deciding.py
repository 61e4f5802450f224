from pathlib import Path

import typer

from client.approving import ApprovalOptions, approve_mission, fetch_verified, this_terminal
from client.commands.arguments import (
    AsOption,
    ExecutorKeyOption,
    KeyOption,
    LifetimeOption,
    MissionArgument,
    WhyOption,
    YesOption,
    approval_options,
    connect,
    whole_id,
)
from client.json_form import rfc3339, to_json
from client.render.layout import fields, when
from client.render.missions import mission_text
from client.session import Session, run, session_of
from gonogo.safe_text import safe_line
from gonogo.v1 import events_pb2, orchestrator_pb2


def approve(
    context: typer.Context,
    mission: MissionArgument,
    key: KeyOption = None,
    yes: YesOption = False,
    message: WhyOption = "",
    expires_in: LifetimeOption = "1h",
    person: AsOption = "",
    executor_key: ExecutorKeyOption = None,
) -> None:
    """Verify plan and report, show them, and sign an approval."""
    session = session_of(context)
    options = approval_options(session, key, yes=yes, message=message, expires_in=expires_in, person=person)
    run(_approve(session, mission, options, executor_key))


def reject(context: typer.Context, mission: MissionArgument, message: WhyOption) -> None:
    """Reject a proposed mission."""
    run(_reject(session_of(context), mission, message))


def cancel(context: typer.Context, mission: MissionArgument, message: WhyOption = "") -> None:
    """Cancel a mission that does not run yet, or give one up whose outcome nobody knows."""
    run(_cancel(session_of(context), mission, message))


async def _approve(session: Session, mission: str, options: ApprovalOptions, executor_key: Path | None) -> None:
    async with connect(session, executor_key) as client:
        verified = await fetch_verified(client, mission)
        answer = await approve_mission(session, client, verified, options, this_terminal())
    session.output.emit(_approved_json(answer), lambda: _approved_text(answer))
    session.output.aside(_what_next(answer.mission))


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


def _what_next(mission: orchestrator_pb2.Mission) -> str:
    """Say what follows; whether a repair plan has all the approvals it needs, a paused mission does not tell."""
    found = safe_line(mission.mission_id)
    execute = f"gonogo execute {found}"
    if mission.status == events_pb2.MISSION_STATUS_APPROVED:
        return f"{execute} executes it"
    if mission.status == events_pb2.MISSION_STATUS_PAUSED:
        return f"{execute} goes on with the repair plan, once all whom it needs have approved"
    return f"gonogo policy explain {found} says who else has to approve"


async def _reject(session: Session, mission: str, why: str) -> None:
    async with connect(session) as client:
        answer = await client.reject(await whole_id(client, mission), why)
    session.output.emit(to_json(answer.mission), lambda: mission_text(answer.mission))


async def _cancel(session: Session, mission: str, why: str) -> None:
    async with connect(session) as client:
        answer = await client.cancel(await whole_id(client, mission), why)
    session.output.emit(to_json(answer.mission), lambda: mission_text(answer.mission))
