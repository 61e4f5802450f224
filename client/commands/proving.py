import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from client.commands.arguments import ExecutorKeyOption, MissionArgument, connect, read_input, whole_id
from client.documents import read_shown
from client.errors import ClientError
from client.orchestrator_command import pass_through, read_json
from client.proofs import Check, Link, trace, verify_documents
from client.render.checks import checks_text
from client.render.events import event_json, event_line
from client.render.layout import fields, table
from client.session import Session, run, session_of
from client.signing import read_public_key, trusted_keys
from gonogo.signatures import PublicKey, SignatureError, load_public_key
from gonogo.v1 import executor_pb2, orchestrator_pb2


def events(context: typer.Context, mission: MissionArgument) -> None:
    """Print a mission's events so far."""
    run(_events(session_of(context), mission))


def trace_mission(context: typer.Context, mission: MissionArgument) -> None:
    """Print the chain from message to receipt."""
    run(_trace(session_of(context), mission))


def verify(
    context: typer.Context,
    mission: Annotated[str, typer.Argument(metavar="MISSION", help="A mission's id, or its beginning.")] = "",
    from_file: Annotated[
        str, typer.Option("--from", metavar="FILE", help="What gonogo show -o json wrote; no service is asked.")
    ] = "",
    executor_key: ExecutorKeyOption = None,
) -> None:
    """Check what a mission's documents prove."""
    session = session_of(context)
    if bool(mission) == bool(from_file):
        raise ClientError(
            "USAGE", "give a mission or --from FILE", "gonogo verify MISSION, or gonogo verify --from FILE"
        )
    if from_file:
        response = _read_file(from_file)
        _show_checks(session, response, _pinned(session, executor_key), trusted_keys(session.state))
    else:
        run(_verify(session, mission, executor_key))


def export(context: typer.Context) -> None:
    """Print the whole event log as JSON lines."""
    sys.stdout.flush()
    pass_through(session_of(context).state, "export", sys.stdout.buffer)


def replay(context: typer.Context) -> None:
    """Rebuild the state from the log and compare it."""
    session = session_of(context)
    found = read_json(session.state, "replay")
    session.output.emit(found, lambda: fields((name, str(value)) for name, value in found.items()))
    if found.get("equal") is not True:
        remedy = "keep the state directory as it is and report this: the log and the state tell different things"
        raise ClientError("CHECK_FAILED", "the replayed state is not the live state", remedy)


async def _events(session: Session, mission: str) -> None:
    async with connect(session) as client:
        whole = await whole_id(client, mission)
        found = [event async for part in client.watch(whole, follow=False) for event in part.events]
    session.output.emit_list([event_json(event) for event in found], lambda: "\n".join(map(event_line, found)))


async def _trace(session: Session, mission: str) -> None:
    async with connect(session) as client:
        links = trace(await client.get(mission))
    data = {"mission_id": _mission_of(links), "complete": _complete(links), "chain": [link.as_json() for link in links]}
    session.output.emit(data, lambda: _trace_text(links))
    broken = [link.kind for link in links if not link.ok]
    if broken:
        raise ClientError("CHECK_FAILED", f"the chain is broken at {', '.join(broken)}", "gonogo verify tells more")


async def _verify(session: Session, mission: str, executor_key: Path | None) -> None:
    async with connect(session, executor_key) as client:
        response = await client.get(mission)
        known = trusted_keys(session.state)
        named = {signature.key_id for approval in response.approvals for signature in approval.signatures}
        if not named <= known.keys():
            # A fingerprint binds a key: whoever hands it out, it is the key that the receipt names.
            known = {**_keys_of(await client.executor()), **known}
        _show_checks(session, response, client.executor_key, known)


def _show_checks(
    session: Session, response: orchestrator_pb2.GetMissionResponse, key: PublicKey, approvers: dict[str, PublicKey]
) -> None:
    checks = verify_documents(response, executor_key=key, approver_keys=approvers)
    valid = all(check.ok for check in checks)
    data = {
        "mission_id": response.mission.mission_id,
        "valid": valid,
        "documents": _present(response),
        "checks": [check.as_json() for check in checks],
    }
    session.output.emit(data, lambda: checks_text(checks))
    if not valid:
        failed = next(check for check in checks if not check.ok)
        raise ClientError("CHECK_FAILED", _failure(failed), "trust none of it before this is explained")


def _present(response: orchestrator_pb2.GetMissionResponse) -> list[str]:
    """Return what there is to check: a mission that was not executed proves no more than it has."""
    named = {"plan": response.plan, "report": response.report, "receipt": response.receipt}
    found = [name for name, sealed in named.items() if sealed.body]
    return [*found, *["approval"] * len(response.approvals)]


def _failure(check: Check) -> str:
    return f"{check.name}: {check.detail}" if check.detail else check.name


def _trace_text(links: list[Link]) -> str:
    rows = [("ok" if link.ok else "BROKEN", link.kind, link.id, link.digest, link.named_by) for link in links]
    return table(("", "what", "id", "digest", "named by"), rows)


def _mission_of(links: list[Link]) -> str:
    return next((link.id for link in links if link.kind == "mission"), "")


def _complete(links: list[Link]) -> bool:
    return any(link.kind == "receipt" for link in links) and all(link.ok for link in links)


def _read_file(name: str) -> orchestrator_pb2.GetMissionResponse:
    try:
        data = json.loads(read_input(name))
    except ValueError as error:
        raise ClientError(
            "MALFORMED", f"{name}: {error}", "write the file with: gonogo show M -o json > FILE"
        ) from None
    return read_shown(data)


def _pinned(session: Session, executor_key: Path | None) -> PublicKey:
    return read_public_key(executor_key or session.state.executor_public_key)


def _keys_of(executor: executor_pb2.GetExecutorResponse) -> dict[str, PublicKey]:
    found: dict[str, PublicKey] = {}
    for listed in (key for person in executor.persons for key in person.keys):
        try:
            public = load_public_key(listed.public_key)
        except SignatureError:
            continue
        found[public.key_id] = public
    return found
