"""What makes a draft a plan: everything that can be told without looking at the workspace.

The executor judges again, by itself and with the real file system. These rules exist so that a person hears about a
slip before a mission is proposed, and so that a plan which is sealed leaves nothing open.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final, NoReturn

from gonogo.secret_shapes import REFERENCE, find_secret_in
from orchestrator.domain.errors import Reason, RequestRefusedError
from orchestrator.domain.live_rules import check_domain, check_outside, completed_action
from orchestrator.domain.plan import (
    AppendText,
    Compensation,
    CreateDirectory,
    CreateFile,
    DeletePath,
    Edit,
    FailurePolicy,
    FetchUrl,
    ListDirectory,
    Live,
    MovePath,
    NetworkAccess,
    Outside,
    PatchFile,
    PauseDefault,
    PauseRules,
    PlanDraft,
    Program,
    ReadFile,
    ReplaceText,
    Retrieval,
    RunCommand,
    RunLive,
    RunTests,
    Scope,
    SearchBodies,
    SearchFiles,
    SetMode,
    Stage,
    Step,
    TestExpectation,
    UndoStep,
    WriteFile,
    target_of,
)
from orchestrator.domain.scope import pattern_of

MAX_STEPS: Final = 1_000
MAX_OBJECTIVE: Final = 1_000
MAX_DESCRIPTION: Final = 1_000
MAX_PATH_BYTES: Final = 4_096
MAX_NAME_BYTES: Final = 255
MAX_ARGUMENTS: Final = 4_096
MAX_SCOPE_PATTERNS: Final = 1_000
MAX_PATTERN: Final = 1_024
"""Characters of one of a scope's paths, and below of all; executors take no longer one either."""
MAX_PATTERNS: Final = 131_072
MAX_MATCHING: Final = 10**9
"""Characters of patterns times characters of the paths that they are matched with: below a second of work."""
MAX_DURATION_SECONDS: Final = 86_400
MAX_PAGES: Final = 1_000
MAX_DOMAINS: Final = 1_000
MAX_PAUSE_SECONDS: Final = 30 * 86_400

DEFAULT_PAGES: Final = 1
DEFAULT_SECONDS: Final = 30
DEFAULT_PAUSE: Final = PauseRules(
    deadline_seconds=86_400, default_action=PauseDefault.ROLL_BACK, step_approval_seconds=3_600
)

