"""What every command has: a way out and a state directory."""

import asyncio
import os
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import typer

from client.errors import ClientError
from client.output import Format, Output, standard_output
from client.state import DEFAULT, VARIABLE, StateDirectory

OUTPUT_VARIABLE = "GONOGO_OUTPUT"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The settings that hold for one command."""

    output: Output
    state: StateDirectory


def new_session() -> Session:
    """Return the session that the environment asks for."""
    root = Path(os.environ.get(VARIABLE) or DEFAULT)
    return Session(output=standard_output(_format_from_environment()), state=StateDirectory(root=root.absolute()))


def session_of(context: typer.Context) -> Session:
    """Return the session of the running command."""
    session = context.find_root().obj
    if not isinstance(session, Session):
        message = "the command runs without its session"
        raise TypeError(message)
    return session


def set_output(context: typer.Context, value: Format | None) -> None:
    """Take the output option, wherever on the command line it stands."""
    if value is not None:
        root = context.find_root()
        root.obj = replace(_session(root.obj), output=standard_output(value))


def set_state(context: typer.Context, value: Path | None) -> None:
    """Take the state option, wherever on the command line it stands."""
    if value is not None:
        root = context.find_root()
        session = _session(root.obj)
        root.obj = replace(session, state=replace(session.state, root=value.expanduser().absolute()))


def set_token_file(context: typer.Context, value: Path | None) -> None:
    """Take the file of the token to call with, wherever on the command line it stands."""
    if value is not None:
        root = context.find_root()
        session = _session(root.obj)
        root.obj = replace(session, state=replace(session.state, token_file=value.expanduser().absolute()))


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's asynchronous part to its end."""
    return asyncio.run(work)


def _session(known: object) -> Session:
    return known if isinstance(known, Session) else new_session()


def _format_from_environment() -> Format:
    value = os.environ.get(OUTPUT_VARIABLE) or Format.TABLE.value
    if value not in set(Format):
        remedy = f"set it to one of: {', '.join(Format)}"
        raise ClientError("USAGE", f"{OUTPUT_VARIABLE}={value} is no form of output", remedy)
    return Format(value)
