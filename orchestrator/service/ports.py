"""What the orchestrator's use cases need from outside, as contracts. The event log's is in `event_log`."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from gonogo.policy import Policy
from orchestrator.domain.control import ExecutionState, LiveProcess
from orchestrator.domain.events import ControlAction, Event, FailureDetected, Payload
from orchestrator.domain.evidence import (
    ApprovalFacts,
    ExecutorInfo,
    ReceiptFacts,
    ReconciliationFacts,
    RefusalFacts,
    ReportFacts,
    Sealed,
    StepApprovalFacts,
)
from orchestrator.domain.findings import Findings
from orchestrator.domain.mission import Mission
from orchestrator.domain.plan import Plan, PlanDraft, Scope
from orchestrator.service.audit_log import Exchanged, LogExtract
from orchestrator.service.event_log import NewEvent, StoredEvent


class Clock(Protocol):
    """Tells the time in UTC. It may be set back; nothing relies on it going forwards."""

    def now(self) -> datetime: ...


class Ids(Protocol):
    """Makes ids: a prefix such as ``m-`` and twenty characters that sort by the time they were made."""

    def new(self, prefix: str) -> str: ...


class EventCodec(Protocol):
    """Turns events into rows of the log and back; what it can not read it refuses with `ContractError`."""

    def encode(self, payload: Payload, *, time: datetime, actor: str) -> NewEvent: ...

    def decode(self, stored: StoredEvent) -> Event: ...


class Documents(Protocol):
    """Writes plans, and reads what others sealed.

    What persons sign is read strictly: only the one text of such a document passes. Reports, receipts and refusals come
    from the executor over a channel that proves who it is; of them only the named facts are read, and whoever acts on
    the bytes (the approver's client, the executor) reads them strictly and checks the signatures.

    Every method raises `ContractError` when the document is not what it must be.
    """

    def seal_plan(self, plan: Plan) -> Sealed: ...

    def open_plan(self, sealed: Sealed) -> PlanDraft:
        """Return what a sealed plan asks for, without the ids of the mission it was made for."""
        ...

    def scope_of(self, plan: Sealed) -> Scope:
        """Return the scope of a plan that this service sealed."""
        ...

    def open_report(self, sealed: Sealed) -> ReportFacts: ...

    def open_approval(self, sealed: Sealed) -> ApprovalFacts: ...

    def open_findings(self, report: Sealed) -> Findings:
        """Return what a report says step by step."""
        ...

    def open_step_approval(self, sealed: Sealed) -> StepApprovalFacts: ...

    def open_reconciliation(self, sealed: Sealed) -> ReconciliationFacts: ...

    def open_receipt(self, sealed: Sealed) -> ReceiptFacts: ...

    def words_of(self, receipt: Sealed) -> tuple[str, ...]:
        """Return the digests of the signed words about single steps that a receipt names."""
        ...

    def open_refusal(self, sealed: Sealed) -> RefusalFacts: ...

    def open_policy(self, sealed: Sealed) -> Policy:
        """Return the executor's policy; it is opened strictly, once for as long as it is in force."""
        ...

    def names_object(self, report: Sealed, digest: str) -> bool:
        """Tell whether a report names an object by its digest."""
        ...

    def verify(self, sealed: Sealed, public_key: str) -> None:
        """Check the document's only signature by a key in OpenSSH's one-line form."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionOrder:
    """Everything the executor asks for before it acts."""

    request_id: str
    mission_id: str
    workspace_id: str
    executor_id: str
    intent_id: str
    plan: Sealed
    report: Sealed
    approvals: tuple[Sealed, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlOrder:
    """What somebody wants of an execution that was claimed."""

    request_id: str
    mission_id: str
    action: ControlAction
    actor: str
    reason: str = ""
    roll_back: bool = False
    document: Sealed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionUpdate:
    """A part of an execution's stream; only the last has the receipt."""

    events: tuple[Event, ...]
    resume_token: str
    receipt: Sealed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectPart:
    data: bytes
    total_bytes: int


class Executor(Protocol):
    """The isolated executor.

    It decides by itself whether anything happens. `execute` is answered once per mission: a mission that its ledger
    holds is refused with ALREADY_EXECUTED or ALREADY_CLAIMED, and `watch` then tells what became of it. Leaving a
    stream stops nothing on the other side. Event sequences in a stream count from 1 without a gap.

    Every call raises `ExecutorUnavailableError` when the executor can not be reached or the connection breaks, then it
    is unknown whether the request arrived; `ExecutorRefusedError` when the executor says no; and `ContractError` when
    its answer is not one.
    """

    async def describe(self) -> ExecutorInfo: ...

    async def dry_run(self, request_id: str, plan: Sealed) -> Sealed:
        """Run a plan in a copy of its workspace and return the sealed report."""
        ...

    def execute(self, order: ExecutionOrder) -> AsyncGenerator[ExecutionUpdate, None]: ...

    def watch(self, mission_id: str, resume_token: str) -> AsyncGenerator[ExecutionUpdate, None]:
        """Follow a claimed mission's execution after a token; an empty token asks for all of it."""
        ...

    async def execution(self, mission_id: str) -> ExecutionState | None:
        """Return how a mission's execution stands, or None where the executor never claimed it."""
        ...

    async def control(self, order: ControlOrder) -> ExecutionState:
        """Have an execution pause, go on or stop, or hand in a signed word; return how it stands then.

        The same request id with the same wish gets the first answer and does nothing more, also after a restart of
        either side. What comes of it is told by the execution's stream.
        """
        ...

    async def processes(self, mission_id: str) -> tuple[LiveProcess, ...]:
        """Return the programs that keep running, of one mission or (empty) of all; the newest first."""
        ...

    async def stop_process(self, request_id: str, process_id: str, actor: str) -> LiveProcess:
        """End a program and all that it started; ending one that has ended changes nothing."""
        ...

    async def read_object(self, digest: str, offset: int, limit: int) -> ObjectPart: ...

    async def exchange(self, checkpoint: str, consistency: tuple[bytes, ...], known_size: int) -> Exchanged:
        """Hand in a checkpoint of ours and get the executor's newest one.

        Args:
            checkpoint: our newest as a signed note; empty only asks.
            consistency: proof that it continues the one that the executor keeps.
            known_size: size of the executor's checkpoint that is kept here; the answer's proof begins there.
        """
        ...

    async def mission_log(self, mission_id: str) -> LogExtract | None:
        """Return the leaves of the executor's audit log that are about a mission, or None where there are none."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairCase:
    """Something that went wrong, with all that is known of it."""

    mission: Mission
    """Proposed: its dry run came to no success. Paused: `mission.pause` says why its execution waits."""
    plan: PlanDraft
    """What was tried: the plan of the dry run, or of the segment that the execution is in, with its step ids."""
    findings: Findings
    """That plan's report."""
    failure: FailureDetected | None
    """What went wrong in the execution; None where nothing did, or it was a dry run."""
    output: str
    """The end of what the step that failed printed in the execution; empty in a dry run, whose output is a finding."""
    standing: frozenset[str]
    """Ids of the steps that are committed and not undone; empty for a dry run."""
    read_object: Callable[[str], Awaitable[bytes]]
    """Returns the bytes behind a digest of the findings; raises `OrchestratorError` where they can not be had."""
    max_content_bytes: int
    """The largest content that the executor takes in one typed step."""


class RepairProposer(Protocol):
    """Makes a plan that repairs what went wrong. What it proposes is only a proposal: it is dry-run and approved."""

    async def propose(self, case: RepairCase) -> PlanDraft | None:
        """Return the rest of the work, or None where nothing sensible can be said.

        The draft is for the workspace as it stands: for an execution with the steps in `standing` done and all others
        not, for a dry run with nothing done. Its scope is that of the mission's first plan, whatever it says. Step ids
        may stay unset. `objective` says what the plan does and why, in one line; it is shown to the person.
        """
        ...
