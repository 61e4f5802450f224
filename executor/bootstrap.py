"""Puts the executor together from its settings; the one place that knows which class stands behind which port."""

import fcntl
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from executor.adapters.ledger_sqlite import SqliteLedger
from executor.adapters.trust_file import read_trust_file
from executor.adapters.wire import WireDocuments
from executor.domain.errors import ExecutorError
from executor.domain.ladder import LadderLevel
from executor.domain.policy import Policy, Trust
from executor.runner.clock import EffectiveClock
from executor.runner.drift import FindDrift
from executor.runner.execute import Executioner
from executor.runner.kept_steps import LedgerSteps
from executor.runner.keyring import DocumentSigner
from executor.runner.ports import Capabilities, Finding, WorkspaceStanding
from executor.runner.recovery import JournalRecovery
from executor.runner.retention import Retention
from executor.runner.service import ExecutorCore, Parts
from executor.runner.simulate import Simulator
from executor.runner.working_copy import CopyLimits
from executor.sandbox.bubblewrap import Bubblewrap
from executor.sandbox.cgroups import Cgroups, find_hierarchies
from executor.sandbox.sandbox import Sandbox
from executor.sandbox.self_test import Probe, probe
from executor.settings import Settings, SettingsError
from executor.steps.edit import EditLimits
from executor.workspace.globs import Globs
from executor.workspace.objects import ObjectStore
from executor.workspace.staging import StagingUnavailableError
from executor.workspace.workspace import Workspace, check_placement
from gonogo.signatures import SignatureError, load_signing_key

CHANGE_COUNT = 200_000
OUTPUT_BYTES = 1024 * 1024
PROCESSES = 512
OPEN_FILES = 1024


def build_core(settings: Settings, closing: ExitStack) -> ExecutorCore:
    """Build the core and settle what a former process left behind.

    Args:
        settings: where everything is.
        closing: gets what must be closed at the end.

    Raises:
        ExecutorError: it can not start; the remedy says what to change.
    """
    trust = read_trust_file(settings.trust_file)
    signer = _signer(settings.signing_key)
    _lock_state(settings.own, closing)
    ledger = SqliteLedger(settings.own / "ledger.db")
    closing.callback(ledger.close)
    clock = EffectiveClock(ledger.clock_high_water())
    objects = ObjectStore(settings.own / "objects", ledger.small_object)
    objects.clean()
    workspaces = _workspaces(settings, trust.policy, closing)
    cgroups = _cgroups(settings, closing)
    probed = _probe(settings, cgroups)
    sandbox = _sandbox(settings, probed, cgroups, closing)
    core = ExecutorCore(
        Parts(
            trust=trust,
            ledger=ledger,
            documents=WireDocuments(),
            signer=signer,
            workspaces=workspaces,
            simulator=replace(
                _simulator(trust, sandbox, probed.level, objects, settings),
                kept_steps=LedgerSteps(
                    ledger=ledger, objects=objects, lifetime=trust.policy.checkpoint_lifetime, now=clock.now
                ),
            ),
            find_drift=FindDrift(objects=objects),
            executioner=Executioner(
                sandbox=sandbox, objects=objects, copy_limits=_copy_limits(trust.policy), tools=settings.tools
            ),
            recovery=JournalRecovery(workspaces=workspaces, objects=objects, ledger=ledger),
            objects=objects,
            capabilities=_capabilities(probed, workspaces, objects),
            retention=Retention(
                records=ledger, objects=objects, workspaces=workspaces, policy=trust.policy, now=clock.now
            ),
        )
    )
    core.start()
    closing.callback(core.close)
    return core


def _signer(path: Path) -> DocumentSigner:
    try:
        return DocumentSigner(load_signing_key(path.read_bytes()))
    except (OSError, SignatureError) as error:
        raise SettingsError(
            f"the executor's key {path} can not be read: {error}", "make it with: gonogo init"
        ) from error


