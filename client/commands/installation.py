import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from client.api import GonogoClient
from client.doctor import Finding, examine
from client.errors import ClientError
from client.initialise import Initialised, initialise
from client.json_form import short_name
from client.render.checks import findings_text
from client.render.layout import fields
from client.renewal import renew_certificates
from client.session import Session, session_of
from client.state import StateDirectory
from client.up import UpSettings, default_tools, read_pairs, run_up
from gonogo.safe_text import safe_line

RENEWED = "services take them by themselves; replace the copies elsewhere, those of tls/ca.pem too"


def init(
    context: typer.Context,
    approver_key: Annotated[
        Path | None, typer.Option(metavar="PUBFILE", help="Your own Ed25519 public key; none is made then.")
    ] = None,
    person: Annotated[str, typer.Option(help="Your id in the trust file.")] = "owner",
    renew: Annotated[
        bool, typer.Option("--renew-certificates", help="Make nothing new: have the certificates hold for longer.")
    ] = False,
) -> None:
    """Make keys, certificates and the trust file."""
    session = session_of(context)
    if renew:
        _renew(session, others=approver_key is not None or person != "owner")
        return
    made = initialise(session.state, person=person, approver_public=approver_key)
    session.output.emit(_init_json(made), lambda: _init_text(made))


def up(
    context: typer.Context,
    workspace: Annotated[list[str], typer.Option(metavar="ID=PATH", help="A directory to serve; may be repeated.")],
    staging: Annotated[
        list[str] | None, typer.Option(metavar="ID=PATH", help="Where a workspace's changes are staged.")
    ] = None,
    tools: Annotated[
        list[Path] | None, typer.Option(metavar="PATH", help="Read-only for commands, besides /usr and this Python.")
    ] = None,
    listen: Annotated[str, typer.Option(metavar="HOST:PORT", envvar="GONOGO_LISTEN")] = "127.0.0.1:0",
    token_listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Serve callers with tokens here; else nowhere.")
    ] = "",
    health: Annotated[
        bool, typer.Option("--health", help="Serve gRPC health in plain text on ports of its own.")
    ] = False,
    reflection: Annotated[bool, typer.Option("--reflection", help="Serve gRPC reflection, for development.")] = False,
) -> None:
    """Run both services in the foreground until SIGTERM or SIGINT."""
    session = session_of(context)
    given = [path.expanduser().resolve() for path in tools or []]
    settings = UpSettings(
        state=session.state,
        workspaces=read_pairs(workspace, "--workspace"),
        staging=read_pairs(staging or [], "--staging"),
        tools=tuple(dict.fromkeys([*default_tools(), *given])),
        listen=listen,
        token_listen=token_listen,
        health=health,
        reflection=reflection,
    )
    run_up(settings, session.output.line, lambda: _ladder_level(session.state))


def doctor(context: typer.Context) -> None:
    """Check this installation."""
    session = session_of(context)
    findings = asyncio.run(examine(session.state))
    rows = [finding.as_json() for finding in findings]
    failed = [finding for finding in findings if finding.level == "fail"]
    result: Mapping[str, object] = {"ok": not failed, "findings": rows}
    session.output.emit(result, lambda: findings_text(findings))
    if failed:
        raise _doctor_error(session, failed)


def _doctor_error(session: Session, failed: list[Finding]) -> ClientError:
    names = ", ".join(finding.name for finding in failed)
    remedy = "; ".join(dict.fromkeys(finding.remedy for finding in failed)) if session.output.machine else ""
    return ClientError("CHECK_FAILED", f"{len(failed)} checks failed: {names}", remedy)


def _init_json(made: Initialised) -> dict[str, object]:
    return {
        "state": str(made.state.root),
        "executor_id": made.executor_id,
        "person": made.person,
        "approver_key": str(made.approver_key) if made.approver_key else None,
        "approver_key_id": made.approver_key_id,
        "agent": made.agent,
        "proposer_key": str(made.state.proposer_key),
        "executor_key_id": made.executor_key_id,
        "self_approval": "allowed",
    }


def _renew(session: Session, *, others: bool) -> None:
    if others:
        raise ClientError("USAGE", "--renew-certificates keeps keys and persons as they are", "leave the others out")
    renewed = renew_certificates(session.state)
    told = {role: f"{until:%Y-%m-%d}" for role, until in renewed.items()}
    rows = [*((role, f"valid until {until}") for role, until in told.items()), ("next", RENEWED)]
    session.output.emit({"state": str(session.state.root), "valid_until": told}, lambda: fields(rows))


def _init_text(made: Initialised) -> str:
    key = safe_line(str(made.approver_key)) if made.approver_key else "yours; only its public half is here"
    return "\n".join(
        [
            f"state       {safe_line(str(made.state.root))}",
            f"executor    {made.executor_id}  {made.executor_key_id}",
            f"approver    {made.person}  {made.approver_key_id}",
            f"key         {key}",
            f"agent       {made.agent}  {safe_line(str(made.state.proposer_key))}",
            "next        gonogo up --workspace ID=PATH",
        ]
    )


def _ladder_level(state: StateDirectory) -> str | None:
    async def ask() -> str:
        async with GonogoClient.connect(state, address=str(state.ready()["orchestrator"])) as client:
            return short_name(await client.executor(), "ladder_level").upper()

    try:
        return asyncio.run(ask())
    except ClientError:
        return None  # both services said that they are ready; doctor tells what keeps them apart
