"""The executor's core: every call that its face can make, without a word of how calls arrive."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from executor.domain.errors import ExecutorError, NotFoundError
from executor.domain.policy import Trust
from executor.domain.receipt import Receipt
from executor.domain.sealed import SealedBytes
from executor.runner.approvals import ApprovalGate, Continues, knows_no_checkpoint
from executor.runner.audit import Audit, Exchanged, Extract
from executor.runner.carrying_out import Carrier
from executor.runner.clock import EffectiveClock
from executor.runner.control import LOOK_SECONDS
from executor.runner.control_requests import ControlInput
from executor.runner.documents import OpenDocuments
from executor.runner.dry_runs import Admission, DryRuns
from executor.runner.executions import Executions
from executor.runner.flusher import Flusher
from executor.runner.gates import Gates
from executor.runner.handed_in import HandedIn, Spool
from executor.runner.keyring import DocumentSigner
from executor.runner.live_processes import LiveProcess, Processes
from executor.runner.orders import Executioner, Recovery
from executor.runner.ports import (
    Capabilities,
    Documents,
    FindDrift,
    Ledger,
    Objects,
    Revoked,
    Simulator,
    WorkspaceStanding,
)
from executor.runner.receipts import Issuer
from executor.runner.redacted import redacted_error
from executor.runner.refusal_pace import RefusalPace
from executor.runner.requests import ExecuteInput, RequestDesk, malformed
from executor.runner.restarts import Restarts
from executor.runner.retention import Retention, Sweeper
from executor.runner.revocations import Revocations
from executor.runner.run import Recorder
from executor.runner.running import Running
from executor.runner.secrets import Secrets
from executor.runner.signed_words import SignedWords
from executor.runner.stored_run import AnyRun
from executor.runner.trust import InForce, TrustInForce
from executor.runner.words import Words
from executor.workspace.workspace import Workspace
from gonogo.digests import is_digest

OBJECT_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Who this executor is."""

    in_force: InForce
    public_key: str
    ledger_epoch: str
    capabilities: Capabilities
    log_origin: str = ""
    """The name of the audit log."""

    @property
    def trust(self) -> Trust:
        """The trust file."""
        return self.in_force.trust


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the core is made of; bootstrap chooses."""

    trust: TrustInForce
    ledger: Ledger
    documents: Documents
    signer: DocumentSigner
    workspaces: Mapping[str, Workspace]
    simulator: Simulator
    find_drift: FindDrift
    executioner: Executioner
    recovery: Recovery
    objects: Objects
    capabilities: Capabilities
    retention: Retention | None = None
    """Without it nothing is ever let go of."""
    clock: EffectiveClock | None = None
    """Without it, one that begins at the ledger's high water."""
    continues: Continues = knows_no_checkpoint
    """Tells whether a checkpoint is of the own audit log's past."""
    spool: Spool | None = None
    """Where the executor's host hands in revocations."""
    audit: Audit | None = None
    """Without it nobody else gets to see the audit log."""
    secrets: Secrets = field(default_factory=Secrets)
    """What nobody gets to see."""
    processes: Processes | None = None
    """Without them there is no program that keeps running."""
    pace: RefusalPace = field(default_factory=RefusalPace)
    """How many refusals are recorded for one caller."""
    look_seconds: float = LOOK_SECONDS
    """How long a wait for a person lasts at most before the clock is asked again."""

    @property
    def standings(self) -> Mapping[str, WorkspaceStanding]:
        """The workspaces that are served, by their ids."""
        return {one.workspace_id: one for one in self.capabilities.workspaces}


