"""Puts the executor together from its settings; the one place that knows which class stands behind which port."""

import fcntl
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from executor.adapters.anchor import Anchor
from executor.adapters.audit_check import check_at_start
from executor.adapters.epochs import begin
from executor.adapters.forget_spool import ForgetSpool
from executor.adapters.ledger_sqlite import SqliteLedger
from executor.adapters.ledger_trust import AnchoredTrust
from executor.adapters.revocation_spool import RevocationSpool
from executor.adapters.trust_file import parse_trust, read_trust_bytes
from executor.adapters.trust_watch import TrustRecords, TrustWatch, admit
from executor.adapters.wire import WireDocuments
from executor.domain.errors import ExecutorError
from executor.domain.ladder import LadderLevel
from executor.domain.policy import Limits, Trust
from executor.runner.audit import Audit, LogSigner
from executor.runner.clock import EffectiveClock, wall_time
from executor.runner.drift import FindDrift
from executor.runner.execute import Executioner
from executor.runner.kept_steps import LedgerSteps
from executor.runner.keyring import DocumentSigner
from executor.runner.limited import LimitedExecutioner, LimitedSimulator
from executor.runner.log_redaction import keep_out_of_log
from executor.runner.ports import Capabilities, Finding, WorkspaceStanding
from executor.runner.recovery import JournalRecovery
from executor.runner.retention import Retention
from executor.runner.secrets import Secrets
from executor.runner.service import ExecutorCore, Parts
from executor.runner.simulate import Simulator
from executor.runner.trust import InForce, TrustInForce, in_force
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
from gonogo.notes import EXECUTOR, log_origin
from gonogo.signatures import SignatureError, SigningKey, load_signing_key

CHANGE_COUNT = 200_000
OUTPUT_BYTES = 1024 * 1024
PROCESSES = 512
OPEN_FILES = 1024

log = logging.getLogger(__name__)


def build_core(settings: Settings, closing: ExitStack) -> ExecutorCore:
    """Build the core and settle what a former process left behind.

    Args:
        settings: where everything is.
        closing: gets what must be closed at the end.

    Raises:
        ExecutorError: it can not start; the remedy says what to change.
    """
    key = _signing_key(settings.signing_key)
    signer, documents = DocumentSigner(key), WireDocuments()
    _lock_state(settings.own, closing)
    ledger, anchor, log_signer = _ledger(settings, key, closing)
    clock = EffectiveClock(ledger.clock_high_water())
    records = AnchoredTrust(ledger=ledger, anchor=anchor)
    trust, watch = _trust(settings, records, partial(in_force, documents=documents, signer=signer), clock)
    wishes = ForgetSpool(settings.forget_spool).waiting
    audit = Audit(ledger, log_signer, log_key_of=partial(_log_key, trust), now=clock.now, wishes=wishes)
    secrets = _secrets(trust, closing)
    objects = ObjectStore(settings.own / "objects", ledger.small_object)
    objects.clean()
    workspaces = _workspaces(settings, trust.limits(), closing)
    _use_limits(workspaces, trust.last().trust)
    trust.follow(partial(_use_limits, workspaces))
    cgroups = _cgroups(settings, closing)
    probed = _probe(settings, cgroups)
    sandbox = _sandbox(settings, probed, cgroups, closing)
    core = ExecutorCore(
        Parts(
            trust=trust,
            ledger=ledger,
            documents=documents,
            signer=signer,
            workspaces=workspaces,
            simulator=_simulator(
                sandbox,
                probed.level,
                objects,
                settings,
                LedgerSteps(ledger=ledger, objects=objects, lifetime=trust.checkpoint_lifetime, now=clock.now),
                trust,
                secrets,
            ),
            find_drift=FindDrift(objects=objects, redactor=lambda: secrets.redactor),
            executioner=_executioner(sandbox, objects, settings, trust, anchor.settle, secrets),
            recovery=JournalRecovery(workspaces=workspaces, objects=objects, ledger=ledger),
            objects=objects,
            capabilities=_capabilities(probed, workspaces, objects),
            clock=clock,
            audit=audit,
            continues=audit.holds,
            spool=RevocationSpool(settings.spool),
            secrets=secrets,
            retention=Retention(
                records=ledger,
                objects=objects,
                workspaces=workspaces,
                limits=trust.limits,
                now=clock.now,
            ),
        )
    )
    core.start()
    closing.callback(core.close)
    watch.start()
    closing.callback(watch.close)
    return core


