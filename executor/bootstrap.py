"""Puts the executor together from its settings; the one place that knows which class stands behind which port."""

import fcntl
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
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
from executor.domain.policy import Trust
from executor.machines import Machines
from executor.outside_world import Outside
from executor.runner.audit import Audit, LogSigner
from executor.runner.clock import EffectiveClock, wall_time
from executor.runner.drift import FindDrift
from executor.runner.kept_steps import LedgerSteps
from executor.runner.keyring import DocumentSigner
from executor.runner.log_redaction import keep_out_of_log
from executor.runner.recovery import JournalRecovery
from executor.runner.retention import Retention
from executor.runner.secrets import Secrets
from executor.runner.service import ExecutorCore, Parts
from executor.runner.trust import InForce, TrustInForce, in_force
from executor.settings import Settings, SettingsError
from executor.workspace.objects import ObjectStore
from gonogo.notes import EXECUTOR, log_origin
from gonogo.signatures import SignatureError, SigningKey, load_signing_key


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """What the executor remembers and believes: ledger, anchor, audit log, clock, trust file, secrets."""

    ledger: SqliteLedger
    anchor: Anchor
    audit: Audit
    clock: EffectiveClock
    trust: TrustInForce
    watch: TrustWatch
    secrets: Secrets


def build_core(settings: Settings, closing: ExitStack) -> ExecutorCore:
    """Build the core and settle what a former process left behind.

    Args:
        settings: where everything is.
        closing: gets what must be closed at the end.

    Raises:
        ExecutorError: it can not start; the remedy says what to change.
    """
    key = _signing_key(settings.signing_key)
    _lock_state(settings.own, closing)
    record = _record(settings, key, closing)
    objects = ObjectStore(settings.own / "objects", record.ledger.small_object)
    objects.clean()
    machines = Machines.open(settings, record.trust, objects, closing)
    outside = Outside.open(
        settings,
        trust=record.trust,
        secrets=record.secrets,
        ledger=record.ledger,
        objects=objects,
        probed=machines.probed,
        closing=closing,
    )
    core = ExecutorCore(_parts(settings, key, record, machines, outside))
    core.start()
    closing.callback(core.close)
    record.watch.start()
    closing.callback(record.watch.close)
    return core


def _record(settings: Settings, key: SigningKey, closing: ExitStack) -> _Record:
    ledger, anchor, log_signer = _ledger(settings, key, closing)
    clock = EffectiveClock(ledger.clock_high_water())
    prepare = partial(in_force, documents=WireDocuments(), signer=DocumentSigner(key))
    trust, watch = _trust(settings, AnchoredTrust(ledger=ledger, anchor=anchor), prepare, clock)
    wishes = ForgetSpool(settings.forget_spool).waiting
    return _Record(
        ledger=ledger,
        anchor=anchor,
        audit=Audit(ledger, log_signer, log_key_of=partial(_log_key, trust), now=clock.now, wishes=wishes),
        clock=clock,
        trust=trust,
        watch=watch,
        secrets=_secrets(trust, settings, closing),
    )


def _parts(settings: Settings, key: SigningKey, record: _Record, machines: Machines, outside: Outside) -> Parts:
    ledger, trust, secrets, now = record.ledger, record.trust, record.secrets, record.clock.now
    objects, workspaces = machines.objects, machines.workspaces
    kept_steps = LedgerSteps(ledger=ledger, objects=objects, lifetime=trust.checkpoint_lifetime, now=now)
    return Parts(
        trust=trust,
        ledger=ledger,
        documents=WireDocuments(),
        signer=DocumentSigner(key),
        workspaces=workspaces,
        simulator=machines.simulator(trust, kept_steps, secrets, outside.far_sides, outside.dry_run_network),
        find_drift=FindDrift(objects=objects, redactor=lambda: secrets.redactor),
        executioner=machines.executioner(trust, record.anchor.settle, secrets, outside.far_sides, outside.network),
        recovery=JournalRecovery(workspaces=workspaces, objects=objects, ledger=ledger),
        objects=objects,
        capabilities=machines.capabilities(),
        clock=record.clock,
        audit=record.audit,
        continues=record.audit.holds,
        spool=RevocationSpool(settings.spool),
        secrets=secrets,
        processes=outside.processes,
        retention=Retention(
            records=ledger,
            objects=objects,
            workspaces=workspaces,
            limits=trust.limits,
            now=now,
            texts=outside.bodies,
        ),
    )


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


def _secrets(trust: TrustInForce, settings: Settings, closing: ExitStack) -> Secrets:
    """Read the secrets of the trust file, now and whenever it changes, and keep them out of the log from now on."""
    secrets = Secrets(trust.last().trust.secrets, workspaces=list(settings.workspaces.values()))
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
