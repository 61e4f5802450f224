"""What a report says step by step, for whoever proposes a repair. Nothing is decided by it."""

from dataclasses import dataclass
from enum import StrEnum


class FoundKind(StrEnum):
    """How a path changed."""

    CREATE = "create"
    MODIFY = "modify"
    DELETE = "delete"
    MOVE = "move"
    TYPE_CHANGE = "type_change"
    METADATA = "metadata"


class CaseStatus(StrEnum):
    """How a test case ended."""

    PASSED = "passed"
    FAILED = "failed"
    BROKEN = "broken"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundNode:
    """What a path is at one moment; a file's bytes are an object of the executor's, by digest."""

    type: str
    """file, directory, symlink or other."""
    mode: str = ""
    digest: str = ""
    link_target: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundChange:
    """One path's change; `old` is None for what was created, `new` for what was deleted."""

    path: str
    kind: FoundKind
    old: FoundNode | None = None
    new: FoundNode | None = None
    moved_from: str = ""
    is_text: bool = True
    """The path's bytes are UTF-8; of one whose are not, `path` is only what is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundCase:
    """One test case."""

    name: str
    status: CaseStatus
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinding:
    """What the dry run of one step found."""

    step_id: str
    kind: str
    success: bool
    changes: tuple[FoundChange, ...] = ()
    output: str = ""
    """Beginning and end of what a program printed, standard output first."""
    cases: tuple[FoundCase, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundProblem:
    """One thing that keeps a report from being a success."""

    step_id: str
    path: str
    reason: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """A report, as far as a repair is made from it."""

    steps: tuple[StepFinding, ...] = ()
    problems: tuple[FoundProblem, ...] = ()
