"""What a dry run found."""

import enum
from dataclasses import dataclass
from datetime import datetime

from executor.domain.changes import Change, Node
from executor.domain.ladder import LadderLevel
from executor.domain.plan import Stage
from gonogo.policy import Demand, Proposer


class ReportStatus(enum.Enum):
    """What a dry run came to."""

    SUCCESS = "success"
    UNSAFE = "unsafe"
    BLOCKED = "blocked"
    FAILED = "failed"


class RiskLevel(enum.IntEnum):
    """How much care a change asks for; ordered."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3


class SelfApproval(enum.Enum):
    """Whether a proposer's own approval counts."""

    REFUSED = "refused"
    ALLOWED = "allowed"


class TestVerdict(enum.Enum):
    """The verdict of a test run."""

    __test__ = False  # not a test class, whatever its name says to pytest

    PASS = "pass"  # noqa: S105 - a verdict, no password
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpt:
    """Text of bounded length, and what was left out."""

    head: str
    tail: str
    total_bytes: int
    digest: str
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadEvidence:
    node: Node
    preview: Excerpt


@dataclass(frozen=True, slots=True, kw_only=True)
class ListEvidence:
    entries: tuple[tuple[bytes, Node], ...]
    """The first 1,000, sorted by raw bytes."""
    count: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchMatch:
    path: str
    line: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchEvidence:
    count: int
    matches: tuple[SearchMatch, ...]
    """The first 100."""
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandEvidence:
    exit_code: int | None
    signal: int
    timed_out: bool
    stdout: Excerpt
    stderr: Excerpt


@dataclass(frozen=True, slots=True, kw_only=True)
class TestEvidence:
    __test__ = False  # not a test class, whatever its name says to pytest

    verdict: TestVerdict
    command: CommandEvidence
    tests: int
    failures: int
    errors: int
    skipped: int


Evidence = ReadEvidence | ListEvidence | SearchEvidence | CommandEvidence | TestEvidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that keeps a report from being a success."""

    step_id: str
    path: str
    reason: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    step_id: str
    kind: str
    stage: Stage
    success: bool
    changes: tuple[Change, ...]
    evidence: Evidence | None
    duration_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskFact:
    kind: str
    path: str
    detail: str
    level: RiskLevel


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that whoever decides should know, and that is no problem by itself."""

    kind: str
    path: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    report_id: str
    mission_id: str
    intent_id: str
    plan_id: str
    plan_digest: str
    workspace_id: str
    executor_id: str
    ledger_epoch: str
    nonce: str
    status: ReportStatus
    problems: tuple[Problem, ...]
    started_at: datetime
    completed_at: datetime
    ladder_level: LadderLevel
    self_approval: SelfApproval
    policy_digest: str
    base_fingerprint: str
    after_fingerprint: str
    manifest_digest: str
    steps: tuple[StepReport, ...]
    risk_level: RiskLevel
    risk_facts: tuple[RiskFact, ...]
    notices: tuple[Notice, ...] = ()
    proposer: Proposer | None = None
    demand: Demand | None = None
    """What the policy demands of the approvals, as of the end of the dry run; None in reports of an older release."""