class ExecutorCore:
    """All that the executor does. Every method may be called from any thread; those that work take the caller's."""

    def __init__(self, parts: Parts) -> None:
        clock = parts.clock or EffectiveClock(parts.ledger.clock_high_water())
        documents = OpenDocuments(parts.documents)
        issuer = Issuer(
            trust=parts.trust,
            epoch=parts.ledger.epoch,
            documents=parts.documents,
            signer=parts.signer,
            now=clock.now,
            redactor=lambda: parts.secrets.redactor,
        )
        desk = RequestDesk()
        self._objects = parts.objects
        self._ledger = parts.ledger
        self._sweeper = None if parts.retention is None else Sweeper(parts.retention)
        self._revocations = Revocations(
            in_force=parts.trust.last, ledger=parts.ledger, documents=parts.documents, now=clock.now
        )
        running = Running()
        self._dry_runs = _dry_runs(parts, documents, clock, issuer, desk, running)
        carrier = _carrier(parts, documents, clock, issuer, self._revocations, running)
        self._executions = Executions(
            gates=_gates(parts, documents, clock, self._revocations, running),
            carrier=carrier,
            restarts=Restarts(carrier=carrier, documents=documents, workspaces=parts.workspaces),
            desk=desk,
            workspaces=parts.workspaces,
            standings=parts.standings,
            check_caller=self.check_caller,
            pace=parts.pace,
        )
        self._handed_in = None if parts.spool is None else HandedIn(parts.spool, self.revoke)
        self._audit = parts.audit
        self._trust = parts.trust
        self._public_key = parts.signer.public_key
        self._capabilities = parts.capabilities
        self._secrets = parts.secrets
        self._processes = parts.processes

    def start(self) -> tuple[Receipt, ...]:
        """Settle what a former process left behind; before the first request is served."""
        receipts = self._executions.start()
        if self._handed_in is not None:
            self._handed_in.start()
        if self._sweeper is not None:
            self._sweeper.start()
        if self._audit is not None:
            self._audit.start()
        return receipts

    def drain(self, seconds: float) -> bool:
        """Wait for what runs; returns whether all of it ended in time."""
        return self._executions.drain(seconds)

    def close(self) -> None:
        """End the background work."""
        if self._handed_in is not None:
            self._handed_in.close()
        if self._sweeper is not None:
            self._sweeper.close()
        self._executions.close()
        if self._audit is not None:
            self._audit.close()

    def trust(self) -> Trust:
        """Return the last good trust file; each call asks for it, so nothing is put together here."""
        return self._trust.last().trust

    def describe(self) -> Description:
        """Tell who this executor is."""
        forked = () if self._audit is None else self._audit.callers.findings()
        unusable = self._trust.finding()
        findings = (*self._secrets.findings, *forked, *((unusable,) if unusable else ()))
        known = self._capabilities
        return Description(
            in_force=self._trust.last(),
            public_key=self._public_key,
            ledger_epoch=self._ledger.epoch,
            capabilities=replace(known, findings=(*known.findings, *findings)) if findings else known,
            log_origin="" if self._audit is None else self._audit.origin,
        )

    def dry_run(self, request_id: str, plan: SealedBytes, attached: Callable[[Recorder], None]) -> SealedBytes:
        """Dry run a plan in the caller's thread and return the sealed report; `attached` gets its events.

        Raises:
            RequestMalformedError: the request or the plan can not be run here.
            ExecutorError: the dry run could not be made.
        """
        try:
            return self._dry_runs.run(request_id, plan, attached)
        except ExecutorError as error:
            redacted_error(error, self._secrets.redactor)
            raise

    def execute(self, request: ExecuteInput, attached: Callable[[AnyRun], None]) -> AnyRun:
        """Check the gates and carry the mission out in the caller's thread.

        Raises:
            RefusedError: nothing was done; it carries the signed refusal.
        """
        return self._executions.execute(request, attached)

    def control(self, request: ControlInput) -> AnyRun:
        """Have an execution pause, go on or end, or take a signed word about a step; see `Executions.control`.

        Raises:
            ExecutorError: it was not taken, and has no effect.
        """
        return self._executions.control(request)

    def revoke(self, revocation: SealedBytes) -> Revoked:
        """Record a signed revocation or denial, and stop what runs on what it takes back.

        Raises:
            RequestMalformedError: not a revocation.
            GateRefusedError: not by somebody who may approve here, or for another executor.
        """
        return self._revocations.revoke(revocation)

    def check_caller(self, identity: str) -> None:
        """Refuse a caller whose own audit log has forked.

        Raises:
            ExecutorError: reason AUDIT_FORKED.
        """
        if self._audit is not None:
            self._audit.callers.check_caller(identity)

    def list_processes(self, mission_id: str = "") -> Sequence[LiveProcess]:
        """Return the programs that live steps have started to keep running; see `Processes.listed`."""
        return () if self._processes is None else self._processes.listed(mission_id)

    def stop_process(self, request_id: str, process_id: str, actor: str) -> LiveProcess:
        """End a program that keeps running; see `Processes.stop`.

        Raises:
            NotFoundError: there is no such program.
            RequestMalformedError: the request's id stands for another one.
            ExecutorError: it can not be ended.
        """
        if self._processes is None:
            raise NotFoundError(
                "NOT_FOUND", "there is no such program", "list the programs that keep running: gonogo processes"
            )
        return self._processes.stop(request_id, process_id, actor)

    def exchange_checkpoints(
        self, identity: str, checkpoint: str, consistency: Sequence[bytes], known_size: int
    ) -> Exchanged:
        """Take a caller's checkpoint of its own audit log and return this executor's; see `Audit.exchange`."""
        return self._audit_log().exchange(identity, checkpoint, consistency, known_size)

    def mission_log(self, mission_id: str) -> Extract:
        """Return the audit log's entries about a mission with their proofs.

        Raises:
            NotFoundError: there are none.
        """
        return self._audit_log().mission_log(mission_id)

    def _audit_log(self) -> Audit:
        if self._audit is None:
            raise NotFoundError("NOT_FOUND", "this executor shows no audit log", "start it with one")
        return self._audit

    def get_execution(self, *, execution_id: str = "", mission_id: str = "") -> AnyRun:
        """Return an execution to look at or to watch.

        Raises:
            NotFoundError: there is none.
        """
        return self._executions.find(execution_id=execution_id, mission_id=mission_id)

    def get_receipt(self, mission_id: str) -> SealedBytes:
        """Return a mission's receipt.

        Raises:
            NotFoundError: the mission was never executed, or still is.
        """
        receipt = self._ledger.receipt(mission_id)
        if receipt is None:
            raise NotFoundError(
                "NOT_FOUND", "there is no receipt of that mission", "execute the mission, or wait for its end"
            )
        return receipt

    def get_object(self, digest: str, offset: int, limit: int) -> tuple[bytes, int]:
        """Return a part of an object, at most one MiB, and the length of the whole.

        Raises:
            RequestMalformedError: not a digest, or an offset behind the end.
            NotFoundError: there is no such object.
            ExecutorError: reason SECRET_EXPOSED; it was kept before the executor knew the secret that it holds.
        """
        if not is_digest(digest):
            raise malformed("that is not a digest", "name an object as sha256: and 64 hex digits")
        size = self._objects.size(digest)
        if offset > size:
            raise malformed(f"offset {offset} is behind the object's end, {size}", "begin inside the object")
        length = min(limit or OBJECT_BYTES, OBJECT_BYTES)
        self._check_shown(digest, offset, length)
        return self._objects.read(digest, offset, length), size

    def _check_shown(self, digest: str, offset: int, length: int) -> None:
        redactor = self._secrets.redactor
        if not redactor:
            return
        start = max(0, offset - redactor.overlap)
        secret = redactor.find(self._objects.read(digest, start, offset + length + redactor.overlap - start))
        if secret is not None:
            raise ExecutorError(
                "SECRET_EXPOSED",
                f"the object holds secret {secret}",
                "make the dry run again; what holds a secret is not kept any more",
            )


