"""What the orchestrator is told at its start, by flags or by the environment; nothing else reads either."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

WHOLE: Final = 100

OFF_BY_DEFAULT: Final[Mapping[str, str]] = {
    "--token-listen": "where callers with tokens are served, over TLS without client certificates",
    "--health-listen": "where health, and nothing else, is served in plain text",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One start of the orchestrator."""

    command: str
    state: Path
    executor: str
    listen: str
    token_listen: str
    health_listen: str
    ready_file: Path | None
    die_with_parent: bool
    reflection: bool
    output: str
    caution: int = 0
    """A stated confidence below this, in hundredths of a percent, asks for one approval more; 0 for none."""
    action: str = ""
    """What `audit` is to do."""
    kept: tuple[Path, ...] = ()
    """Checkpoints that others kept, which `audit check` compares the log with."""
    mission: str = ""
    """Whose state `replay` is to show; empty where it is to compare the whole log."""
    until: int = 0
    """The last of the mission's events that goes into that state."""
    repair_command: str = ""
    """The program that proposes repairs; empty takes back what failed."""

    @property
    def log_key(self) -> Path:
        """The private key that this service signs the checkpoints of its audit log with."""
        return self.state / "keys" / "orchestrator"

    @property
    def executor_key(self) -> Path:
        """The executor's public key, where the operator put it on this host."""
        return self.state / "keys" / "executor.pub"

    @property
    def database(self) -> Path:
        """The event log's file."""
        return self.state / "orchestrator" / "events.db"

    @property
    def mirrors(self) -> Path:
        """Where the mirrors of the event log are."""
        return self.database.parent

    @property
    def callers(self) -> Path:
        """The list of those who may call."""
        return self.state / "orchestrator" / "callers.json"

    @property
    def tls(self) -> Path:
        """Where the certificates are."""
        return self.state / "tls"


def read_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Read flags; what a flag leaves open comes from the variable of the same name."""
    parser = _parser(environment)
    read = parser.parse_args(arguments)
    if read.command == "replay" and bool(read.mission) != (read.until is not None):
        parser.error("replay takes --mission MISSION and --until SEQ together")
    if read.command == "serve" and not read.executor:
        parser.error("serve needs --executor HOST:PORT (or GONOGO_EXECUTOR)")
    return Settings(
        command=read.command,
        state=Path(read.state),
        executor=getattr(read, "executor", ""),
        listen=getattr(read, "listen", ""),
        token_listen=getattr(read, "token_listen", ""),
        health_listen=getattr(read, "health_listen", ""),
        ready_file=Path(read.ready_file) if getattr(read, "ready_file", "") else None,
        die_with_parent=getattr(read, "die_with_parent", False),
        reflection=getattr(read, "reflection", False),
        output=getattr(read, "output", "text"),
        caution=getattr(read, "caution", 0) * 100,
        action=getattr(read, "action", ""),
        kept=tuple(map(Path, getattr(read, "kept", ()))),
        mission=getattr(read, "mission", ""),
        until=getattr(read, "until", None) or 0,
        repair_command=getattr(read, "repair_command", ""),
    )


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m orchestrator", description="The orchestrator of gonogo.")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_serve(commands.add_parser("serve", help="serve chat, missions and whiteboards"), environment)
    export = commands.add_parser("export", help="print the event log as JSON lines")
    replay = commands.add_parser("replay", help="fold the log into an empty database and compare the digests")
    replay.add_argument("--mission", default="", help="show this mission's state at one of its events instead")
    replay.add_argument("--until", type=int, metavar="SEQ", help="the number of that event in the mission's stream")
    audit = commands.add_parser("audit", help="check the audit log, or forget what is kept of the executor's")
    audit.add_argument("action", choices=("check", "forget"))
    audit.add_argument("--kept", action="append", default=[], metavar="FILE", help="a checkpoint that somebody kept")
    for command in (replay, audit):
        command.add_argument("-o", "--output", choices=("text", "json"), default="text")
    states = commands.add_parser("states", help="print the page of the mission's states")
    for command in (export, replay, audit, states):
        _add_state(command, environment)
    return parser


def _add_serve(serve: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    _add_state(serve, environment)
    serve.add_argument("--executor", default=environment.get("GONOGO_EXECUTOR", ""), metavar="HOST:PORT")
    serve.add_argument("--listen", default=environment.get("GONOGO_LISTEN", "127.0.0.1:0"), metavar="HOST:PORT")
    for flag, meaning in OFF_BY_DEFAULT.items():
        variable = "GONOGO_" + flag.strip("-").replace("-", "_").upper()
        serve.add_argument(flag, default=environment.get(variable, ""), metavar="HOST:PORT", help=meaning)
    serve.add_argument(
        "--repair-command",
        default=environment.get("GONOGO_REPAIR_COMMAND", ""),
        metavar="COMMAND",
        help="a program that proposes repairs: a case as JSON on its standard input, a plan draft as JSON out",
    )
    serve.add_argument(
        "--caution",
        type=_percent,
        default=environment.get("GONOGO_CAUTION", "0"),
        metavar="PERCENT",
        help="ask for one approval more where a plan is less likely to succeed than that; 0, the default, for none",
    )
    serve.add_argument("--ready-file", default=environment.get("GONOGO_READY_FILE", ""), metavar="PATH")
    for flag in ("--die-with-parent", "--reflection"):
        variable = "GONOGO_" + flag.strip("-").replace("-", "_").upper()
        serve.add_argument(flag, action="store_true", default=environment.get(variable, "") in {"1", "true"})


def _percent(text: str) -> int:
    number = int(text) if text.isdecimal() else -1
    if not 0 <= number <= WHOLE:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of percent from 0 to {WHOLE}")
    return number


def _add_state(command: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    command.add_argument("--state", default=environment.get("GONOGO_STATE", "./.gonogo"), metavar="DIR")
