"""Where a mission stands, as values: its status, and the state that its events are folded into."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from orchestrator.domain.control import Pause
from orchestrator.domain.evidence import Outcome, ReportStatus, RiskLevel


class MissionStatus(StrEnum):
    PROPOSED = "proposed"
    APPROVED = "approved"
    QUEUED = "queued"
    ACTIVE = "active"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    EXPIRED = "expired"


S = MissionStatus

ENDED: Final = frozenset({S.COMPLETED, S.FAILED, S.CANCELLED, S.REJECTED, S.EXPIRED})
"""Nothing leads out of these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantedApproval:
    """An approval that counts for the mission's present report."""

    approval_id: str
    approval_digest: str
    approver: str
    key_id: str
    expires_at: datetime
    granted_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSignature:
    """A proposer's signature over the mission's sealed plan."""

    person: str
    key_id: str
    scheme: str
    signature: str
    """In base64, as the mission's row keeps it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What an earlier segment of the execution stood on."""

    segment: int
    plan_id: str
    plan_digest: str
    plan_signatures: tuple[PlanSignature, ...] = ()
    steps_count: int = 0
    report_id: str = ""
    report_digest: str = ""
    report_status: ReportStatus | None = None
    report_risk: RiskLevel | None = None
    approvals: tuple[GrantedApproval, ...] = ()
    approved_until: datetime | None = None
    confidence: int = 0
    confidence_samples: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Mission:
    """Where a mission stands; nothing but a fold of its events."""

    mission_id: str
    status: MissionStatus
    created_at: datetime
    updated_at: datetime
    last_sequence: int
    objective: str
    workspace_id: str
    executor_id: str
    intent_id: str
    proposer: str
    session_id: str = ""
    message_id: str = ""
    transcription_id: str = ""
    cloned_from: str = ""
    plan_id: str = ""
    plan_digest: str = ""
    plan_signatures: tuple[PlanSignature, ...] = ()
    steps_count: int = 0
    report_id: str = ""
    report_digest: str = ""
    report_status: ReportStatus | None = None
    report_risk: RiskLevel | None = None
    approvals: tuple[GrantedApproval, ...] = ()
    approved_until: datetime | None = None
    """When the first of the approvals it stands on ends."""
    queued_at: datetime | None = None
    executor_events: int = 0
    """How many events of the executor's own are recorded: where to go on after a break."""
    execution_id: str = ""
    receipt_id: str = ""
    receipt_digest: str = ""
    outcome: Outcome | None = None
    refusal_id: str = ""
    """The last refusal, where there was one."""
    reason: str = ""
    """Why it is not where its proposer wanted it, in words; empty otherwise."""
    final_answer: str = ""
    pause: Pause | None = None
    """What it waits for, while it is paused."""
    segment: int = 0
    """The segment of its execution that its present plan is for."""
    opened_segment: int = 0
    """The segment that its execution is in."""
    earlier: tuple[Segment, ...] = ()
    """The segments before the present plan's, the first first."""
    stopped_by: str = ""
    """Who stopped it, as the executor says; empty where nobody did."""
    priority: int = 0
    tenant: str = ""
    """Who queued it."""
    not_before: datetime | None = None
    queue_expires_at: datetime | None = None
    confidence: int = 0
    """How likely a success was when it was dry-run, in hundredths of a percent; 0 where nothing could be said."""
    confidence_samples: int = 0

    @property
    def has_ended(self) -> bool:
        """Nothing will happen to it any more, feedback apart."""
        return self.status in ENDED

    @property
    def repair_pending(self) -> bool:
        """Its present plan is a repair plan that the executor has not taken."""
        return self.status is S.PAUSED and self.segment > self.opened_segment

    @property
    def first_plan_digest(self) -> str:
        """Digest of the plan that it was proposed, or last proposed anew, with."""
        return self.earlier[0].plan_digest if self.earlier else self.plan_digest

    @property
    def later_plan_digests(self) -> tuple[str, ...]:
        """Digests of the repair plans under which its execution went on, in their order."""
        present = (self.plan_digest,) if self.segment and self.segment == self.opened_segment else ()
        return (*(segment.plan_digest for segment in self.earlier[1:]), *present)
