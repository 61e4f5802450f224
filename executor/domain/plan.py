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


Edit = CreateFile | CreateDirectory | WriteFile | PatchFile | ReplaceText | AppendText | MovePath | DeletePath | SetMode
Retrieval = ReadFile | ListDirectory | SearchFiles
Action = Edit | Retrieval | RunCommand | RunTests | UndoStep

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
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    step_id: str
    description: str
    stage: Stage
    action: Action

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
