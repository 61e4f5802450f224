import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from client.callers_file import ROLES, first_callers, is_caller_name
from client.certificates import issue_client, load_authority, name_of_client
from client.commands.arguments import connect
from client.durations import parse_duration
from client.errors import ClientError, NotRunningError, StateError
from client.json_form import to_json
from client.render.layout import fields, table, when
from client.session import Session, run, session_of
from client.state import StateDirectory
from gonogo.safe_text import safe_line
from gonogo.v1 import orchestrator_pb2

NAME_HELP = "Name, by which missions name their proposer."
TOKEN_LIFETIME = "90d"  # noqa: S105 - a length of time
NEVER = "never"

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help=NAME_HELP)]
RoleOption = Annotated[list[str], typer.Option("--role", help=f"One of {', '.join(ROLES)}; may be repeated.")]


def add(
    context: typer.Context,
    name: NameArgument,
    role: RoleOption,
    token: Annotated[bool, typer.Option("--token", help="The caller shows a token, not a certificate.")] = False,
    expires: Annotated[
        str, typer.Option(metavar="TIME", help="After how long it is refused: 12h, 30d, never. Tokens: 90d.")
    ] = "",
) -> None:
    """Add a caller. A certificate of its name is issued apart: gonogo caller certificate."""
    session = session_of(context)
    unknown = [one for one in role if one not in ROLES]
    if unknown:
        raise ClientError("USAGE", f"{unknown[0]!r} is no role", f"give one of {', '.join(ROLES)}")
    run(_add(session, name, role, token=token, lifetime=_lifetime(expires or (TOKEN_LIFETIME if token else NEVER))))


def list_callers(context: typer.Context) -> None:
    """List the callers and their roles."""
    run(_list(session_of(context)))


def remove(context: typer.Context, name: NameArgument) -> None:
    """Remove a caller."""
    run(_remove(session_of(context), name))


def certificate(
    context: typer.Context,
    name: NameArgument,
    out: Annotated[Path, typer.Option(metavar="DIR", help="A new directory for it.")],
    expires: Annotated[str, typer.Option(metavar="TIME", help="How long it is valid.")] = "365d",
) -> None:
    """Issue a caller's certificate from this state's authority, as a directory to be called from with --state."""
    session = session_of(context)
    if not is_caller_name(name):
        raise ClientError("USAGE", f"{name!r} is no caller's name", "use letters, digits, dots, dashes, underscores, @")
    issued = issue_client(load_authority(session.state.tls), name, parse_duration(expires))
    folder = out.expanduser()
    _write_all(session.state, folder, {"client.pem": issued.certificate, "client.key": issued.key})
    told = {"name": name, "directory": str(folder)}
    session.output.emit(told, lambda: fields([*told.items(), ("next", f"gonogo caller add {name} --role ROLE")]))


def init(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Left out, the state's own client.")] = "",
) -> None:
    """Write a list with one caller of all roles, where there is none."""
    session = session_of(context)
    state = session.state.require()
    owner = name or name_of_client(state.tls / "client.pem")
    if not is_caller_name(owner):
        raise ClientError(
            "USAGE", f"{owner!r} is no caller's name", "use letters, digits, dots, dashes, underscores, @"
        )
    try:
        _write(state.callers, first_callers(owner), 0o600)
    except FileExistsError:
        remedy = "gonogo doctor says what it lacks; move it away first"
        raise StateError("STATE_EXISTS", f"{state.callers} is there already", remedy) from None
    session.output.emit({"name": owner, "roles": list(ROLES)}, lambda: fields([("name", owner), *_roles_row(ROLES)]))


async def _add(session: Session, name: str, roles: list[str], *, token: bool, lifetime: timedelta | None) -> None:
    request = orchestrator_pb2.AddCallerRequest(
        name=name,
        credential=_credential(token=token),
        roles=[orchestrator_pb2.Role.Value(f"ROLE_{role.upper()}") for role in dict.fromkeys(roles)],
    )
    if lifetime is not None:
        request.expires_at.FromDatetime(datetime.now(UTC) + lifetime)
    async with connect(session) as client:
        answer = await client.add_caller(request)
    _show_added(session, answer)


def _credential(*, token: bool) -> orchestrator_pb2.CallerCredential.ValueType:
    known = orchestrator_pb2.CALLER_CREDENTIAL_TOKEN, orchestrator_pb2.CALLER_CREDENTIAL_CERTIFICATE
    return known[0] if token else known[1]


def _show_added(session: Session, answer: orchestrator_pb2.AddCallerResponse) -> None:
    output = session.output
    told = to_json(answer.caller)
    if answer.token:
        told["token"] = answer.token
    shown = [_text([answer.caller]), *(["", answer.token] if answer.token else [])]
    output.emit(told, lambda: "\n".join(shown))
    if output.machine:
        return
    if not answer.token:
        output.note(f"gonogo caller certificate {answer.caller.name} --out DIR issues its certificate")
        return
    output.note("the token is shown this once; call with GONOGO_TOKEN or --token-file")
    if not takes_tokens(session.state):
        output.note("tokens are taken nowhere yet: gonogo up --token-listen HOST:PORT")


def takes_tokens(state: StateDirectory) -> bool:
    """Tell whether somebody could call with a token; where nobody here knows, the orchestrator may."""
    try:
        return bool(state.ready().get("orchestrator_tokens"))
    except NotRunningError:
        return True


async def _list(session: Session) -> None:
    async with connect(session) as client:
        callers = await client.callers()
    session.output.emit_list([to_json(caller) for caller in callers], lambda: _text(callers))


async def _remove(session: Session, name: str) -> None:
    async with connect(session) as client:
        await client.remove_caller(name)
    session.output.emit({"name": name}, lambda: f"removed {safe_line(name)}: its next call is refused")


def _text(callers: Sequence[orchestrator_pb2.Caller]) -> str:
    rows = [
        (
            caller.name,
            orchestrator_pb2.CallerCredential.Name(caller.credential).rpartition("_")[2].lower(),
            " ".join(orchestrator_pb2.Role.Name(role).rpartition("_")[2].lower() for role in caller.roles),
            when(caller.added_at),
            when(caller.expires_at) or NEVER,
        )
        for caller in callers
    ]
    return table(("name", "shows", "roles", "added", "expires"), rows)


def _roles_row(roles: tuple[str, ...]) -> list[tuple[str, str]]:
    return [("roles", " ".join(roles))]


def _lifetime(text: str) -> timedelta | None:
    return None if text == NEVER else parse_duration(text)


def _write_all(state: StateDirectory, folder: Path, issued: dict[str, bytes]) -> None:
    """Write what a caller elsewhere needs, as the beginning of a state directory."""
    try:
        for part in (folder, folder / "tls", folder / "keys"):
            part.mkdir(mode=0o700, parents=True)
        for name, data in issued.items():
            _write(folder / "tls" / name, data, 0o600)
        _write(folder / "tls" / "ca.pem", (state.tls / "ca.pem").read_bytes(), 0o644)
        _write(folder / "keys" / "executor.pub", state.executor_public_key.read_bytes(), 0o644)
        if state.orchestrator_public_key.exists():  # with it the caller is a witness of the orchestrator's log, too
            _write(folder / "keys" / "orchestrator.pub", state.orchestrator_public_key.read_bytes(), 0o644)
    except OSError as error:
        message = f"{error.filename}: {error.strerror}"
        raise StateError("STATE_EXISTS", message, "name a new directory with --out") from None


def _write(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
