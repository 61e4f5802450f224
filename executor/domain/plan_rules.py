"""What a plan must be before anything of it runs. Paths are the steps' own business; this is about the plan."""

from collections.abc import Container

from executor.domain.errors import RequestMalformedError
from executor.domain.live_rules import check_network, check_outside
from executor.domain.plan import (
    DAY_SECONDS,
    Action,
    AppendText,
    CallTool,
    CreateFile,
    HttpRequest,
    Live,
    Outside,
    PatchFile,
    Plan,
    ReplaceText,
    RunCommand,
    RunTests,
    Scope,
    SearchBodies,
    Step,
    UndoStep,
    WriteFile,
)
from gonogo.secret_shapes import REFERENCE, find_secret_in

MAX_STEPS = 1000
MAX_ID_LENGTH = 128
MAX_STEP_ID_LENGTH = 64
MAX_PAUSE_SECONDS = 30 * DAY_SECONDS


def check_plan(plan: Plan, *, executor_id: str, workspaces: Container[str], max_content_bytes: int) -> None:
    """Refuse a plan that this executor can not or may not run.

    Raises:
        RequestMalformedError: with a reason of its own for each rule.
    """
    _check_ids(plan)
    _check_place(plan, executor_id, workspaces)
    _check_pauses(plan)
    _check_segment(plan)
    check_network(plan)
    _check_said(plan)
    _check_steps(plan, max_content_bytes)


def is_identifier(text: str, limit: int = MAX_ID_LENGTH) -> bool:
    """Tell whether a text may name something: printable, without blanks at all, not empty and not long."""
    return 0 < len(text) <= limit and text.isascii() and text.isprintable() and " " not in text


def _check_ids(plan: Plan) -> None:
    needed = {"plan_id": plan.plan_id, "mission_id": plan.mission_id, "intent_id": plan.intent_id}
    said = {"message_id": plan.message_id, "transcription_id": plan.transcription_id}
    # A plan that came from a file, and not from a message, names none of the latter.
    for name, value in (*needed.items(), *((name, value) for name, value in said.items() if value)):
        if not is_identifier(value):
            raise RequestMalformedError(
                "PLAN_INVALID",
                f"the plan's {name} is not an id",
                f"use 1 to {MAX_ID_LENGTH} printable ASCII characters without blanks",
            )


def _check_place(plan: Plan, executor_id: str, workspaces: Container[str]) -> None:
    if plan.executor_id != executor_id:
        raise RequestMalformedError(
            "EXECUTOR_MISMATCH",
            f"the plan is for executor {plan.executor_id!r}; this is {executor_id!r}",
            "send the plan to the executor that it names, or seal a new plan for this one",
        )
    if plan.workspace_id not in workspaces:
        raise RequestMalformedError(
            "WORKSPACE_UNKNOWN",
            f"this executor serves no workspace {plan.workspace_id!r}",
            "name one of the executor's workspaces, or start the executor with --workspace ID=/path",
        )


def _check_pauses(plan: Plan) -> None:
    for name, seconds in (
        ("deadline_seconds", plan.pause.deadline_seconds),
        ("step_approval_seconds", plan.pause.step_approval_seconds),
    ):
        if not 1 <= seconds <= MAX_PAUSE_SECONDS:
            raise RequestMalformedError(
                "PLAN_INVALID",
                f"the plan's pause.{name} is {seconds}",
                f"use 1 to {MAX_PAUSE_SECONDS} seconds, which is 30 days",
            )


def _check_segment(plan: Plan) -> None:
    """Refuse a plan that is half a repair plan."""
    said = (bool(plan.segment), bool(plan.execution_id), bool(plan.journal_digest))
    if len(set(said)) != 1 or (plan.execution_id and not is_identifier(plan.execution_id)):
        raise RequestMalformedError(
            "PLAN_INVALID",
            "the plan does not say whether it goes on with an execution",
            "a repair plan names segment, execution and journal digest; any other plan names none of them",
        )


def _check_said(plan: Plan) -> None:
    kind = find_secret_in((plan.objective, plan.scope, plan.proposer))
    if kind is not None:
        raise RequestMalformedError(
            "SECRET_IN_PLAN",
            f"the plan's objective or scope holds what looks like a secret: {kind}",
            "keep it out of the plan, which is signed, stored and shown as it is",
        )


