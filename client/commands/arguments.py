"""Arguments that several commands take, and how their files are read."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from client.api import GonogoClient
from client.approving import ApprovalOptions
from client.durations import parse_duration
from client.errors import ClientError, EvidenceError
from client.session import Session
from client.signing import read_public_key


def _not_empty(value: str) -> str:
    if not value:
        message = "a mission's id, or its beginning, is needed"
        raise typer.BadParameter(message)
    return value


def _expanded(value: Path | None) -> Path | None:
    return value.expanduser() if value else None


MissionArgument = Annotated[
    str, typer.Argument(metavar="MISSION", callback=_not_empty, help="A mission's id, or its beginning.")
]
FileOption = Annotated[str, typer.Option("-f", "--file", metavar="FILE", help="The plan file; - reads standard input.")]
KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="FILE",
        help="Your private key, or the .pub of one in your ssh-agent; the state's own where left out.",
    ),
]
SignOption = Annotated[
    Path | None,
    typer.Option(
        "--sign",
        metavar="KEY",
        callback=_expanded,
        help="Sign the plan as its proposer: a private key, or the .pub of an agent's.",
    ),
]
WhyOption = Annotated[str, typer.Option("-m", "--message", metavar="WHY", help="Why.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask; everything else is checked and shown alike.")]
AsOption = Annotated[str, typer.Option("--as", metavar="PERSON", help="Refuse unless the key is this person's.")]
LifetimeOption = Annotated[str, typer.Option(metavar="TIME", help="How long it holds: 90s, 15m, 1h, 2d.")]
ExecutorKeyOption = Annotated[
    Path | None,
    typer.Option("--executor-key", metavar="FILE", help="The executor's public key; the state's own where left out."),
]
# A mission's whole id: the prefix and twenty characters.
WHOLE_ID = len("m-") + 20
MAX_INPUT = 64 * 1024 * 1024
# What one answer of the orchestrator holds, written out as JSON in ASCII.
MAX_BUNDLE = 8 * MAX_INPUT


def read_input(name: str, limit: int = MAX_INPUT) -> bytes:
    """Read a file, or standard input where the name is a dash.

    Raises:
        ClientError: it can not be read, or is larger than anything it could be.
    """
    try:
        if name == "-":
            data = sys.stdin.buffer.read(limit + 1)
        else:
            with Path(name).open("rb") as file:
                data = file.read(limit + 1)
    except OSError as error:
        remedy = "give a file you may read, or - for standard input"
        raise ClientError("FILE_UNREADABLE", f"{name}: {error.strerror}", remedy) from None
    if len(data) > limit:
        raise ClientError("TOO_LARGE", f"{name} has more than {limit:,} bytes", "give another file")
    return data


def approval_options(
    session: Session, key: Path | None, *, yes: bool, message: str, expires_in: str, person: str
) -> ApprovalOptions:
    """Return what an approver says besides yes, as each command that signs approvals takes it."""
    return ApprovalOptions(
        key=key.expanduser() if key else session.state.approver_key,
        yes=yes,
        comment=message,
        lifetime=parse_duration(expires_in),
        person=person,
    )


def connect(session: Session, executor_key: Path | None = None) -> GonogoClient:
    """Return a client of the session's services."""
    pinned = read_public_key(executor_key) if executor_key else None
    return GonogoClient.connect(session.state, executor_key=pinned)


async def whole_id(client: GonogoClient, mission: str) -> str:
    """Return the mission's whole id; only the beginning of one costs a call.

    Raises:
        ClientError: no mission begins so, or more than one does.
    """
    if len(mission) >= WHOLE_ID:
        return mission
    found = (await client.get(mission)).mission.mission_id
    if not found.startswith(mission):
        message = f"asked for {mission!r}, was handed mission {found!r}"
        raise EvidenceError("MISSION_MISMATCH", message, "ask the orchestrator's operator")
    return found
