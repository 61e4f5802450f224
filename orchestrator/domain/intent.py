"""What a chat message was understood to ask for, and the rules of words and paths that need no grammar.

An intent is a value: nothing here acts. `Unclear` is a full answer, not an error, because a message that is only
partly understood must never become a plan.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, assert_never

StepValue = str | int | tuple[str, ...]

MAX_MESSAGE_BYTES = 64 * 1024
MAX_SENTENCES = 1_000
MAX_STEPS = 1_000
MAX_OBJECTIVE = 200
MAX_PATH_BYTES = 4_096
MAX_NAME_BYTES = 255


class IntentKind(StrEnum):
    PROPOSE = "propose"
    ASK = "ask"
    CONTROL = "control"
    FEEDBACK = "feedback"
    UNCLEAR = "unclear"


class UnclearReason(StrEnum):
    """Stable codes; clients may switch on them."""

    EMPTY = "EMPTY"
    TOO_LONG = "TOO_LONG"
    TOO_MANY_STEPS = "TOO_MANY_STEPS"
    CONTROL_CHARACTER = "CONTROL_CHARACTER"
    HIDDEN_CHARACTER = "HIDDEN_CHARACTER"
    QUOTING = "QUOTING"
    EMPTY_TEXT = "EMPTY_TEXT"
    NEGATED = "NEGATED"
    HEDGED = "HEDGED"
    QUESTION = "QUESTION"
    MIXED = "MIXED"
    NOT_UNDERSTOOD = "NOT_UNDERSTOOD"
    SHELL_SYNTAX = "SHELL_SYNTAX"
    COMMAND_AMBIGUOUS = "COMMAND_AMBIGUOUS"
    INVALID_MODE = "INVALID_MODE"
    INVALID_PATH = "INVALID_PATH"
    PATH_OUTSIDE_WORKSPACE = "PATH_OUTSIDE_WORKSPACE"
    PLANNER_FAILED = "PLANNER_FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDraft:
    """One step as asked for; `kind` and the keys of `fields` are the names that the plan contract uses."""

    kind: str
    fields: Mapping[str, StepValue]
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Steps in the order of the sentences; `workspace` is None where the message names none."""

    workspace: str | None
    objective: str
    steps: tuple[StepDraft, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """`kind` is one of status, list, waiting, result, help; a status without a mission asks about the latest."""

    kind: str
    mission_ref: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """`verb` is one of cancel, reject, approve, execute, pause, resume, retry, stop.

    Approve and execute are only recognised, so that the answer can say how it is done: an approval is a signature made
    by the approver's own client, and no sentence in a chat stands in for it.
    """

    verb: str
    mission_ref: str | None = None
    reason: str | None = None
    roll_back: bool = False
    """With stop: all that is committed is undone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """`rating` is good, bad, or None where the words give no verdict."""

    text: str
    mission_ref: str | None = None
    rating: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unclear:
    """`message` says what was wrong, where, and what to write instead; `nearest` holds at most three forms."""

    reason: UnclearReason
    message: str
    nearest: tuple[str, ...] = ()


Intent = Proposal | Question | Control | Feedback | Unclear


class Planner(Protocol):
    """Turns one chat message into one intent.

    The whole message is understood or none of it: a planner answers `Unclear` rather than leave a sentence out. It
    never raises, touches nothing, and gives the same answer to the same text. Negated, conditional and questioning
    messages are never a `Proposal`.
    """

    def understand(self, text: str) -> Intent:
        """The intent of `text`, in time proportional to its length, which is bounded by `MAX_MESSAGE_BYTES`."""
        ...


def kind_of(intent: Intent) -> IntentKind:
    match intent:
        case Proposal():
            return IntentKind.PROPOSE
        case Question():
            return IntentKind.ASK
        case Control():
            return IntentKind.CONTROL
        case Feedback():
            return IntentKind.FEEDBACK
        case Unclear():
            return IntentKind.UNCLEAR
        case _:
            assert_never(intent)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One shape of sentence, shown to people whose message was not understood."""

    pattern: str
    example: str

    def __str__(self) -> str:
        return f"{self.pattern} (for example: {self.example})"


FORMS = (
    Form(pattern="create F with 'content'", example=r"create docs/new.md with 'hello\n'"),
    Form(pattern="create empty file F", example="create empty file docs/.keep"),
    Form(pattern="write 'content' to F", example=r"write 'hello\n' to docs/new.md"),
    Form(pattern="replace 'a' with 'b' in F", example="replace 'colour' with 'color' in docs/guide.md"),
    Form(pattern="append 'content' to F", example=r"append 'one more line\n' to notes.txt"),
    Form(pattern="delete F", example="delete old.txt"),
    Form(pattern="delete D recursively", example="delete directory build recursively"),
    Form(pattern="move A to B", example="move draft.md to docs/final.md"),
    Form(pattern="create directory D", example="create directory docs/images"),
    Form(pattern="make F executable", example="make scripts/build.sh executable"),
    Form(pattern="set mode of F to MODE", example="set mode of scripts/build.sh to 0755"),
    Form(pattern="read F", example="read docs/guide.md"),
    Form(pattern="list D", example="list docs/"),
    Form(pattern="search for 'text' in D", example="search for 'colour' in docs"),
    Form(pattern="run: COMMAND", example="run: make -s lint"),
    Form(pattern="run the tests", example="run the tests"),
    Form(pattern="run the tests with: COMMAND", example="run the tests with: python3 -m pytest -q tests/unit"),
    Form(pattern="in WORKSPACE: SENTENCE, then SENTENCE", example="in site: delete old.txt, then run: make -s lint"),
    Form(pattern="what is the status of MISSION", example="what is the status of m-4k2p9x"),
    Form(pattern="what is the result of MISSION", example="what is the result of m-4k2p9x"),
    Form(pattern="list missions", example="list missions"),
    Form(pattern="what is waiting", example="what is waiting for approval?"),
    Form(pattern="cancel MISSION", example="cancel m-4k2p9x"),
    Form(pattern="reject MISSION because REASON", example="reject m-4k2p9x because the scope is too wide"),
    Form(pattern="pause MISSION", example="pause m-4k2p9x"),
    Form(pattern="resume MISSION", example="resume m-4k2p9x"),
    Form(pattern="retry MISSION", example="retry m-4k2p9x"),
    Form(pattern="stop MISSION and roll back", example="stop m-4k2p9x and roll back"),
    Form(pattern="feedback MISSION: TEXT", example="feedback m-4k2p9x: quick and tidy"),
    Form(pattern="help", example="help"),
)

# What each kind of step is called in front of people. The values are put in by whoever can show them safely.
DESCRIPTIONS: Mapping[str, str] = {
    "create_file": "Create {path} holding {content}",
    "write_file": "Write {content} to {path}",
    "append_text": "Append {content} to {path}",
    "replace_text": "Replace {old} with {new} in {path}",
    "delete_path": "Delete {path}",
    "move_path": "Move {path} to {to}",
    "create_directory": "Create directory {path}",
    "set_mode": "Set the mode of {path} to {mode}",
    "read_file": "Read {path}",
    "list_directory": "List {path}",
    "search_files": "Search for {pattern} in {path}",
    "run_command": "Run: {argv}",
    "run_tests": "Run the tests: {argv}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PathFault:
    """Why a path can not stand in a plan: `why` goes on after the path, `remedy` is a sentence of its own."""

    reason: UnclearReason
    why: str
    remedy: str


def path_fault(path: str) -> PathFault | None:
    """What is wrong with the form of `path`; the executor judges again, with the real file system."""
    parts = path.split("/")
    if not path or any(character < " " for character in path):
        return _invalid_path("is empty or holds a line break or a tab")
    if path.startswith("/") or parts[0] == "~" or ".." in parts:
        return _OUTSIDE
    if len(path.encode()) > MAX_PATH_BYTES or any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        return _invalid_path(f"is too long: at most {MAX_NAME_BYTES} bytes a name and {MAX_PATH_BYTES} a path")
    return None


def normal_path(path: str) -> str:
    """`path` without empty and `.` components; the workspace itself is `.`."""
    return "/".join(part for part in path.split("/") if part not in {"", "."}) or "."


def _invalid_path(why: str) -> PathFault:
    return PathFault(reason=UnclearReason.INVALID_PATH, why=why, remedy="Write the name of one file or directory.")


_OUTSIDE = PathFault(
    reason=UnclearReason.PATH_OUTSIDE_WORKSPACE,
    why="leads out of the workspace",
    remedy="Write it relative to the workspace, without '/' in front, '~' or '..'.",
)