def _check_steps(plan: Plan, max_content_bytes: int) -> None:
    if not 1 <= len(plan.steps) <= MAX_STEPS:
        raise RequestMalformedError(
            "PLAN_INVALID",
            f"the plan has {len(plan.steps)} steps",
            f"a plan has 1 to {MAX_STEPS} steps; split a larger one into several missions",
        )
    seen: set[str] = set()
    for step in plan.steps:
        _check_step(step, seen, max_content_bytes)
        _check_reach(step, plan.scope, max_content_bytes)
        seen.add(step.step_id)


def _check_step(step: Step, seen: set[str], max_content_bytes: int) -> None:
    if not is_identifier(step.step_id, MAX_STEP_ID_LENGTH):
        raise RequestMalformedError(
            "PLAN_INVALID",
            f"step id {step.step_id[:80]!r} is not an id",
            f"use 1 to {MAX_STEP_ID_LENGTH} printable ASCII characters without blanks, such as s1",
        )
    if step.step_id in seen:
        raise RequestMalformedError(
            "PLAN_INVALID", f"two steps have the id {step.step_id!r}", "give each step an id of its own"
        )
    _check_size(step.step_id, step.action, max_content_bytes)
    _check_no_secret(step)
    if isinstance(step.action, RunCommand | RunTests) and not (step.action.argv and step.action.argv[0]):
        raise RequestMalformedError(
            "PLAN_INVALID", f"step {step.step_id} names no program", "put the program first in argv"
        )
    if isinstance(step.action, UndoStep):
        _check_undone(step.step_id, step.action)


def _check_reach(step: Step, scope: Scope, max_content_bytes: int) -> None:
    """Judge what a step does outside of the workspace, and what would make up for it."""
    where = f"step {step.step_id}"
    if isinstance(step.action, Outside | SearchBodies):
        check_outside(where, step.action, scope)
    if step.compensation is None:
        return
    if not isinstance(step.action, Live):
        raise RequestMalformedError(
            "PLAN_INVALID",
            f"{where} is a {step.kind} step and has a compensation",
            "leave it out: only a live step's effect has to be made up for",
        )
    _check_size(step.step_id, step.compensation.action, max_content_bytes)
    check_outside(f"the compensation of {where}", step.compensation.action, scope)


def _check_size(step_id: str, action: Action, max_content_bytes: int) -> None:
    size = _content_size(action)
    if size > max_content_bytes:
        raise RequestMalformedError(
            "TOO_LARGE",
            f"step {step_id} carries {size} bytes; one step may carry {max_content_bytes}",
            "let a command make large files, or raise max_content_bytes in the executor's trust file",
        )


def _check_no_secret(step: Step) -> None:
    """Refuse what looks like a credential, and a reference where no secret is given; neither is repeated."""
    kind = find_secret_in(step)
    if kind is not None:
        raise RequestMalformedError(
            "SECRET_IN_PLAN",
            f"step {step.step_id} holds what looks like a secret: {kind}",
            "keep it out of the plan, which is signed, stored and shown as it is",
        )
    action = step.action
    if isinstance(action, RunCommand | RunTests) and any(
        text.startswith(REFERENCE) for text in (*action.argv, *action.env.values())
    ):
        raise RequestMalformedError(
            "UNSUPPORTED",
            f"step {step.step_id} names a secret, and runs in the sandbox",
            "secrets are given to live steps only; let the sandboxed command do without",
        )


def _check_undone(step_id: str, action: UndoStep) -> None:
    if not (is_identifier(action.mission_id) and is_identifier(action.step_id, MAX_STEP_ID_LENGTH)):
        raise RequestMalformedError(
            "PLAN_INVALID", f"step {step_id} names no mission or no step", "name a step of an ended mission by its ids"
        )


def _content_size(action: Action) -> int:
    return sum(len(part if isinstance(part, bytes) else part.encode()) for part in _content(action))


def _content(action: Action) -> tuple[str | bytes, ...]:
    match action:
        case CreateFile() | WriteFile() | AppendText():
            return (action.content,)
        case PatchFile():
            return (action.patch,)
        case ReplaceText():
            return (action.old, action.new)
        case HttpRequest():
            return (action.content or b"",)
        case CallTool():
            return (action.arguments,)
        case _:
            return ()
