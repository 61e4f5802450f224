"""What the orchestrator is told at its start, by flags or by the environment; nothing else reads either."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One start of the orchestrator."""

    command: str
    state: Path
    executor: str
    listen: str
    ready_file: Path | None
    die_with_parent: bool
    reflection: bool
    output: str

    @property
    def database(self) -> Path:
        """The event log's file."""
        return self.state / "orchestrator" / "events.db"


def read_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Read flags; what a flag leaves open comes from the variable of the same name."""
    parser = _parser(environment)
    read = parser.parse_args(arguments)
    if read.command == "serve" and not read.executor:
        parser.error("serve needs --executor HOST:PORT (or GONOGO_EXECUTOR)")
    return Settings(
        command=read.command,
        state=Path(read.state),
        executor=getattr(read, "executor", ""),
        listen=getattr(read, "listen", ""),
        ready_file=Path(read.ready_file) if getattr(read, "ready_file", "") else None,
        die_with_parent=getattr(read, "die_with_parent", False),
        reflection=getattr(read, "reflection", False),
        output=getattr(read, "output", "text"),
    )


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m orchestrator", description="The orchestrator of gonogo.")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_serve(commands.add_parser("serve", help="serve chat, missions and whiteboards"), environment)
    export = commands.add_parser("export", help="print the event log as JSON lines")
    replay = commands.add_parser("replay", help="fold the log into an empty database and compare the digests")
    replay.add_argument("-o", "--output", choices=("text", "json"), default="text")
    states = commands.add_parser("states", help="print the page of the mission's states")
    for command in (export, replay, states):
        _add_state(command, environment)
    return parser


def _add_serve(serve: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    _add_state(serve, environment)
    serve.add_argument("--executor", default=environment.get("GONOGO_EXECUTOR", ""), metavar="HOST:PORT")
    serve.add_argument("--listen", default=environment.get("GONOGO_LISTEN", "127.0.0.1:0"), metavar="HOST:PORT")
    serve.add_argument("--ready-file", default=environment.get("GONOGO_READY_FILE", ""), metavar="PATH")
    for flag in ("--die-with-parent", "--reflection"):
        variable = "GONOGO_" + flag.strip("-").replace("-", "_").upper()
        serve.add_argument(flag, action="store_true", default=environment.get(variable, "") in {"1", "true"})


def _add_state(command: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    command.add_argument("--state", default=environment.get("GONOGO_STATE", "./.gonogo"), metavar="DIR")