def _lock_state(own: Path, closing: ExitStack) -> None:
    """Hold the state directory: a second executor on it would take running executions for dead ones."""
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(own / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    closing.callback(os.close, fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SettingsError(
            f"another executor runs on {own}", "end that one first, or give this one a state directory of its own"
        ) from None
    closing.callback(fcntl.flock, fd, fcntl.LOCK_UN)  # a child that is just being started may have the descriptor, too


def _workspaces(settings: Settings, policy: Policy, closing: ExitStack) -> dict[str, Workspace]:
    workspaces = {
        workspace_id: Workspace(
            workspace_id=workspace_id,
            root=path,
            staging=settings.staging_of(workspace_id),
            locks=settings.own / "locks",
            hidden=Globs(policy.hidden),
            volatile=Globs(policy.volatile),
            largest_file=policy.max_change_bytes,
        )
        for workspace_id, path in settings.workspaces.items()
    }
    check_placement(workspaces.values(), settings.state)
    for workspace in workspaces.values():
        closing.callback(workspace.close)
        workspace.open()
    return workspaces


def _cgroups(settings: Settings, closing: ExitStack) -> Cgroups | None:
    """Take what the machine delegates to this process; only where commands may run at all."""
    hierarchies = find_hierarchies() if settings.max_ladder_level.runs_commands else ()
    if not hierarchies:
        return None
    cgroups = Cgroups(hierarchies=hierarchies)
    cgroups.clean()
    closing.callback(cgroups.close)
    return cgroups


def _probe(settings: Settings, cgroups: Cgroups | None) -> Probe:
    """Try the sandbox on the filesystem that the first workspace's changes are staged on."""
    staging = settings.staging_of(next(iter(settings.workspaces))).resolve()
    if any(staging.is_relative_to(workspace.resolve()) for workspace in settings.workspaces.values()):
        staging = settings.own  # nothing is made inside a workspace; that it can not be staged in is said later
    staging.mkdir(mode=0o700, parents=True, exist_ok=True)
    return probe(staging, _scratch(settings), highest=settings.max_ladder_level, cgroups=cgroups)


def _sandbox(settings: Settings, probed: Probe, cgroups: Cgroups | None, closing: ExitStack) -> Sandbox | None:
    """Open the sandbox that the self-test found to work; the state's lock is held, so leftovers are nobody's."""
    if not probed.level.runs_commands:
        return None
    sandbox = Bubblewrap.on_this_machine(scratch=_scratch(settings), storage=probed.storage, cgroups=cgroups)
    sandbox.clean_scratch()
    closing.callback(sandbox.close)
    sandbox.keep_ready()
    return sandbox


def _scratch(settings: Settings) -> Path:
    return settings.own / "scratch"


def _simulator(
    trust: Trust, sandbox: Sandbox | None, level: LadderLevel, objects: ObjectStore, settings: Settings
) -> Simulator:
    return Simulator(
        sandbox=sandbox,
        ladder_level=level,
        objects=objects,
        edit_limits=EditLimits(content_bytes=trust.policy.max_content_bytes),
        copy_limits=_copy_limits(trust.policy),
        tools=settings.tools,
    )


def _copy_limits(policy: Policy) -> CopyLimits:
    return CopyLimits(
        change_bytes=policy.max_change_bytes,
        change_count=CHANGE_COUNT,
        output_bytes=OUTPUT_BYTES,
        processes=PROCESSES,
        open_files=OPEN_FILES,
    )


def _capabilities(probed: Probe, workspaces: Mapping[str, Workspace], objects: ObjectStore) -> Capabilities:
    return Capabilities(
        ladder_level=probed.level,
        findings=tuple(
            Finding(name=one.name, ok=one.ok, detail=one.detail, remedy=one.remedy) for one in probed.findings
        ),
        workspaces=tuple(_standing(probed, workspace, objects) for workspace in workspaces.values()),
    )


def _standing(probed: Probe, workspace: Workspace, objects: ObjectStore) -> WorkspaceStanding:
    """Open the workspace's staging now, so that no call pays for it and its fault is known from the start."""
    level, limitation = probed.level, probed.limitation
    try:
        workspace.committer(objects)
    except StagingUnavailableError as error:
        level, limitation = LadderLevel.L0, _told(error)
    return WorkspaceStanding(workspace_id=workspace.workspace_id, ladder_level=level, limitation=limitation)


def _told(error: ExecutorError) -> str:
    return f"{error.fault.message}; {error.fault.remedy}"