def _dry_runs(
    parts: Parts,
    documents: OpenDocuments,
    clock: EffectiveClock,
    issuer: Issuer,
    desk: RequestDesk,
    running: Running,
) -> DryRuns:
    return DryRuns(
        trust=parts.trust,
        clock=clock,
        ledger=parts.ledger,
        documents=documents,
        issuer=issuer,
        workspaces=parts.workspaces,
        simulator=parts.simulator,
        standings=parts.standings,
        admission=Admission(lambda: parts.trust.limits().max_dry_runs),
        desk=desk,
        paused=running,
    )


def _carrier(
    parts: Parts,
    documents: OpenDocuments,
    clock: EffectiveClock,
    issuer: Issuer,
    revocations: Revocations,
    running: Running,
) -> Carrier:
    words = Words(trust=parts.trust.current, ledger=parts.ledger, documents=documents, clock=clock)
    return Carrier(
        executioner=parts.executioner,
        recovery=parts.recovery,
        ledger=parts.ledger,
        issuer=issuer,
        flusher=Flusher(parts.ledger),
        revocations=revocations,
        running=running,
        words=SignedWords(words=words, ledger=parts.ledger, documents=documents),
        look_seconds=parts.look_seconds,
    )


def _gates(
    parts: Parts, documents: OpenDocuments, clock: EffectiveClock, revocations: Revocations, running: Running
) -> Gates:
    return Gates(
        trust=parts.trust.current,
        approvals=ApprovalGate(
            ledger=parts.ledger,
            documents=documents,
            deny=revocations.record,
            continues=parts.continues,
        ),
        ledger=parts.ledger,
        documents=documents,
        workspaces=parts.workspaces,
        find_drift=parts.find_drift,
        clock=clock,
        paused=running,
    )