_STEP_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_WORKSPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MODE = re.compile(r"0[0-7]{3}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_BYTES = re.compile(r"[1-9][0-9]{0,17}")
_WORD = re.compile(r"[a-z]+")

_RETRIEVE = (ReadFile, ListDirectory, SearchFiles, FetchUrl, SearchBodies)
_OPEN = (RunCommand, Live)
"""Kinds that may belong to any stage."""

_STAGE_WORDS: Final[Mapping[str, Stage]] = {
    word: stage
    for stage, words in {
        Stage.RETRIEVE: "analyze gather research review read",
        Stage.EDIT: "implement create write modify edit change",
        Stage.TEST: "test verify validate check",
        Stage.REPAIR: "fix repair debug resolve",
        Stage.PLAN: "design plan clarify",
    }.items()
    for word in words.split()
}


def completed(draft: PlanDraft, *, max_content_bytes: int) -> PlanDraft:
    """Check a draft and fill in all that it leaves open.

    Raises:
        RequestRefusedError: the draft breaks a rule; the message names the step.
    """
    _check_objective(draft.objective)
    _check_no_secret("the objective", draft.objective)
    _check_no_secret("the scope", draft.scope)
    if not _WORKSPACE.fullmatch(draft.workspace):
        _refuse(Reason.PLAN_INVALID, "the plan names no valid workspace", "Set `workspace` to the id of a workspace.")
    if not 1 <= len(draft.steps) <= MAX_STEPS:
        _refuse(
            Reason.PLAN_INVALID,
            f"the plan has {len(draft.steps)} steps",
            f"Give it 1 to {MAX_STEPS:,} steps; split a larger one into several missions.",
        )
    scope = completed_scope(draft.scope or Scope())
    steps = tuple(_completed_step(step, index) for index, step in enumerate(draft.steps, 1))
    _check_unique(steps)
    _check_matching(scope, steps)
    inside = pattern_of(scope.paths)
    for step in steps:
        _check_step(step, scope, max_content_bytes)
        for path in own_paths(step):
            if inside is not None and not inside.fullmatch(path):
                _outside_scope(step, path)
    _check_pages(scope, steps)
    policy = draft.failure_policy or FailurePolicy.PAUSE
    return replace(draft, scope=scope, steps=steps, failure_policy=policy, pause=completed_pause(draft.pause))


def completed_pause(pause: PauseRules | None) -> PauseRules:
    """Check how long pauses wait, and fill in what is left open."""
    said = pause or DEFAULT_PAUSE
    for name in ("deadline_seconds", "step_approval_seconds"):
        if not 0 <= getattr(said, name) <= MAX_PAUSE_SECONDS:
            _refuse(
                Reason.PLAN_INVALID,
                f"pause.{name} is {getattr(said, name)}",
                f"Use 1 to {MAX_PAUSE_SECONDS:,} seconds, which is 30 days.",
            )
    return PauseRules(
        deadline_seconds=said.deadline_seconds or DEFAULT_PAUSE.deadline_seconds,
        default_action=said.default_action or DEFAULT_PAUSE.default_action,
        step_approval_seconds=said.step_approval_seconds or DEFAULT_PAUSE.step_approval_seconds,
    )


def completed_scope(scope: Scope) -> Scope:
    """Check a scope and fill in its defaults."""
    _check_domains(scope)
    if len(scope.paths) > MAX_SCOPE_PATTERNS:
        _refuse(Reason.PLAN_INVALID, f"the scope has {len(scope.paths)} paths", f"Give at most {MAX_SCOPE_PATTERNS:,}.")
    if max(map(len, scope.paths), default=0) > MAX_PATTERN or sum(map(len, scope.paths)) > MAX_PATTERNS:
        remedy = f"Use at most {MAX_PATTERN:,} characters for one of them and {MAX_PATTERNS:,} for all."
        _refuse(Reason.TOO_LARGE, "the scope's paths are too long", remedy)
    for path in scope.paths:
        _check_path("the scope", path)
    if not 0 <= scope.max_duration_seconds <= MAX_DURATION_SECONDS:
        _refuse(Reason.PLAN_INVALID, "max_duration_seconds is out of range", f"At most {MAX_DURATION_SECONDS:,}.")
    if scope.max_bytes and not _BYTES.fullmatch(scope.max_bytes):
        _refuse(Reason.PLAN_INVALID, "max_bytes is not a positive whole number", 'Write it as text, such as "1048576".')
    return replace(
        scope,
        network=scope.network or NetworkAccess.NONE,
        max_pages=scope.max_pages or DEFAULT_PAGES,
        max_duration_seconds=scope.max_duration_seconds or DEFAULT_SECONDS,
    )


def _check_matching(scope: Scope, steps: tuple[Step, ...]) -> None:
    """Refuse what would keep everybody waiting while it is matched."""
    patterns = sum(len(path) for path in scope.paths if "*" in path)
    if patterns and patterns * sum(len(path) for step in steps for path in own_paths(step)) > MAX_MATCHING:
        remedy = "Use fewer or shorter patterns in `scope.paths`, or split the plan."
        _refuse(Reason.TOO_LARGE, "the scope has too many patterns for the plan's paths", remedy)


def _check_domains(scope: Scope) -> None:
    listed = scope.network is NetworkAccess.LISTED_DOMAINS
    if scope.domains and not listed:
        _refuse(
            Reason.PLAN_INVALID,
            "the scope lists domains but opens no network",
            "Set `network: listed_domains`, or leave `domains` out.",
        )
    if listed and not scope.domains:
        _refuse(Reason.PLAN_INVALID, "the scope opens a network but lists no domain", "List the hosts in `domains`.")
    if len(scope.domains) > MAX_DOMAINS:
        _refuse(Reason.PLAN_INVALID, f"the scope has {len(scope.domains)} domains", f"Give at most {MAX_DOMAINS:,}.")
    if not 0 <= scope.max_pages <= MAX_PAGES:
        _refuse(Reason.PLAN_INVALID, "max_pages is out of range", f"At most {MAX_PAGES:,}.")
    for domain in scope.domains:
        check_domain(domain)


def _check_pages(scope: Scope, steps: tuple[Step, ...]) -> None:
    pages = sum(isinstance(step.action, FetchUrl) for step in steps)
    if pages > scope.max_pages:
        _refuse(
            Reason.PLAN_INVALID,
            f"the plan reads {pages} pages; its scope's max_pages is {scope.max_pages}",
            "Raise `scope.max_pages`, or read fewer pages.",
        )


def stage_of(step: Step) -> Stage:
    """Return the stage that a step's kind fixes, else the one its description's first telling word says."""
    if isinstance(step.action, _RETRIEVE):
        return Stage.RETRIEVE
    if isinstance(step.action, RunTests):
        return Stage.TEST
    if not isinstance(step.action, _OPEN):
        return Stage.EDIT
    if step.stage is not None:
        return step.stage
    words = (_STAGE_WORDS.get(word) for word in _WORD.findall(step.description.lower()))
    return next((stage for stage in words if stage is not None), Stage.EDIT)


def own_paths(step: Step) -> Iterator[str]:
    """Yield the paths a step names as what it acts on; programs and undone steps name none, their changes are told."""
    action = step.action
    if isinstance(action, RunCommand | RunTests | UndoStep | SearchBodies | Outside):
        return
    yield action.path
    if isinstance(action, MovePath):
        yield action.to


def _completed_step(step: Step, index: int) -> Step:
    stage = stage_of(step)
    if step.stage is not None and step.stage is not stage:
        _refuse(
            Reason.PLAN_INVALID,
            f"step {index}: a {step.kind} step belongs to the stage {stage.value}, not {step.stage.value}",
            "Leave `stage` out; the kind decides it.",
        )
    action = step.action
    if isinstance(action, RunTests) and action.expect is None:
        action = replace(action, expect=TestExpectation.PASS)
    return replace(
        step,
        step_id=step.step_id or f"s{index}",
        stage=stage,
        description=step.description or _described(step),
        action=completed_action(action),
        compensation=_completed_compensation(step.compensation),
    )


def _completed_compensation(compensation: Compensation | None) -> Compensation | None:
    if compensation is None:
        return None
    action = completed_action(compensation.action)
    words = f"{compensation.kind.replace('_', ' ')} {target_of(action)}"
    description = compensation.description or (words if _is_line(words) else ascii(words))
    return replace(compensation, action=action, description=description)


def _described(step: Step) -> str:
    """Return a description for a step that has none; a program's arguments may hold what does not fit on a line."""
    words = f"{step.kind.replace('_', ' ')} {step.target}"
    return words if isinstance(step.action, Retrieval | Edit) or _is_line(words) else ascii(words)


def _check_objective(objective: str) -> None:
    if not objective.strip():
        _refuse(Reason.PLAN_INVALID, "the plan has no objective", "Say in one line what the mission is for.")
    if len(objective) > MAX_OBJECTIVE:
        _refuse(Reason.TOO_LARGE, "the objective is too long", f"Use at most {MAX_OBJECTIVE:,} characters.")
    if not _is_line(objective):
        _refuse(Reason.PLAN_INVALID, "the objective holds control characters", "Write it on one line.")


def _check_unique(steps: tuple[Step, ...]) -> None:
    seen: set[str] = set()
    for step in steps:
        if not _STEP_ID.fullmatch(step.step_id):
            _refuse(Reason.PLAN_INVALID, f"{step.step_id!r} is no step id", "Use letters, digits, '.', '_' and '-'.")
        if step.step_id in seen:
            _refuse(Reason.PLAN_INVALID, f"two steps have the id {step.step_id}", "Give each step an id of its own.")
        seen.add(step.step_id)


def _check_no_secret(where: str, value: object) -> None:
    """Refuse what looks like a credential; the text itself is not repeated, since errors are kept and shown."""
    kind = find_secret_in(value)
    if kind is not None:
        _refuse(
            Reason.SECRET_IN_PLAN,
            f"{where} holds what looks like a secret: {kind}",
            "Keep it out of the plan, which is signed, stored and shown as it is; where it is real, replace it now.",
        )


def _check_step(step: Step, scope: Scope, max_content_bytes: int) -> None:
    where = f"step {step.step_id}"
    _check_no_secret(where, step)
    if isinstance(step.action, RunCommand | RunTests):
        _check_program(where, step.action)
    elif isinstance(step.action, UndoStep):
        _check_undone(where, step.action)
    elif isinstance(step.action, SearchBodies | Outside):
        _check_reach(where, step.action, scope, max_content_bytes)
    else:
        _check_path(where, step.action.path, root=isinstance(step.action, ListDirectory | SearchFiles))
        _check_fields(where, step.action, max_content_bytes)
    _check_description(where, step.description)
    if step.compensation is not None:
        _check_compensation(where, step, step.compensation, scope, max_content_bytes)


def _check_reach(where: str, action: SearchBodies | Outside, scope: Scope, max_content_bytes: int) -> None:
    check_outside(where, action, scope, max_content_bytes)
    if isinstance(action, RunLive) and action.cwd:
        _check_path(where, action.cwd, root=True)


def _check_compensation(where: str, step: Step, compensation: Compensation, scope: Scope, limit: int) -> None:
    if not isinstance(step.action, Live):
        _refuse(
            Reason.PLAN_INVALID,
            f"{where} is a {step.kind} step and has a compensation",
            "Leave it out: only a live step's effect has to be made up for.",
        )
    _check_reach(f"the compensation of {where}", compensation.action, scope, limit)
    _check_description(f"the compensation of {where}", compensation.description)


def _check_description(where: str, description: str) -> None:
    if len(description) > MAX_DESCRIPTION or not _is_line(description):
        _refuse(Reason.PLAN_INVALID, f"{where}: the description is too long or not one line", "Shorten it to one line.")


def _check_undone(where: str, action: UndoStep) -> None:
    for name, value in (("mission_id", action.mission_id), ("step_id", action.step_id)):
        if not _STEP_ID.fullmatch(value):
            _refuse(Reason.PLAN_INVALID, f"{where}: {_shown(value)} is no {name}", "Name a step of an ended mission.")


def _check_fields(where: str, action: Retrieval | Edit, limit: int) -> None:
    match action:
        case CreateFile() | WriteFile():
            _check_body(where, action, limit)
        case CreateDirectory() | SetMode():
            _check_mode(where, action.mode, required=isinstance(action, SetMode))
        case PatchFile():
            _check_text(where, "patch", action.patch, limit)
        case AppendText():
            _check_text(where, "content", action.content, limit)
        case ReplaceText():
            _check_text(where, "old", action.old, limit)
            _check_size(where, action.new.encode(), limit)
        case MovePath():
            _check_path(where, action.to)
        case SearchFiles():
            _check_text(where, "pattern", action.pattern, limit)
        case ReadFile() | ListDirectory() | DeletePath():
            pass


def _check_body(where: str, action: CreateFile | WriteFile, limit: int) -> None:
    if (action.content is None) == (action.data is None):
        _refuse(Reason.PLAN_INVALID, f"{where}: no content", "Give exactly one of `content` and `data`.")
    _check_mode(where, action.mode, required=False)
    _check_size(where, action.content.encode() if action.content is not None else action.data or b"", limit)


def _check_text(where: str, field: str, text: str, limit: int) -> None:
    if not text:
        _refuse(Reason.PLAN_INVALID, f"{where}: `{field}` is empty", f"Fill in `{field}`.")
    _check_size(where, text.encode(), limit)


def _check_size(where: str, content: bytes, limit: int) -> None:
    if len(content) > limit:
        _refuse(
            Reason.TOO_LARGE,
            f"{where}: the content has {len(content):,} bytes; the executor takes {limit:,}",
            "Let a command make or copy the large file, and keep the plan small.",
        )


def _check_mode(where: str, mode: str, *, required: bool) -> None:
    if (required or mode) and not _MODE.fullmatch(mode):
        _refuse(Reason.PLAN_INVALID, f"{where}: {mode!r} is no mode", 'Write permission bits as text such as "0644".')


def _check_program(where: str, action: Program) -> None:
    if not action.argv or not action.argv[0] or len(action.argv) > MAX_ARGUMENTS:
        _refuse(Reason.PLAN_INVALID, f"{where}: argv names no program", "Give the program and its arguments as a list.")
    if any(text.startswith(REFERENCE) for text in (*action.argv, *action.env.values())):
        _refuse(
            Reason.UNSUPPORTED,
            f"{where}: {REFERENCE} stands in a step that runs in the sandbox",
            "Secrets are given to live steps only; let the sandboxed command do without.",
        )
    if any("\0" in text for text in (*action.argv, *action.env.values())):
        _refuse(Reason.PLAN_INVALID, f"{where}: a NUL in an argument or variable", "Leave NUL characters out.")
    for name in action.env:
        if not _VARIABLE.fullmatch(name):
            _refuse(Reason.PLAN_INVALID, f"{where}: {name!r} is no variable name", "Use letters, digits and '_'.")
    if isinstance(action, RunCommand) and any(not 0 <= code <= 255 for code in action.success_codes):  # noqa: PLR2004 - what a process can exit with
        _refuse(Reason.PLAN_INVALID, f"{where}: a success code is out of range", "Exit codes go from 0 to 255.")
    if action.cwd:
        _check_path(where, action.cwd, root=True)
    if isinstance(action, RunTests) and action.junit:
        _check_path(where, action.junit)


def _check_path(where: str, path: str, *, root: bool = False) -> None:
    """Refuse a path that is not the one plain way to name something inside the workspace."""
    parts = path.split("/")
    if path.startswith("/") or ".." in parts:
        _refuse(
            Reason.PATH_OUTSIDE_WORKSPACE,
            f"{where}: {_shown(path)} leads out of the workspace",
            "Write the path relative to the workspace, without '/' in front and without '..'.",
        )
    if root and path == ".":
        return
    if not _is_line(path) or "" in parts or "." in parts or not _fits(path, parts):
        _refuse(
            Reason.PATH_INVALID,
            f"{where}: {_shown(path)} is no plain path",
            "Use names joined by single slashes, without control characters, './' or a slash at the end.",
        )


def _fits(path: str, parts: list[str]) -> bool:
    return len(path.encode()) <= MAX_PATH_BYTES and all(len(part.encode()) <= MAX_NAME_BYTES for part in parts)


def _is_line(text: str) -> bool:
    """Whether a text is Unicode proper without control characters or line breaks."""
    return not any(c < " " or "\x7f" <= c <= "\x9f" or c in "\u2028\u2029" or "\ud800" <= c <= "\udfff" for c in text)


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 120 else text[:119] + "…")  # noqa: PLR2004 - one line of a terminal


def _outside_scope(step: Step, path: str) -> NoReturn:
    _refuse(
        Reason.PATH_OUTSIDE_SCOPE,
        f"step {step.step_id}: {_shown(path)} is outside the scope's paths",
        "Widen `scope.paths`, or change the step.",
    )


def _refuse(reason: Reason, message: str, remedy: str) -> NoReturn:
    raise RequestRefusedError(reason, message, remedy)
