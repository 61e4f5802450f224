"""What the executor is started with: options, or the environment variables of the same names."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from executor.domain.errors import ExecutorError
from executor.domain.ladder import LadderLevel
from executor.domain.plan_rules import is_identifier

SEPARATOR = ";"


class SettingsError(ExecutorError):
    """The executor was started with something that it can not use; the operator must change it."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__("MALFORMED", message, remedy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where everything is."""

    state: Path
    workspaces: Mapping[str, Path]
    staging: Mapping[str, Path]
    tools: tuple[Path, ...]
    listen: str
    ready_file: Path | None
    die_with_parent: bool
    reflection: bool
    grace_seconds: float
    max_ladder_level: LadderLevel = LadderLevel.L3
    health_listen: str = ""
    """Where health, and nothing else, is served in plain text; empty where it is not."""
    anchor: Path | None = None
    """What remembers how far the ledger has come; None for the file beside the executor's own directory."""
    revocation_listen: str = ""
    """Where revocations, and nothing else, are taken from clients; empty where they are not."""

    @property
    def trust_file(self) -> Path:
        return trust_file_of(self.state)

    @property
    def spool(self) -> Path:
        return spool_of(self.state)

    @property
    def signing_key(self) -> Path:
        return signing_key_of(self.state)

    @property
    def tls(self) -> Path:
        return self.state / "tls"

    @property
    def own(self) -> Path:
        """The directory that is the executor's alone."""
        return self.state / "executor"

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return ledger_of(self.state)

    @property
    def forget_spool(self) -> Path:
        return forget_spool_of(self.state)

    def anchor_of(self, executor_id: str) -> Path:
        """Where the ledger's anchor is. It must not be in the ledger's backup set."""
        return self.anchor or self.state / "anchor" / f"{quote(executor_id, safe='')}.json"

    def staging_of(self, workspace_id: str) -> Path:
        """Where a workspace's changes are staged; it must be on the workspace's filesystem."""
        return self.staging.get(workspace_id, self.state / "staging" / workspace_id)


def trust_file_of(state: Path) -> Path:
    """Where the trust file of a state directory is."""
    return state / "trust.toml"


def spool_of(state: Path) -> Path:
    """Where the executor's host hands in revocations."""
    return state / "executor" / "revocations"


def signing_key_of(state: Path) -> Path:
    """Where the executor's own key is."""
    return state / "keys" / "executor"


def ledger_of(state: Path) -> Path:
    """Where the executor's ledger is."""
    return state / "executor" / "ledger.db"


def forget_spool_of(state: Path) -> Path:
    """Where the executor's host asks for a caller's kept checkpoint to be forgotten."""
    return state / "executor" / "forget"


def read_settings(argv: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Read the command line, then the environment for what it does not say.

    Raises:
        SettingsError: a value can not be used.
    """
    given = _parser(environment).parse_args(argv)
    workspaces = _places("--workspace", given.workspace or _listed(environment, "GONOGO_WORKSPACE"))
    if not workspaces:
        raise SettingsError("no workspace is named", "start with --workspace ID=/absolute/path")
    staging = _places("--staging", given.staging or _listed(environment, "GONOGO_STAGING"))
    if staging.keys() - workspaces.keys():
        raise SettingsError("--staging names a workspace that is not there", "use the id of a --workspace")
    tools = given.tools or _listed(environment, "GONOGO_TOOLS")
    return Settings(
        state=Path(given.state).absolute(),
        workspaces=workspaces,
        staging=staging,
        tools=tuple(_absolute("--tools", path) for path in tools),
        listen=given.listen,
        ready_file=Path(given.ready_file).absolute() if given.ready_file else None,
        die_with_parent=given.die_with_parent,
        reflection=given.reflection,
        grace_seconds=given.grace_seconds,
        max_ladder_level=_level(given.max_ladder_level),
        health_listen=given.health_listen,
        anchor=_anchor(given.anchor, workspaces),
        revocation_listen=given.revocation_listen,
    )


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m executor", description="The isolated executor.", allow_abbrev=False
    )
    value = environment.get
    parser.add_argument("--state", default=value("GONOGO_STATE", ".gonogo"), help="state directory")
    parser.add_argument(
        "--workspace", action="append", metavar="ID=/PATH", help="a workspace to serve; repeat for more"
    )
    parser.add_argument("--staging", action="append", metavar="ID=/PATH", help="where a workspace's changes are staged")
    parser.add_argument("--tools", action="append", metavar="/PATH", help="directories that commands see, read-only")
    parser.add_argument("--listen", default=value("GONOGO_LISTEN", "127.0.0.1:0"), help="address to listen on")
    parser.add_argument(
        "--health-listen", default=value("GONOGO_HEALTH_LISTEN", ""), help="where health is served in plain text"
    )
    parser.add_argument(
        "--revocation-listen",
        default=value("GONOGO_REVOCATION_LISTEN", ""),
        help="where clients hand in revocations without the orchestrator; nowhere where it is empty",
    )
    parser.add_argument(
        "--anchor",
        default=value("GONOGO_ANCHOR", ""),
        metavar="/FILE",
        help="remembers the ledger; not in its backups",
    )
    parser.add_argument("--ready-file", default=value("GONOGO_READY_FILE", ""), help="written when the service answers")
    parser.add_argument("--grace-seconds", type=float, default=10.0, help="how long running work has at the end")
    parser.add_argument(
        "--max-ladder-level",
        default=value("GONOGO_MAX_LADDER_LEVEL", LadderLevel.L3.name),
        metavar="|".join(level.name for level in reversed(LadderLevel)),
        help="isolate commands no better than this, whatever the machine can do; L1: no commands, L0: reads only",
    )
    parser.add_argument(
        "--die-with-parent", action="store_true", help="end when the process that started this one does"
    )
    parser.add_argument("--reflection", action="store_true", help="serve the contract's description, for development")
    return parser


def _anchor(text: str, workspaces: Mapping[str, Path]) -> Path | None:
    if not text:
        return None
    path = _absolute("--anchor", text)
    if any(path.resolve().is_relative_to(root.resolve()) for root in workspaces.values()):
        raise SettingsError("--anchor: it lies in a workspace, where plans change files", "choose a place of its own")
    return path


def _level(text: str) -> LadderLevel:
    try:
        return LadderLevel[text]
    except KeyError:
        raise SettingsError(f"--max-ladder-level: there is no level {text!r}", "write L3, L2, L1 or L0") from None


def _listed(environment: Mapping[str, str], name: str) -> list[str]:
    return [part for part in environment.get(name, "").split(SEPARATOR) if part]


def _places(option: str, values: Sequence[str]) -> dict[str, Path]:
    places: dict[str, Path] = {}
    for value in values:
        name, _, path = value.partition("=")
        if not is_identifier(name) or "/" in name or name in {".", ".."} or name in places:
            raise SettingsError(f"{option} {value!r} has no id, or one that is taken", f"write {option} ID=/path")
        places[name] = _absolute(option, path)
    return places


def _absolute(option: str, text: str) -> Path:
    path = Path(text)
    if not path.is_absolute() or os.pardir in path.parts:
        raise SettingsError(f"{option}: {text!r} is not an absolute path", "write the whole path from /")
    return path
