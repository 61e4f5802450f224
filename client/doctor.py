"""`gonogo doctor`: what could keep this installation from working, each with its remedy."""

import importlib
import importlib.util
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from client.api import GonogoClient
from client.callers_file import look_at
from client.durations import duration_text
from client.errors import ClientError, NotRunningError
from client.executor_command import trust_json
from client.state import StateDirectory
from client.witnessing import witness_logs
from gonogo import sqlite_release
from gonogo.safe_text import safe_line
from gonogo.sqlite_release import sqlite_is_fixed
from gonogo.v1 import executor_pb2, plan_pb2

PYTHON_NEEDED = (3, 11)
PRIVATE_MODE = 0o077
SOON = timedelta(days=30)
SECRET_FILES = (
    "keys/approver",
    "keys/proposer",
    "keys/executor",
    "tls/ca.key",
    "tls/executor.key",
    "tls/orchestrator.key",
    "tls/client.key",
)
OPTIONAL_FILES = frozenset({"keys/approver", "keys/proposer"})
"""Absent where the approver brought a public key, and where no agent proposes from here."""
OWN_FILES = ("keys/executor.pub", "tls/ca.pem", "keys/approver", "keys/proposer", "tls/client.key")
"""What somebody needs who calls from elsewhere."""
SERVICE_FILES = ("keys/executor", "keys/orchestrator", "tls/executor.key", "tls/orchestrator.key")
PUBLIC_FILES = ("keys/executor.pub", "keys/approver.pub", "tls/ca.pem")
LADDER = {
    plan_pb2.LADDER_LEVEL_L0: "L0: reads only",
    plan_pb2.LADDER_LEVEL_L1: "L1: typed steps, no commands",
    plan_pb2.LADDER_LEVEL_L2: "L2: commands on a private copy of the workspace",
    plan_pb2.LADDER_LEVEL_L3: "L3: commands on a copy-on-write view of the workspace",
}
LEAVES = ("executor", "orchestrator", "client")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    name: str
    level: str
    """``ok``, ``warn`` or ``fail``."""
    detail: str
    remedy: str = ""

    def as_json(self) -> dict[str, object]:
        """Return the finding as scripts read it."""
        return {"name": self.name, "level": self.level, "detail": self.detail, "remedy": self.remedy}


async def examine(state: StateDirectory) -> list[Finding]:
    """Look at programs, files and, where they run, the services."""
    findings = [_python(), _sqlite(), *_programs()]
    if _is_somebody_s(state):
        findings += [_fine("state", f"{state.root}, without any service's keys")]
        findings += [*_files(state, OWN_FILES), *_certificates(state, ("client",))]
    elif not state.initialised:
        return [*findings, _state_missing(state)]
    else:
        findings += [_fine("state", str(state.root)), *_files(state, (*PUBLIC_FILES, *SECRET_FILES))]
        findings += [*_certificates(state, LEAVES), *_callers(state), *_trust_file(state)]
    return [*findings, *await _services(state)]


def _fine(name: str, detail: str) -> Finding:
    return Finding(name=name, level="ok", detail=detail)


def _is_somebody_s(state: StateDirectory) -> bool:
    """Tell whether it is the directory of a person or an agent elsewhere, who has a certificate and no service."""
    services = [state.root / name for name in SERVICE_FILES]
    return (state.tls / "client.pem").is_file() and not any(path.exists() for path in services)


def _state_missing(state: StateDirectory) -> Finding:
    if state.keys.is_dir() and not state.unfinished.exists():
        remedy = "put it back, with a version above that of the one which was in force; or name the state with --state"
        return Finding(name="state", level="fail", detail=f"{state.trust} is missing", remedy=remedy)
    remedy = "gonogo init, or name the state with --state or GONOGO_STATE"
    if state.unfinished.exists():
        remedy = "an init was interrupted: run gonogo init again, it clears away what that one left"
    return Finding(name="state", level="fail", detail=f"no gonogo state in {state.root}", remedy=remedy)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= PYTHON_NEEDED:
        return _fine("python", version)
    return Finding(name="python", level="fail", detail=version, remedy="install Python 3.11 or newer")


