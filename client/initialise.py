"""`gonogo init`: everything one installation needs, written so that an interruption leaves nothing half true.

The trust file comes last and by rename: where it is, the state is complete. Until then a locked marker says that an
initialisation is under way; a marker that nobody holds was left by one that was interrupted, and the next one clears
away what that one made and starts again.
"""

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from client.callers_file import first_callers
from client.certificates import issue_all
from client.errors import StateError
from client.signing import read_public_key
from client.state import StateDirectory
from gonogo.signatures import PublicKey, new_signing_key

PERSON = re.compile(r"[a-z0-9][a-z0-9._-]{0,57}")
OWN_DIRECTORIES = ("keys", "tls", "run", "orchestrator", "executor", "staging")

LIFETIME = timedelta(days=365)

TRUST_FILE = """\
# The executor's trust file. Only the operator of the executor's machine writes it. A running executor looks at it every
# second: a good newer file takes effect at once; with one that can not be read nothing is decided until it is mended.
# gonogo trust show says what it says, gonogo trust check FILE what another one would change.
# Every change raises this number; a file with a lower one than was in force is refused.
version = 1
# From then on nothing is dry run or approved, until somebody has looked through this file and set a later date.
expires = {expires}
executor_id = "{executor_id}"
# Who may call, and the key that signs the checkpoints of its audit log.
orchestrators = [{{ id = "spiffe://gonogo.local/orchestrator", log_key = "{log_key}" }}]
# Hosts that steps may reach, besides what each plan's scope says; left out: none.
# domains = ["example.org", "*.example.net"]

[policy]
approvals_required = 1
# One person proposes and approves here. Where more than one person works, write "refused": then the approval of
# whoever proposed a mission does not count. Reports and receipts say which held.
self_approval = "allowed"
max_approval_seconds = 86400
# Never shown by any dry run, search or preview.
hidden = [".env", "**/.env"]
# Changes by itself: not shown to commands and left out of what is compared.
volatile = ["**/__pycache__/**"]
# For how many seconds a report can be executed, and an ended mission undone: a week each. What is older is let go of.
report_seconds = 604800
checkpoint_seconds = 604800
# Left out, every orchestrator named above may ask for dry runs; an empty list lets nobody.
# may_dry_run = ["spiffe://gonogo.local/orchestrator"]

# More persons, agents and keys come with gonogo trust add, and go with gonogo trust revoke.
[[persons]]
id = "{person}"

  [[persons.keys]]
  scheme = "sshsig"
  public_key = "{public_key}"

# The key for agents' clients, keys/proposer: with it an agent proves that it proposed, and can not approve. While
# self_approval is refused, its sponsor's approval does not count for what it proposed.
[[persons]]
id = "{agent}"
kind = "agent"
sponsor = "{person}"

  [[persons.keys]]
  scheme = "sshsig"
  public_key = "{agent_key}"
  use = "propose"

# Rules ask for more than [policy] does. All that hold add up, and one person fills one place among all that is asked.
# [[groups]]
# id = "sre"
# members = ["{person}"]
#
# [[rules]]
# id = "production"
# when = {{ labels = ["prod"], min_risk = "medium" }}
# require = [{{ count = 1, group = "sre" }}]
#
# A workspace without such a table may have any label: rules about labels hold for it, too.
# [workspaces.site]
# labels = ["prod"]
# live_access = ["network"]
#
# What steps with effects outside may use; gonogo doctor says what there is. docs/trust-file.md has every key.
# [network]
# fetch_in_dry_run = true
# private_addresses = ["10.1.0.0/16"]
#
# [[secrets]]
# name = "deploy-token"
# workspaces = ["site"]
# environment = "DEPLOY_TOKEN"
#
# [[mcp_servers]]
# name = "notes"
# workspaces = ["site"]
# url = "https://notes.example.org/mcp"
# tools = ["add", "list"]
#
# [[databases]]
# name = "shop"
# workspaces = ["site"]
# engine = "postgresql"
# dsn = "host=/run/postgresql dbname=shop user=shop_agent"
# password = "secret://deploy-token"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Initialised:
    """What was made."""

    state: StateDirectory
    executor_id: str
    person: str
    approver_key_id: str
    executor_key_id: str
    approver_key: Path | None
    """Where the approver's private key is; None where the person brought a public key."""
    agent: str
    """Whose key it is that agents' clients propose with."""


