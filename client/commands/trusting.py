from pathlib import Path
from typing import Annotated

import typer

from client.errors import ClientError
from client.executor_command import trust_json, trust_text
from client.session import Session, session_of
from gonogo.safe_text import safe_block

FileOption = Annotated[
    Path | None, typer.Option("--file", metavar="FILE", help="The trust file; the state directory's where left out.")
]


def show(context: typer.Context, file: FileOption = None) -> None:
    """Say who may do what, and what the rules ask for."""
    _tell(session_of(context), ["show", *_file(file)])


def check(
    context: typer.Context,
    new: Annotated[Path, typer.Argument(metavar="FILE", help="A trust file that is to be put in place.")],
    file: FileOption = None,
) -> None:
    """Say whether a file would be taken, and what it would change."""
    _tell(session_of(context), ["check", str(new.expanduser().absolute()), *_file(file)])


def add(
    context: typer.Context,
    person: Annotated[str, typer.Option(metavar="ID", help="The person or agent; a new one is added.")],
    key: Annotated[Path, typer.Option(metavar="FILE", help="Their public key.")],
    scheme: Annotated[str, typer.Option(metavar="NAME", help="How it signs: sshsig, ed25519.")] = "",
    kind: Annotated[str, typer.Option(metavar="KIND", help="person or agent.")] = "",
    sponsor: Annotated[str, typer.Option(metavar="ID", help="The person who answers for an agent.")] = "",
    use: Annotated[str, typer.Option(metavar="USE", help="approve or propose; an agent's key proposes.")] = "",
    group: Annotated[list[str] | None, typer.Option(metavar="GROUP", help="A group to join; may be repeated.")] = None,
    file: FileOption = None,
) -> None:
    """Add a key to the trust file, and the person or agent where they are new."""
    given = [("--scheme", scheme), ("--kind", kind), ("--sponsor", sponsor), ("--use", use)]
    given += [("--group", name) for name in group or ()]
    options = [part for name, value in given if value for part in (name, value)]
    where = str(key.expanduser().absolute())
    _tell(session_of(context), ["add", "--person", person, "--key", where, *options, *_file(file)])


def revoke(
    context: typer.Context,
    key: Annotated[str, typer.Option(metavar="FINGERPRINT", help="A key, as ssh-keygen -l prints it.")] = "",
    person: Annotated[str, typer.Option(metavar="ID", help="A person or agent, with all their keys.")] = "",
    file: FileOption = None,
) -> None:
    """Take a key, or somebody with all their keys, out of the trust file."""
    if bool(key) == bool(person):
        raise ClientError("USAGE", "give --key FINGERPRINT or --person ID", "gonogo trust show lists both")
    which = ["--key", key] if key else ["--person", person]
    _tell(session_of(context), ["revoke", *which, *_file(file)])


def _file(file: Path | None) -> list[str]:
    return ["--file", str(file.expanduser().absolute())] if file else []


def _tell(session: Session, arguments: list[str]) -> None:
    if session.output.machine:
        session.output.emit(trust_json(session.state, arguments), str)
    else:
        session.output.text(safe_block(trust_text(session.state, arguments)))
