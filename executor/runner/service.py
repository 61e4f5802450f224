"""The executor's core: every call that its face can make, without a word of how calls arrive."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from executor.domain.errors import NotFoundError
from executor.domain.policy import Trust
from executor.domain.receipt import Receipt
from executor.domain.sealed import SealedBytes
from executor.runner.clock import EffectiveClock
from executor.runner.documents import OpenDocuments
from executor.runner.dry_runs import Admission, DryRuns
from executor.runner.executions import AnyRun, Executions
from executor.runner.gates import Gates
from executor.runner.keyring import DocumentSigner, Keyring
from executor.runner.ports import (
    Capabilities,
    Documents,
    Executioner,
    FindDrift,
    Ledger,
    Objects,
    Recovery,
    Simulator,
)
from executor.runner.receipts import Issuer
from executor.runner.requests import ExecuteInput, RequestDesk, malformed
from executor.runner.retention import Retention, Sweeper
from executor.runner.run import Recorder
from executor.workspace.workspace import Workspace
from gonogo.digests import is_digest

OBJECT_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Who this executor is."""

    trust: Trust
    public_key: str
    ledger_epoch: str
    capabilities: Capabilities


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the core is made of; bootstrap chooses."""

    trust: Trust
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


class ExecutorCore:
    """All that the executor does. Every method may be called from any thread; those that work take the caller's."""

    def __init__(self, parts: Parts) -> None:
        clock = EffectiveClock(parts.ledger.clock_high_water())
        documents = OpenDocuments(parts.documents)
        issuer = Issuer(
            trust=parts.trust,
            epoch=parts.ledger.epoch,
            documents=parts.documents,
            signer=parts.signer,
            now=clock.now,
        )
        desk = RequestDesk()
        standings = {one.workspace_id: one for one in parts.capabilities.workspaces}
        self._objects = parts.objects
        self._ledger = parts.ledger
        self._sweeper = None if parts.retention is None else Sweeper(parts.retention)
        self._dry_runs = DryRuns(
            trust=parts.trust,
            ledger=parts.ledger,
            documents=documents,
            issuer=issuer,
            workspaces=parts.workspaces,
            simulator=parts.simulator,
            standings=standings,
            admission=Admission(parts.trust.policy.max_dry_runs),
            desk=desk,
        )
        self._executions = Executions(
            gates=_gates(parts, documents, clock),
            ledger=parts.ledger,
            documents=documents,
            issuer=issuer,
            workspaces=parts.workspaces,
            executioner=parts.executioner,
            recovery=parts.recovery,
            desk=desk,
            standings=standings,
        )
        self._description = Description(
            trust=parts.trust,
            public_key=parts.signer.public_key,
            ledger_epoch=parts.ledger.epoch,
            capabilities=parts.capabilities,
        )

    def start(self) -> tuple[Receipt, ...]:
        """Settle what a former process left behind; before the first request is served."""
        receipts = self._executions.start()
        if self._sweeper is not None:
            self._sweeper.start()
        return receipts

    def drain(self, seconds: float) -> bool:
        """Wait for what runs; returns whether all of it ended in time."""
        return self._executions.drain(seconds)

    def close(self) -> None:
        """End the background work."""
        if self._sweeper is not None:
            self._sweeper.close()
        self._executions.close()

    def describe(self) -> Description:
        """Tell who this executor is."""
        return self._description

    def dry_run(self, request_id: str, plan: SealedBytes, attached: Callable[[Recorder], None]) -> SealedBytes:
        """Dry run a plan in the caller's thread and return the sealed report; `attached` gets its events.

        Raises:
            RequestMalformedError: the request or the plan can not be run here.
            ExecutorError: the dry run could not be made.
        """
        return self._dry_runs.run(request_id, plan, attached)

    def execute(self, request: ExecuteInput, attached: Callable[[AnyRun], None]) -> AnyRun:
        """Check the gates and carry the mission out in the caller's thread.

        Raises:
            RefusedError: nothing was done; it carries the signed refusal.
        """
        return self._executions.execute(request, attached)

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
        """
        if not is_digest(digest):
            raise malformed("that is not a digest", "name an object as sha256: and 64 hex digits")
        size = self._objects.size(digest)
        if offset > size:
            raise malformed(f"offset {offset} is behind the object's end, {size}", "begin inside the object")
        return self._objects.read(digest, offset, min(limit or OBJECT_BYTES, OBJECT_BYTES)), size


def _gates(parts: Parts, documents: OpenDocuments, clock: EffectiveClock) -> Gates:
    return Gates(
        trust=parts.trust,
        keyring=Keyring(parts.trust),
        ledger=parts.ledger,
        documents=documents,
        workspaces=parts.workspaces,
        find_drift=parts.find_drift,
        now=clock.now,
    )
