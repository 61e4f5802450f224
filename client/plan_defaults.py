"""The plan that a draft makes: what it leaves open is filled in from this closed list, and in no other way.

=========================  =============================================================================
left open                  filled in
=========================  =============================================================================
scope                      no network, one page, 30 seconds; everything else stays open
failure_policy             pause
pause                      a day, then roll_back; an hour for a step's own approval
a step's step_id           "s" and its place
a step's stage             its kind's; of a command or a live step any, which says where it is shown and
                           nothing else
a step's description       its kind and what it acts on; a compensation's, too
run_tests' expect          pass
search_bodies' limit       20
call_tool's arguments      {}
keep_running's seconds     10
=========================  =============================================================================
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from gonogo.v1 import plan_pb2

PAGES: Final = 1
SECONDS: Final = 30
MAX_TARGET: Final = 200
PAUSE_SECONDS: Final = 24 * 60 * 60
STEP_APPROVAL_SECONDS: Final = 60 * 60
MATCHES: Final = 20
READY_SECONDS: Final = 10
NO_ARGUMENTS: Final = "{}"

RETRIEVING: Final = frozenset({"read_file", "list_directory", "search_files", "fetch_url", "search_bodies"})
PROGRAMS: Final = frozenset({"run_command", "run_tests", "run_live"})
LIVE: Final = frozenset({"http_request", "run_live", "call_tool", "run_sql"})
OF_ANY_STAGE: Final = LIVE | {"run_command"}
LINES: Final = PROGRAMS | LIVE | {"fetch_url", "search_bodies"}
"""Kinds whose target may hold what does not fit on a line."""

_TARGETS: Final[Mapping[str, Callable[[Any], str]]] = {
    **dict.fromkeys(sorted(PROGRAMS), lambda action: json.dumps(list(action.argv), ensure_ascii=False)),
    "move_path": lambda action: f"{action.path} -> {action.to}",
    "undo_step": lambda action: f"{action.step_id} of {action.mission_id}",
    "fetch_url": lambda action: action.url,
    "search_bodies": lambda action: action.query,
    "http_request": lambda action: f"{action.method} {action.url}",
    "call_tool": lambda action: f"{action.tool} of {action.server}",
    "run_sql": lambda action: f"{action.database}: {action.statement}",
}


def plan_of(draft: plan_pb2.PlanDraft, found: plan_pb2.Plan) -> plan_pb2.Plan:
    """Return the plan that a draft makes, with the ids and the time of the one that was found."""
    steps = [_step(step, number, found.steps[number - 1 : number]) for number, step in enumerate(draft.steps, 1)]
    return plan_pb2.Plan(
        plan_id=found.plan_id,
        mission_id=found.mission_id,
        intent_id=found.intent_id,
        objective=draft.objective,
        workspace_id=draft.workspace,
        executor_id=found.executor_id,
        proposer=found.proposer,
        created_at=found.created_at,
        scope=_scope(draft.scope),
        failure_policy=draft.failure_policy or plan_pb2.FAILURE_POLICY_PAUSE,
        steps=steps,
        pause=_pause(draft.pause),
    )


def _scope(asked: plan_pb2.Scope) -> plan_pb2.Scope:
    scope = plan_pb2.Scope()
    scope.CopyFrom(asked)
    scope.network = scope.network or plan_pb2.NETWORK_ACCESS_NONE
    scope.max_pages = scope.max_pages or PAGES
    scope.max_duration_seconds = scope.max_duration_seconds or SECONDS
    return scope


def _pause(asked: plan_pb2.PauseRules) -> plan_pb2.PauseRules:
    return plan_pb2.PauseRules(
        deadline_seconds=asked.deadline_seconds or PAUSE_SECONDS,
        default_action=asked.default_action or plan_pb2.PAUSE_DEFAULT_ROLL_BACK,
        step_approval_seconds=asked.step_approval_seconds or STEP_APPROVAL_SECONDS,
    )


def _step(asked: plan_pb2.Step, number: int, found: Sequence[plan_pb2.Step]) -> plan_pb2.Step:
    step = plan_pb2.Step()
    step.CopyFrom(asked)
    kind = asked.WhichOneof("action") or ""
    step.step_id = step.step_id or f"s{number}"
    step.stage = step.stage or _stage(kind, found)
    step.description = step.description or _description(asked, kind)
    _fill(step, kind)
    if step.HasField("compensation"):
        inner = asked.compensation.WhichOneof("action") or ""
        words = step.compensation.description or _description(asked.compensation, inner)
        step.compensation.description = words
        _fill(step.compensation, inner)
    return step


def _fill(holder: Any, kind: str) -> None:
    """Fill in what an action leaves open."""
    match kind:
        case "run_tests":
            holder.run_tests.expect = holder.run_tests.expect or plan_pb2.TEST_EXPECTATION_PASS
        case "search_bodies":
            holder.search_bodies.limit = holder.search_bodies.limit or MATCHES
        case "call_tool":
            holder.call_tool.arguments = holder.call_tool.arguments or NO_ARGUMENTS
        case "run_live" if holder.run_live.HasField("keep_running"):
            check = holder.run_live.keep_running
            check.seconds = check.seconds or READY_SECONDS


def _stage(kind: str, found: Sequence[plan_pb2.Step]) -> plan_pb2.Stage.ValueType:
    if kind in OF_ANY_STAGE:
        return (found[0].stage if found else plan_pb2.STAGE_UNSPECIFIED) or plan_pb2.STAGE_EDIT
    if kind == "run_tests":
        return plan_pb2.STAGE_TEST
    return plan_pb2.STAGE_RETRIEVE if kind in RETRIEVING else plan_pb2.STAGE_EDIT


def _description(holder: Any, kind: str) -> str:
    words = f"{kind.replace('_', ' ')} {_shortened(_target(getattr(holder, kind), kind))}" if kind else ""
    return words if kind not in LINES or _is_line(words) else ascii(words)


def _target(action: Any, kind: str) -> str:
    return str(_TARGETS[kind](action) if kind in _TARGETS else action.path)


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_TARGET else text[: MAX_TARGET - 1] + "…"


def _is_line(text: str) -> bool:
    return not any(c < " " or "\x7f" <= c <= "\x9f" or c in "\u2028\u2029" for c in text)