def initialise(state: StateDirectory, *, person: str = "owner", approver_public: Path | None = None) -> Initialised:
    """Write a new state directory.

    Raises:
        StateError: there is one already, somebody else's files are in the way, or another init is running.
        KeyFileError: the given public key can not be used.
    """
    if not PERSON.fullmatch(person):
        remedy = "use lower-case letters, digits, dots, dashes and underscores"
        raise StateError("USAGE", f"{person!r} is no person's id", remedy)
    given = read_public_key(approver_public) if approver_public else None
    _refuse_existing(state)
    with _marked(state):
        _clear_unfinished(state)
        return _write_all(state, person, given)


def _refuse_existing(state: StateDirectory) -> None:
    if state.initialised:
        remedy = "use it as it is, or name another directory with --state; keys are never overwritten"
        raise StateError("STATE_EXISTS", f"{state.root} holds a gonogo state already", remedy)
    if state.root.exists() and not state.root.is_dir():
        raise StateError("STATE_EXISTS", f"{state.root} is not a directory", "name another with --state")
    if state.root.is_dir() and any(state.root.iterdir()) and not state.unfinished.exists():
        remedy = "name an empty or new directory with --state"
        raise StateError("STATE_EXISTS", f"{state.root} is not empty and holds no gonogo state", remedy)


@contextmanager
def _marked(state: StateDirectory) -> Iterator[None]:
    try:
        state.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.root.chmod(0o700)
        descriptor = os.open(state.unfinished, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        message = f"{state.root} can not be made: {error.strerror}"
        raise StateError("STATE_MISSING", message, "name a directory you may write with --state") from None
    try:
        _lock_marker(descriptor, state)
        yield
        state.unfinished.unlink()
    finally:
        os.close(descriptor)


def _lock_marker(descriptor: int, state: StateDirectory) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        message = f"another gonogo init is writing {state.root}"
        raise StateError("STATE_LOCKED", message, "wait for it to end") from None
    if state.initialised:  # the other one has ended in between
        state.unfinished.unlink(missing_ok=True)
        _refuse_existing(state)


def _clear_unfinished(state: StateDirectory) -> None:
    for name in OWN_DIRECTORIES:
        shutil.rmtree(state.root / name, ignore_errors=True)


def _write_all(state: StateDirectory, person: str, given: PublicKey | None) -> Initialised:
    for name in OWN_DIRECTORIES:
        (state.root / name).mkdir(mode=0o700)
    approver = given or _write_key(state.keys / "approver", person)
    executor_id = f"executor-{secrets.token_hex(4)}"
    executor = _write_key(state.keys / "executor", executor_id)
    orchestrator = _write_key(state.keys / "orchestrator", "orchestrator")
    agent = f"{person}-agent"
    proposer = _write_key(state.proposer_key, agent)
    if given is not None:
        _write(state.keys / "approver.pub", f"{given.line} {person}\n".encode(), 0o644)
    for role, issued in issue_all(person).items():
        _write(state.tls / f"{role}.pem", issued.certificate, 0o644)
        _write(state.tls / f"{role}.key", issued.key, 0o600)
    _sync(state.keys)
    _sync(state.tls)
    _write(state.callers, first_callers(person), 0o600)
    _sync(state.callers.parent)
    text = TRUST_FILE.format(
        expires=_expiry(),
        executor_id=executor_id,
        log_key=orchestrator.line,
        person=person,
        public_key=f"{approver.line} {person}",
        agent=agent,
        agent_key=f"{proposer.line} {agent}",
    )
    _write_last(state.trust, text.encode())
    return Initialised(
        state=state,
        executor_id=executor_id,
        person=person,
        approver_key_id=approver.key_id,
        executor_key_id=executor.key_id,
        approver_key=None if given else state.approver_key,
        agent=agent,
    )


def _expiry() -> str:
    """Return the moment a year from now as TOML has it."""
    return (datetime.now(UTC) + LIFETIME).strftime("%Y-%m-%dT00:00:00Z")


def _write_key(path: Path, comment: str) -> PublicKey:
    key = new_signing_key()
    _write(path, key.private_bytes(), 0o600)
    _write(path.with_suffix(".pub"), f"{key.public.line} {comment}\n".encode(), 0o644)
    return key.public


def _write(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _write_last(path: Path, data: bytes) -> None:
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    _write(new, data, 0o600)
    new.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