def _sqlite() -> Finding:
    try:
        module = importlib.import_module("pysqlite3")
        origin = "pysqlite3"
    except ImportError:
        module = importlib.import_module("sqlite3")
        origin = "the standard library"
    version = str(module.sqlite_version)
    if sqlite_is_fixed(version):
        return _fine("sqlite", f"{version} from {origin}")
    detail = f"{version} from {origin} has the WAL-reset defect"
    return Finding(name="sqlite", level="warn", detail=detail, remedy=sqlite_release.REMEDY)


def _programs() -> Iterator[Finding]:
    wanted = {
        "bubblewrap": ("bwrap", "commands and tests can not be dry-run without it"),
        "ripgrep": ("rg", "search steps can not run without it"),
    }
    for name, (program, consequence) in wanted.items():
        path = shutil.which(program)
        if path is None:
            remedy = f"apt-get install {name}"
            yield Finding(name=name, level="warn", detail=f"{program} is missing: {consequence}", remedy=remedy)
        else:
            yield _fine(name, f"{path} {_version(path)}".strip())


def _version(program: str) -> str:
    try:
        done = subprocess.run([program, "--version"], capture_output=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace").partition("\n")[0]


def _files(state: StateDirectory, names: Iterable[str]) -> Iterator[Finding]:
    for name in names:
        path = state.root / name
        if not path.is_file():
            if name not in OPTIONAL_FILES:
                remedy = "bring it back from a backup, or make a new state with gonogo init"
                yield Finding(name=name, level="fail", detail="missing", remedy=remedy)
        elif name in SECRET_FILES:
            yield _mode(name, path)


def _mode(name: str, path: Path) -> Finding:
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & PRIVATE_MODE:
        return Finding(
            name=name, level="fail", detail=f"mode {mode:04o}: others may read it", remedy=f"chmod 600 {path}"
        )
    return _fine(name, f"mode {mode:04o}")


def _certificates(state: StateDirectory, leaves: Iterable[str]) -> Iterator[Finding]:
    for role in ("ca", *leaves):
        path = state.tls / f"{role}.pem"
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except (OSError, ValueError) as error:
            remedy = "bring it back from a backup, or make a new state with gonogo init"
            yield Finding(name=f"certificate {role}", level="fail", detail=str(error), remedy=remedy)
            continue
        yield _validity(state, role, certificate)


def _validity(state: StateDirectory, role: str, certificate: x509.Certificate) -> Finding:
    name = f"certificate {role}"
    remedy = "run gonogo init --renew-certificates where tls/ca.key is kept, and bring tls/*.pem to where they are used"
    now, end = datetime.now(UTC), certificate.not_valid_after_utc
    if now >= end:
        return Finding(name=name, level="fail", detail=f"expired on {end:%Y-%m-%d}", remedy=remedy)
    if now < certificate.not_valid_before_utc:
        detail = f"valid only from {certificate.not_valid_before_utc:%Y-%m-%d} on"
        return Finding(name=name, level="fail", detail=detail, remedy="correct this machine's clock, or else " + remedy)
    try:
        authority = x509.load_pem_x509_certificate((state.tls / "ca.pem").read_bytes())
        certificate.verify_directly_issued_by(authority)
    except Exception as error:  # noqa: BLE001 - cryptography names several; each means the same here
        remedy = "bring it back from a backup, or make a new state with gonogo init and carry keys and trust.toml over"
        return Finding(name=name, level="fail", detail=f"not issued by this authority: {error}", remedy=remedy)
    level = "warn" if end - now < SOON else "ok"
    detail = f"valid until {end:%Y-%m-%d}, {(end - now).days} days more"
    return Finding(name=name, level=level, detail=detail, remedy=remedy if level == "warn" else "")


def _callers(state: StateDirectory) -> Iterator[Finding]:
    for seen in look_at(state.callers):
        yield Finding(name="callers", level=seen.level, detail=seen.detail, remedy=seen.remedy)


def _trust_file(state: StateDirectory) -> Iterator[Finding]:
    """Have the executor's program judge the trust file; where it is not installed, its own host does."""
    if importlib.util.find_spec("executor") is None:
        return
    name = "trust file"
    try:
        said = trust_json(state, ["show"])
    except ClientError as error:
        yield Finding(name=name, level="fail", detail=error.message.removeprefix(f"{name}: "), remedy=error.remedy)
        return
    if said["refused"]:
        detail, _, remedy = str(said["refused"]).removeprefix(f"{name}: ").partition("; ")
        yield Finding(name=name, level="fail", detail=detail, remedy=remedy)
        return
    left = datetime.fromisoformat(str(said["expires"])) - datetime.now(UTC)
    if not said["warnings"]:
        yield _fine(name, f"version {said['version']}, valid for {left.days} days more")
    for number, warning in enumerate(said["warnings"]):
        level = "fail" if left <= timedelta(0) and number == 0 else "warn"  # that it has expired comes first
        remedy = f"change {state.trust} and raise its version; gonogo trust show says what came of it"
        yield Finding(name=name, level=level, detail=str(warning), remedy=remedy)


def _retention(executor: executor_pb2.GetExecutorResponse) -> Iterator[Finding]:
    """Tell for how long things can be done; an executor of another release may not say."""
    kept = (
        ("reports", "can be executed for", executor.report_seconds),
        ("checkpoints", "an ended mission can be undone for", executor.checkpoint_seconds),
    )
    for name, what, seconds in kept:
        if seconds:
            yield _fine(name, f"{what} {duration_text(seconds)}")


def _ladder(executor: executor_pb2.GetExecutorResponse) -> Finding:
    """Tell how far commands are isolated; what is below the top is so for a reason that another finding gives."""
    name, detail = "executor ladder", LADDER.get(executor.ladder_level)
    if detail is None:
        return Finding(name=name, level="warn", detail="the executor names no level", remedy="update gonogo")
    if executor.ladder_level == max(LADDER):
        return _fine(name, detail)
    remedy = "the executor's other findings and the workspaces' say why, and what to do"
    return Finding(name=name, level="warn", detail=detail, remedy=remedy)


async def _witness(client: GonogoClient, state: StateDirectory, executor_id: str) -> Finding:
    """Look at both audit logs as `gonogo approve` does."""
    try:
        seen = await witness_logs(client, state, executor_id)
    except ClientError as error:
        return Finding(name="audit logs", level="fail", detail=error.message, remedy=error.remedy)
    kept = {"executor": seen.executor, "orchestrator": seen.orchestrator}
    shown = ", ".join(
        f"{name} {one.checkpoint.size} entries" if one else f"{name} nothing kept" for name, one in kept.items()
    )
    if seen.orchestrator is None and not state.orchestrator_public_key.exists():
        remedy = f"get keys/orchestrator.pub from the orchestrator's operator and keep it as {state.keys}"
        return Finding(name="audit logs", level="warn", detail=f"{shown}: its key is not here", remedy=remedy)
    return _fine("audit logs", f"as they were seen before: {shown}")


async def _services(state: StateDirectory) -> list[Finding]:
    try:
        async with GonogoClient.connect(state) as client:
            executor = await client.executor()
            witness = await _witness(client, state, executor.executor_id)
    except NotRunningError as error:
        return [Finding(name="services", level="warn", detail=error.message, remedy=error.remedy)]
    except ClientError as error:
        return [Finding(name="services", level="fail", detail=error.message, remedy=error.remedy)]
    findings = [
        _fine("services", f"{executor.executor_id} {executor.version}"),
        _ladder(executor),
        *_retention(executor),
        witness,
    ]
    for one in executor.findings:
        level = "ok" if one.ok else "warn"
        findings.append(Finding(name=f"executor {one.name}", level=level, detail=one.detail, remedy=one.remedy))
    for workspace in executor.workspaces:
        level = "warn" if workspace.limitation else "ok"
        detail = f"level L{workspace.ladder_level - 1}" if workspace.ladder_level else "level unknown"
        findings.append(
            Finding(name=f"workspace {workspace.workspace_id}", level=level, detail=detail, remedy=workspace.limitation)
        )
    return [*findings, *_far_sides(executor)]


def _far_sides(executor: executor_pb2.GetExecutorResponse) -> Iterator[Finding]:
    """Tell what live steps may use; an executor whose trust file names nothing lets none have an effect outside."""
    kinds: dict[str, list[str]] = {}
    for one in executor.far_sides:
        where = f" ({', '.join(one.workspaces)})" if one.workspaces else ""
        kinds.setdefault(one.kind, []).append(safe_line(f"{one.name}{where}"))
    for kind, names in sorted(kinds.items()):
        yield _fine(f"executor {safe_line(kind)}s", ", ".join(names))
    if not kinds:
        yield _fine("executor far sides", "none: no step reaches a network, a tool or a database")
