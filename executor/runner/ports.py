"""What the runner needs from the outside: documents, a ledger, the two machines that run plans, and recovery.

All calls are synchronous and made from worker threads. Whoever implements a port keeps its own locks.
"""

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from executor.domain.approval import Approval
from executor.domain.control import Reconciliation, StepApproval
from executor.domain.events import Payload
from executor.domain.ladder import LadderLevel
from executor.domain.plan import FailurePolicy, Plan
from executor.domain.receipt import (
    ApprovalRecord,
    EffectRecord,
    ExecutionResult,
    GateRecord,
    Outcome,
    Receipt,
    Refusal,
)
from executor.domain.report import Notice, Problem, Report, ReportStatus, RiskFact, RiskLevel, SelfApproval, StepReport
from executor.domain.revocation import Revocation, RevocationRecord
from executor.domain.sealed import SealedBytes
from executor.runner.control_ports import ControlEntry, EffectClaim, EffectEntry
from executor.workspace.workspace import Workspace
from gonogo.policy import Demand, Policy, Proposer

Emit = Callable[[Payload], None]


def nothing() -> None:
    """Do nothing: there is nothing to let go of, and nothing to stop for."""


class Documents(Protocol):
    """Reads and writes the bodies of sealed documents; the only place that knows their text.

    Opening is strict: exactly one text stands for a document. Verify the digest or the signature of a body first.
    Every `open_…` raises RequestMalformedError (reason MALFORMED) for anything else, and nothing but that.
    """

    def open_plan(self, body: bytes) -> Plan: ...

    def open_report(self, body: bytes) -> Report: ...

    def open_approval(self, body: bytes) -> Approval: ...

    def open_revocation(self, body: bytes) -> Revocation: ...

    def open_step_approval(self, body: bytes) -> StepApproval: ...

    def open_reconciliation(self, body: bytes) -> Reconciliation: ...

    def seal_report(self, report: Report) -> bytes: ...

    def seal_receipt(self, receipt: Receipt) -> bytes: ...

    def seal_refusal(self, refusal: Refusal) -> bytes: ...

    def seal_policy(self, policy: Policy) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What the simulator itself found; the report adds who, when and under which rules."""

    status: ReportStatus
    problems: tuple[Problem, ...]
    steps: tuple[StepReport, ...]
    base_fingerprint: str
    after_fingerprint: str
    manifest_digest: str
    risk_level: RiskLevel
    risk_facts: tuple[RiskFact, ...]
    small_objects: Mapping[str, bytes]
    """Contents by digest that are stored in one transaction with the report; larger ones are durable already."""
    ladder_level: LadderLevel
    notices: tuple[Notice, ...] = ()


class Simulator(Protocol):
    """Runs a plan on a throw-away copy. It changes nothing and emits the events after `dry_run_started`."""

    def run(self, plan: Plan, workspace: Workspace, emit: Emit) -> Simulation:
        """Run it.

        Raises:
            ExecutorError: the dry run could not be made at all. A plan that does not work is a Simulation
                with a status, not an error.
        """
        ...


class FindDrift(Protocol):
    """Compares the workspace with the base of a report; changes nothing."""

    def __call__(self, plan: Plan, report: Report, workspace: Workspace) -> tuple[bytes, ...]:
        """Return the paths that differ, none where nothing drifted.

        Raises:
            DriftError: it differs where no list of paths can say how.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened in an execution, numbered from 1 without a gap."""

    event_id: str
    mission_id: str
    sequence: int
    time: datetime
    payload: Payload


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """That one mission now belongs to one execution: what the ledger holds before any effect."""

    mission_id: str
    segment: int
    execution_id: str
    intent_id: str
    message_id: str
    transcription_id: str
    plan_id: str
    plan_digest: str
    report_digest: str
    workspace_id: str
    approvals: tuple[ApprovalRecord, ...]
    nonces: tuple[str, ...]
    self_approval: SelfApproval
    policy_digest: str
    claimed_at: datetime
    failure_policy: FailurePolicy
    targets: tuple[str, ...]
    """What each of the plan's steps is about, in the plan's order: recovery has no plan to look it up in."""
    gates: tuple[GateRecord, ...] = ()
    proposer: Proposer | None = None
    demand: Demand | None = None
    """What the gates saw, for the receipt; claims of an older release have none of it."""
    journal_digest: str = ""
    """Of a later segment: what the execution had done when its plan was sealed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One step that an ended execution has left committed, and from which slot it can be undone."""

    slot: str
    execution_id: str
    mission_id: str
    step_id: str
    workspace_id: str
    kept_at: datetime
    size: int
    """Bytes of the old objects in the slot."""
    record: bytes
    """What `executor.workspace.record.Applied` encodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How an execution ended, and what is left to do once its receipt is durable."""

    result: ExecutionResult
    checkpoints: tuple[Checkpoint, ...] = ()
    let_go: Callable[[], None] = nothing
    """Lets go of the journal's records and of the slots that nobody needs. It may be called again, and raises nothing:
    what it can not do, the next start does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """A request that was answered, or whose execution was claimed."""

    request_id: str
    kind: str
    """"dry_run", "execute" or "control"."""
    body_digest: str
    reference: str
    """A report's digest or an execution's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionRecord:
    """How an execution stands in the ledger."""

    execution_id: str
    mission_id: str
    claimed_at: datetime
    ended_at: datetime | None
    outcome: Outcome | None
    last_sequence: int

    @property
    def ended(self) -> bool:
        """Whether the receipt is there."""
        return self.outcome is not None


class Standing(enum.Enum):
    """What the ledger knows about a mission."""

    FREE = "free"
    CLAIMED = "claimed"
    EXECUTED = "executed"


class ClaimConflict(enum.Enum):
    """Why a claim was not taken. Nothing was written then."""

    MISSION_CLAIMED = "mission_claimed"
    MISSION_EXECUTED = "mission_executed"
    APPROVAL_USED = "approval_used"
    REVOKED = "revoked"
    """The mission was denied, or one of the approvals withdrawn."""
    OUT_OF_ORDER = "out_of_order"
    """No execution of this mission and id is under way whose next segment it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Revoked:
    """What a revocation came to."""

    record: RevocationRecord
    """The first that said so; a later one adds nothing."""
    in_time: bool
    """The mission had not been claimed."""
    stopping: bool
    """An execution that stands on what was taken back has not ended."""


