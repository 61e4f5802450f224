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


class TestCaseStatus(enum.Enum):
    """How one test case ended."""

    __test__ = False  # not a test class, whatever its name says to pytest

    PASSED = "passed"
    FAILED = "failed"
    BROKEN = "broken"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class TestCase:
    """One case of a test run."""

    __test__ = False  # not a test class, whatever its name says to pytest

    name: str
    status: TestCaseStatus
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TestEvidence:
    __test__ = False  # not a test class, whatever its name says to pytest

    verdict: TestVerdict
    command: CommandEvidence
    tests: int
    failures: int
    errors: int
    skipped: int
    cases: tuple[TestCase, ...] = ()
    """Those that did not pass first; at most 500."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchEvidence:
    """What a fetch found, or that it is made after the approval."""

    url: str
    fetched: bool
    status_code: int = 0
    content_type: str = ""
    digest: str = ""
    """Of the decoded body, which is kept; empty where nothing was fetched, or for HEAD."""
    size: int = 0
    text_digest: str = ""
    preview: Excerpt | None = None
    redirects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveEvidence:
    """What a request or a program will do; the dry run has not done it."""

    target: str
    digest: str
    """Over everything that will be sent or run, secrets by reference."""
    not_simulated: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolEvidence:
    """A tool as its server describes it."""

    server: str
    tool: str
    description: Excerpt
    tool_digest: str
    arguments_digest: str
    says_read_only: bool = False
    server_version: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlRow:
    """One row that a statement changes; JSON objects as text, empty where there is none."""

    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlEvidence:
    """What a statement would do."""

    database: str
    engine: str
    """"postgresql" or "sqlite"."""
    statement_kind: str
    """"select", "insert", "update", "delete", or "other"."""
    simulated: bool
    not_simulated: str = ""
    table: str = ""
    row_count: int = 0
    rows_digest: str = ""
    rows: tuple[SqlRow, ...] = ()


Evidence = (
    ReadEvidence
    | ListEvidence
    | SearchEvidence
    | CommandEvidence
    | TestEvidence
    | FetchEvidence
    | LiveEvidence
    | ToolEvidence
    | SqlEvidence
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CompensationReport:
    """What is said of the compensation of a step."""

    kind: str
    target: str
    description: str
    not_simulated: str = ""


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
    not_simulated: bool = False
    """Nobody has seen what it comes to."""
    irreversible: bool = False
    needs_approval: bool = False
    """It waits for a signature of its own: the plan or the policy says so."""
    compensation: CompensationReport | None = None


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
