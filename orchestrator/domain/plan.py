"""The plan: one class per kind of step, a closed union, and the scope that the steps may not leave.

Field names are the contract's. `None` stands for what a draft leaves open; a completed plan leaves nothing open
except a body that is text (then `data` is None) or bytes (then `content` is None).
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeAlias

MAX_SHOWN: Final = 200


class Stage(StrEnum):
    PLAN = "plan"
    RETRIEVE = "retrieve"
    EDIT = "edit"
    TEST = "test"
    REPAIR = "repair"


class FailurePolicy(StrEnum):
    PAUSE = "pause"
    ROLL_BACK = "roll_back"
    STOP = "stop"
    CONTINUE = "continue"


class NetworkAccess(StrEnum):
    NONE = "none"
    LISTED_DOMAINS = "listed_domains"


class TestExpectation(StrEnum):
    __test__ = False  # not a test class, whatever its name says to pytest

    PASS = "pass"  # noqa: S105 - a verdict, no password
    FAIL = "fail"
    ANY = "any"


class LiveAccess(StrEnum):
    NETWORK = "network"
    HOST = "host"


class PauseDefault(StrEnum):
    ROLL_BACK = "roll_back"
    STOP = "stop"


class LadderLevel(StrEnum):
    L0 = "l0"
    L1 = "l1"
    L2 = "l2"
    L3 = "l3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The contract a plan may not leave."""

    paths: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    network: NetworkAccess | None = None
    max_pages: int = 0
    max_duration_seconds: int = 0
    max_bytes: str = ""
    min_ladder_level: LadderLevel | None = None


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
    literal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateFile:
    path: str
    content: str | None = None
    data: bytes | None = None
    mode: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateDirectory:
    path: str
    mode: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteFile:
    path: str
    content: str | None = None
    data: bytes | None = None
    mode: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchFile:
    path: str
    patch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaceText:
    path: str
    old: str
    new: str
    expected_count: int = 0


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
    recursive: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMode:
    path: str
    mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UndoStep:
    mission_id: str
    step_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCommand:
    argv: tuple[str, ...]
    cwd: str = ""
    env: Mapping[str, str]
    success_codes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTests:
    argv: tuple[str, ...]
    junit: str = ""
    cwd: str = ""
    env: Mapping[str, str]
    expect: TestExpectation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchUrl:
    url: str
    head: bool = False
    extract_text: bool = False
    max_bytes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchBodies:
    query: str
    limit: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpHeader:
    name: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRequest:
    method: str
    url: str
    headers: tuple[HttpHeader, ...] = ()
    content: str | None = None
    data: bytes | None = None
    success_codes: tuple[int, ...] = ()
    idempotency_header: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadinessCheck:
    port: int = 0
    output: str = ""
    seconds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLive:
    argv: tuple[str, ...]
    cwd: str = ""
    env: Mapping[str, str]
    success_codes: tuple[int, ...] = ()
    access: LiveAccess | None = None
    keep_running: ReadinessCheck | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CallTool:
    server: str
    tool: str
    arguments: str = ""
    """A JSON object as text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSql:
    database: str
    statement: str
    parameters: tuple[str, ...] = ()
    """Each a JSON value as text."""


Retrieval: TypeAlias = ReadFile | ListDirectory | SearchFiles
Edit: TypeAlias = (
    CreateFile | CreateDirectory | WriteFile | PatchFile | ReplaceText | AppendText | MovePath | DeletePath | SetMode
)
Program: TypeAlias = RunCommand | RunTests
Live: TypeAlias = HttpRequest | RunLive | CallTool | RunSql
Outside: TypeAlias = FetchUrl | Live
Action: TypeAlias = Retrieval | Edit | Program | UndoStep | SearchBodies | Outside

KINDS: Final[Mapping[type[Action], str]] = {
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

ACTIONS: Final[Mapping[str, type[Action]]] = {kind: action for action, kind in KINDS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Compensation:
    """What makes up for a live step's effect when the mission is rolled back."""

    description: str = ""
    action: Live

    @property
    def kind(self) -> str:
        """Return the contract's name of the action."""
        return KINDS[type(self.action)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    step_id: str = ""
    description: str = ""
    stage: Stage | None = None
    action: Action
    needs_approval: bool = False
    compensation: Compensation | None = None

    @property
    def kind(self) -> str:
        """The kind's name in the contract."""
        return KINDS[type(self.action)]

    @property
    def target(self) -> str:
        """What the step acts on, for people."""
        return target_of(self.action)


def target_of(action: Action) -> str:
    """Return what an action acts on, for people."""
    return shortened(_TARGETS[type(action)](action) if type(action) in _TARGETS else action.path)  # type: ignore[union-attr]  # all others have a path


_TARGETS: Final[Mapping[type[Action], Callable[[Any], str]]] = {
    RunCommand: lambda action: _line(action.argv),
    RunTests: lambda action: _line(action.argv),
    RunLive: lambda action: _line(action.argv),
    MovePath: lambda action: f"{action.path} -> {action.to}",
    UndoStep: lambda action: f"{action.step_id} of {action.mission_id}",
    FetchUrl: lambda action: action.url,
    SearchBodies: lambda action: action.query,
    HttpRequest: lambda action: f"{action.method} {action.url}",
    CallTool: lambda action: f"{action.tool} of {action.server}",
    RunSql: lambda action: f"{action.database}: {action.statement}",
}


def _line(argv: tuple[str, ...]) -> str:
    return json.dumps(list(argv), ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseRules:
    """How long a paused execution waits for a person, and what happens then."""

    deadline_seconds: int = 0
    default_action: PauseDefault | None = None
    step_approval_seconds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanDraft:
    """What somebody asks for."""

    objective: str
    workspace: str
    scope: Scope | None = None
    failure_policy: FailurePolicy | None = None
    steps: tuple[Step, ...] = ()
    pause: PauseRules | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is sealed: complete, with every id of the chain before it."""

    plan_id: str
    mission_id: str
    intent_id: str
    message_id: str
    transcription_id: str
    cloned_from: str
    objective: str
    workspace_id: str
    executor_id: str
    proposer: str
    created_at: datetime
    scope: Scope
    failure_policy: FailurePolicy
    steps: tuple[Step, ...]
    pause: PauseRules | None = None
    """None in plans of an older release."""
    segment: int = 0
    execution_id: str = ""
    journal_digest: str = ""


def shortened(text: str, limit: int = MAX_SHOWN) -> str:
    """Return at most `limit` characters, with a mark where something was left out."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
