"""The plan as the executor reads it from the sealed bytes: one class per kind of step, a closed union."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from executor.domain.ladder import LadderLevel


class Stage(enum.Enum):
    """What part of its work a step belongs to."""

    PLAN = "plan"
    RETRIEVE = "retrieve"
    EDIT = "edit"
    TEST = "test"
    REPAIR = "repair"


class FailurePolicy(enum.Enum):
    """What happens to the earlier steps when one fails. The failing step itself is always undone."""

    PAUSE = "pause"
    ROLL_BACK = "roll_back"
    STOP = "stop"
    CONTINUE = "continue"


class NetworkAccess(enum.Enum):
    """What network a plan's steps may reach."""

    NONE = "none"
    LISTED_DOMAINS = "listed_domains"


class TestExpectation(enum.Enum):
    """Which verdict of a test run the plan asks for."""

    __test__ = False  # not a test class, whatever its name says to pytest

    PASS = "pass"  # noqa: S105 - a verdict, no password
    FAIL = "fail"
    ANY = "any"


class LiveAccess(enum.Enum):
    """What a program that runs for real may reach."""

    NETWORK = "network"
    """In the sandbox, with nothing but the plan's listed domains."""
    HOST = "host"


class PauseDefault(enum.Enum):
    """What becomes of a paused execution at its deadline."""

    ROLL_BACK = "roll_back"
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadFile:
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ListDirectory:
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchFiles:
    pattern: str
    path: str
    literal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateFile:
    path: str
    content: bytes
    mode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateDirectory:
    path: str
    mode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFile:
    path: str
    content: bytes
    mode: int | None
    """None keeps an existing file's bits and gives a new one 0644."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchFile:
    path: str
    patch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceText:
    path: str
    old: str
    new: str
    expected_count: int
    """0 asks for one or more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendText:
    path: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MovePath:
    path: str
    to: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletePath:
    path: str
    recursive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMode:
    path: str
    mode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoStep:
    """Takes back what a committed step of an ended mission did."""

    mission_id: str
    step_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCommand:
    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    success_codes: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTests:
    argv: tuple[str, ...]
    junit: str
    cwd: str
    env: Mapping[str, str]
    expect: TestExpectation


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchUrl:
    """Reads a page with GET, or HEAD."""

    url: str
    head: bool
    extract_text: bool
    max_bytes: int | None
    """Of the decoded body; None leaves it to the executor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchBodies:
    """Searches the texts of pages that fetches of the same workspace have kept."""

    query: str
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpHeader:
    name: str
    value: str
    """Or a secret's reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    """Sends one request with effects."""

    method: str
    url: str
    headers: tuple[HttpHeader, ...]
    content: bytes | None
    success_codes: tuple[int, ...]
    """Empty means 200 to 299."""
    idempotency_header: str
    """Empty where the far side takes no idempotency key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadinessCheck:
    """When a program that keeps running counts as ready; with neither port nor output, when it still runs then."""

    port: int
    output: str
    seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLive:
    """Runs a program with effects outside of the workspace."""

    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    success_codes: tuple[int, ...]
    access: LiveAccess
    keep_running: ReadinessCheck | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTool:
    """Calls a tool of an MCP server of the trust file."""

    server: str
    tool: str
    arguments: str
    """A JSON object as text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSql:
    """Runs one statement on a database of the trust file."""

    database: str
    statement: str
    parameters: tuple[str, ...]
    """Each a JSON value as text."""


Edit = CreateFile | CreateDirectory | WriteFile | PatchFile | ReplaceText | AppendText | MovePath | DeletePath | SetMode
Retrieval = ReadFile | ListDirectory | SearchFiles
Live = HttpRequest | RunLive | CallTool | RunSql
"""What has an effect outside of the workspace: once, after approval, with a ledger row of its own before it."""
Outside = FetchUrl | Live
"""What reaches anything outside of the workspace."""
Action = Edit | Retrieval | RunCommand | RunTests | UndoStep | SearchBodies | Outside

KINDS: Mapping[type[Action], str] = {
    ReadFile: "read_file",
    ListDirectory: "list_directory",
    SearchFiles: "search_files",
    CreateFile: "create_file",
    CreateDirectory: "create_directory",
    WriteFile: "write_file",
    PatchFile: "patch_file",
    ReplaceText: "replace_text",
    AppendText: "append_text",
    MovePath: "move_path",
    DeletePath: "delete_path",
    SetMode: "set_mode",
    RunCommand: "run_command",
    RunTests: "run_tests",
    UndoStep: "undo_step",
    FetchUrl: "fetch_url",
    SearchBodies: "search_bodies",
    HttpRequest: "http_request",
    RunLive: "run_live",
    CallTool: "call_tool",
    RunSql: "run_sql",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Compensation:
    """What makes up for a live step's effect when the mission is rolled back."""

    description: str
    action: Live

    @property
    def kind(self) -> str:
        """The kind's name, as in the contract."""
        return KINDS[type(self.action)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    step_id: str
    description: str
    stage: Stage
    action: Action
    needs_approval: bool = False
    """It waits for a signature of its own before it is committed."""
    compensation: Compensation | None = None

    @property
    def kind(self) -> str:
        """The kind's name, as in the contract."""
        return KINDS[type(self.action)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The contract a plan may not leave."""

    paths: tuple[str, ...]
    """Glob patterns relative to the workspace; empty means all of it."""
    domains: tuple[str, ...]
    network: NetworkAccess
    max_pages: int
    max_duration_seconds: int
    max_bytes: int | None
    min_ladder_level: LadderLevel | None = None


DAY_SECONDS = 24 * 60 * 60
HOUR_SECONDS = 60 * 60


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseRules:
    """How long a paused execution waits for a person, and what happens then."""

    deadline_seconds: int = DAY_SECONDS
    default_action: PauseDefault = PauseDefault.ROLL_BACK
    step_approval_seconds: int = HOUR_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    plan_id: str
    mission_id: str
    intent_id: str
    message_id: str
    transcription_id: str
    objective: str
    workspace_id: str
    executor_id: str
    proposer: str
    created_at: datetime
    scope: Scope
    failure_policy: FailurePolicy
    steps: tuple[Step, ...]
    pause: PauseRules = PauseRules()
    segment: int = 0
    """Which segment of the execution it is for; a repair plan opens the next."""
    execution_id: str = ""
    """The paused execution that a repair plan goes on with."""
    journal_digest: str = ""
    """Digest of what that execution had done when the repair plan was sealed."""