class Ledger(Protocol):
    """The executor's durable memory, and what makes "once" true.

    A method that returns has made its writes durable, all of them or none. The key of an execution is (mission,
    segment): of any number of claims for one key, by threads or processes, exactly one is taken, for ever.
    Every method raises StoreError where the storage fails or is full, and has written nothing then.
    """

    @property
    def epoch(self) -> str:
        """Names this ledger's life; made once, when the ledger is."""
        ...

    def clock_high_water(self) -> datetime:
        """Return the latest time that any write carried."""
        ...

    def request(self, request_id: str) -> RequestRecord | None: ...

    def standing(self, mission_id: str, segment: int = 0) -> Standing: ...

    def issue_report(
        self,
        report: Report,
        sealed: SealedBytes,
        *,
        request: RequestRecord,
        small_objects: Mapping[str, bytes],
    ) -> None:
        """Record a report with its small objects and the request it answers, as one commit."""
        ...

    def report_epoch(self, digest: str) -> str | None:
        """Return the epoch in which a report was issued, or None where this ledger never saw it."""
        ...

    def issued_report(self, digest: str) -> SealedBytes | None: ...

    def small_object(self, digest: str) -> bytes | None: ...

    def claim(self, claim: Claim, request: RequestRecord, plan: SealedBytes) -> ClaimConflict | None:
        """Take the mission, or the next segment of its execution, its approvals and the request as one commit.

        Whether something was taken back is decided in that same commit, as is, for a later segment, that the execution
        has not ended and that all earlier segments are there.

        Args:
            claim: what is claimed; a later segment's carries the execution id of the first.
            request: the request that it answers.
            plan: kept, so that a pause can be restored.

        Returns:
            Why it was not taken; None where it was.
        """
        ...

    def claims_of(self, execution_id: str) -> tuple[Claim, ...]:
        """Return what an execution claimed, segment by segment; nothing of one that is not here."""
        ...

    def plan_of(self, execution_id: str, segment: int) -> SealedBytes | None:
        """Return the plan of a segment; None where it was never kept, or the execution ended long ago."""
        ...

    def record_control(self, entry: ControlEntry) -> ControlEntry | None:
        """Record what somebody has an execution do, and use up the document that says so, as one commit.

        Returns:
            None where it is recorded now; else what was recorded under that request id, whatever its body.

        Raises:
            RequestMalformedError: reason REQUEST_REUSED; the request id is a dry run's or an execution's.
            GateRefusedError: reason NOT_APPROVED; the document's id or nonce was used up before.
        """
        ...

    def word_used(self, document_id: str, nonce: str) -> bool:
        """Tell whether an approval or another signed word with that id or nonce was used up."""
        ...

    def controls(self, execution_id: str) -> tuple[ControlEntry, ...]:
        """Return what was recorded, in the order of it."""
        ...

    def unheeded_control(self, mission_id: str) -> ControlEntry | None:
        """Return a control that is the last thing recorded of a mission: no event, effect or claim came after it."""
        ...

    def claim_effect(self, claim: EffectClaim) -> None:
        """Record that an effect is about to happen. An effect id is taken once, for ever; else it is a StoreError.

        Where an anchor is kept it was given the claim when this returns; `before_effects` waits until it has it.
        """
        ...

    def settle_effect(self, effect_id: str, record: EffectRecord, at: datetime) -> None:
        """Record what came of an effect.

        One that is settled is settled again only by a person's reconciliation of an UNKNOWN one, or where its
        compensation was begun; anything else is a StoreError. The same record once more changes nothing.
        """
        ...

    def effects(self, execution_id: str) -> tuple[EffectEntry, ...]:
        """Return an execution's effects in the order in which they were claimed."""
        ...

    def revoke(self, record: RevocationRecord) -> Revoked:
        """Record what somebody took back, as one commit; said once more it changes nothing.

        Of a revocation and a claim of its mission one is first: either the claim is refused, or `stopping` is true.
        """
        ...

    def revocations(self, mission_id: str) -> tuple[RevocationRecord, ...]:
        """Return what was taken back of a mission."""
        ...

    def append_events(self, execution_id: str, events: Sequence[Event]) -> None: ...

    def finish(
        self,
        execution_id: str,
        *,
        outcome: Outcome,
        ended_at: datetime,
        receipt: SealedBytes,
        events: Sequence[Event],
        checkpoints: Sequence[Checkpoint] = (),
    ) -> None:
        """Record the end of an execution with its receipt, last events and checkpoints, as one commit.

        Only the first end counts; a second one is a StoreError.
        """
        ...

    def checkpoints(self, mission_id: str) -> tuple[Checkpoint, ...]:
        """Return what a mission has left to be undone, in the order in which it was committed."""
        ...

    def checkpoints_before(
        self, moment: datetime, *, after: Checkpoint | None = None, limit: int = 100
    ) -> tuple[Checkpoint, ...]:
        """Return checkpoints that were kept before a moment, the oldest first; the next ones after a last one."""
        ...

    def has_checkpoint(self, slot: str) -> bool: ...

    def forget_checkpoint(self, slot: str) -> None:
        """Forget a checkpoint whose slot was removed; one that is not there is no error."""
        ...

    def trust_seen(self) -> tuple[int, str] | None:
        """Return the version and the digest of the newest trust file that was ever in force; None before the first."""
        ...

    def see_trust(self, version: int, digest: str, policy_digest: str, at: datetime) -> None:
        """Keep that a trust file comes into force, for ever and in the audit log, before anything is decided by it.

        A version that is not higher than the newest changes nothing, so that none can ever be forgotten.
        """
        ...

    def record_refusal(self, refusal: Refusal, sealed: SealedBytes) -> None:
        """Record a refusal and its event, as one commit."""
        ...

    def execution(self, *, execution_id: str = "", mission_id: str = "") -> ExecutionRecord | None: ...

    def events(self, execution_id: str, after: int) -> tuple[Event, ...]: ...

    def receipt(self, mission_id: str) -> SealedBytes | None: ...

    def unfinished(self) -> tuple[Claim, ...]:
        """Return the first claim of each execution without a receipt: that runs or waits, or whose process died."""
        ...


class Objects(Protocol):
    """Contents by digest. An unknown digest raises NotFoundError."""

    def size(self, digest: str) -> int: ...

    def read(self, digest: str, offset: int, limit: int) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One capability that the self-test at the start tried."""

    name: str
    ok: bool
    detail: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkspaceStanding:
    """One workspace, the level of its dry runs, and what keeps it from more."""

    workspace_id: str
    ladder_level: LadderLevel
    limitation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What the self-test found."""

    ladder_level: LadderLevel
    findings: tuple[Finding, ...]
    workspaces: tuple[WorkspaceStanding, ...]