def _signing_key(path: Path) -> SigningKey:
    try:
        return load_signing_key(path.read_bytes())
    except (OSError, SignatureError) as error:
        raise SettingsError(
            f"the executor's key {path} can not be read: {error}", "make it with: gonogo init"
        ) from error


def _ledger(settings: Settings, key: SigningKey, closing: ExitStack) -> tuple[SqliteLedger, Anchor, LogSigner]:
    """Open the ledger, make sure that its audit log is sound, and tie it to its anchor."""
    executor_id = parse_trust(read_trust_bytes(settings.trust_file)).executor_id
    log_signer = LogSigner(key, log_origin(EXECUTOR, executor_id))
    check_at_start(settings.ledger, log_signer)
    ledger = SqliteLedger(settings.ledger, sign_root=log_signer)
    closing.callback(ledger.close)
    anchor = Anchor(settings.anchor_of(executor_id))
    closing.callback(anchor.close)
    begin(ledger, anchor, path=settings.ledger, executor_id=executor_id, now=wall_time())
    return ledger, anchor, log_signer


def _log_key(trust: TrustInForce, identity: str) -> str:
    """Return the key of a caller's audit log; empty where the trust file names none."""
    callers = trust.last().trust.orchestrators
    return next((one.log_key for one in callers if one.identity == identity and one.log_key), "")


def _trust(
    settings: Settings, records: TrustRecords, prepare: Callable[[Trust], InForce], clock: EffectiveClock
) -> tuple[TrustInForce, TrustWatch]:
    """Take the trust file into force, unless it is an older one; and what looks at it from then on."""
    data = read_trust_bytes(settings.trust_file)
    trust = TrustInForce(admit(data, records, prepare, clock.now()), now=clock.now)
    watch = TrustWatch(settings.trust_file, data, records=records, in_force=trust, prepare=prepare, now=clock.now)
    return trust, watch


def _secrets(trust: TrustInForce, closing: ExitStack) -> Secrets:
    """Read the secrets of the trust file, now and whenever it changes, and keep them out of the log from now on."""
    secrets = Secrets(trust.last().trust.secrets)
    trust.follow(secrets.follow)
    closing.callback(keep_out_of_log(lambda: secrets.redactor))
    return secrets


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


def _workspaces(settings: Settings, limits: Limits, closing: ExitStack) -> dict[str, Workspace]:
    workspaces = {
        workspace_id: Workspace(
            workspace_id=workspace_id,
            root=path,
            staging=settings.staging_of(workspace_id),
            locks=settings.own / "locks",
            hidden=Globs(limits.hidden),
            volatile=Globs(limits.volatile),
            largest_file=limits.max_change_bytes,
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
    sandbox: Sandbox | None,
    level: LadderLevel,
    objects: ObjectStore,
    settings: Settings,
    kept_steps: LedgerSteps,
    trust: TrustInForce,
    secrets: Secrets,
) -> LimitedSimulator:
    def within(limits: Limits) -> Simulator:
        return Simulator(
            sandbox=sandbox,
            ladder_level=level,
            objects=objects,
            edit_limits=EditLimits(content_bytes=limits.max_content_bytes),
            copy_limits=_copy_limits(limits),
            tools=settings.tools,
            kept_steps=kept_steps,
            redactor=secrets.redactor,
        )

    return LimitedSimulator(limits=trust.limits, within=within)


def _executioner(
    sandbox: Sandbox | None,
    objects: ObjectStore,
    settings: Settings,
    trust: TrustInForce,
    before_effects: Callable[[], None],
    secrets: Secrets,
) -> LimitedExecutioner:
    def within(limits: Limits) -> Executioner:
        return Executioner(
            sandbox=sandbox,
            objects=objects,
            copy_limits=_copy_limits(limits),
            tools=settings.tools,
            before_effects=before_effects,
            redactor=secrets.redactor,
        )

    return LimitedExecutioner(limits=trust.limits, within=within)


def _use_limits(workspaces: Mapping[str, Workspace], trust: Trust) -> None:
    """Have the workspaces go by a trust file's limits, and say where it is about others, which may be a slip."""
    unserved = sorted(trust.workspaces - workspaces.keys())
    if unserved:
        log.warning("the trust file names workspaces that are not served here: %s", ", ".join(unserved))
    limits = trust.limits
    for workspace in workspaces.values():
        workspace.use(
            hidden=Globs(limits.hidden), volatile=Globs(limits.volatile), largest_file=limits.max_change_bytes
        )


def _copy_limits(limits: Limits) -> CopyLimits:
    return CopyLimits(
        change_bytes=limits.max_change_bytes,
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
