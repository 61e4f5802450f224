"""What a plan must be before anything of it runs. Paths are the steps' own business; this is about the plan."""

from collections.abc import Container

from executor.domain.errors import RequestMalformedError
from executor.domain.plan import (
    Action,
    AppendText,
    CreateFile,
    FailurePolicy,
    NetworkAccess,
    PatchFile,
    Plan,
    ReplaceText,
    RunCommand,
    RunTests,
    Step,
    UndoStep,
    WriteFile,
)
from gonogo.secret_shapes import REFERENCE, find_secret_in

MAX_STEPS = 1000
MAX_ID_LENGTH = 128
MAX_STEP_ID_LENGTH = 64


def check_plan(plan: Plan, *, executor_id: str, workspaces: Container[str], max_content_bytes: int) -> None:
    """Refuse a plan that this executor can not or may not run.

    Raises:
        RequestMalformedError: with a reason of its own for each rule.
    """
    _check_ids(plan)
    _check_place(plan, executor_id, workspaces)
    _check_supported(plan)
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


def _check_supported(plan: Plan) -> None:
    if plan.failure_policy is FailurePolicy.PAUSE:
        raise RequestMalformedError(
            "UNSUPPORTED",
            "failure policy pause arrives with mission control",
            "use roll_back, stop or continue",
        )
    if plan.scope.network is not NetworkAccess.NONE or plan.scope.domains:
        raise RequestMalformedError(
            "UNSUPPORTED", "no step can reach a network yet", "set the scope's network to none and list no domains"
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
    size = _content_size(step.action)
    if size > max_content_bytes:
        raise RequestMalformedError(
            "TOO_LARGE",
            f"step {step.step_id} carries {size} bytes; one step may carry {max_content_bytes}",
            "let a command make large files, or raise max_content_bytes in the executor's trust file",
        )
    _check_no_secret(step)
    if isinstance(step.action, RunCommand | RunTests) and not (step.action.argv and step.action.argv[0]):
        raise RequestMalformedError(
            "PLAN_INVALID", f"step {step.step_id} names no program", "put the program first in argv"
        )
    if isinstance(step.action, UndoStep):
        _check_undone(step.step_id, step.action)


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
    match action:
        case CreateFile() | WriteFile():
            return len(action.content)
        case PatchFile():
            return len(action.patch.encode())
        case ReplaceText():
            return len(action.old.encode()) + len(action.new.encode())
        case AppendText():
            return len(action.content.encode())
        case _:
            return 0
