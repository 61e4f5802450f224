"""A plan as the person who decides must see it: every parameter of every step, texts bounded and the rest counted."""

from typing import Any

from google.protobuf.message import Message

from client.json_form import short_name
from client.render.layout import fields, indented
from gonogo.safe_text import safe_block, safe_line, shown_argv
from gonogo.v1 import plan_pb2

TEXT_LINES = 40
LINE_CHARACTERS = 400


def plan_text(plan: plan_pb2.Plan, digest: str) -> str:
    """Return a plan, its scope and its steps."""
    scope = plan.scope
    head = fields(
        [
            ("objective", plan.objective),
            ("mission", plan.mission_id),
            ("plan", f"{plan.plan_id}  {digest}"),
            ("workspace", plan.workspace_id),
            ("executor", plan.executor_id),
            ("proposer", f"{plan.proposer} (as the orchestrator says)" if plan.proposer else "unknown"),
            ("repeats", plan.cloned_from),
            ("paths", shown_argv(scope.paths) if scope.paths else "the whole workspace"),
            ("network", short_name(scope, "network") or "none"),
            ("domains", shown_argv(scope.domains) if scope.domains else ""),
            (
                "isolation",
                f"{short_name(scope, 'min_ladder_level').upper()} or better" if scope.min_ladder_level else "",
            ),
            ("limits", _limits(scope)),
            ("on failure", short_name(plan, "failure_policy")),
        ]
    )
    steps = "\n".join(step_text(step) for step in plan.steps)
    return f"{head}\n\nsteps\n{indented(steps)}"


def step_text(step: plan_pb2.Step) -> str:
    """Return one step with all its parameters."""
    kind = step.WhichOneof("action") or "unknown"
    title = f"{safe_line(step.step_id)}  {kind}  ({short_name(step, 'stage') or 'no stage'})"
    if step.description:
        title += f"  {safe_line(step.description)}"
    action: Message = getattr(step, kind) if kind != "unknown" else plan_pb2.Step()
    parameters = [_parameter(field.name, value) for field, value in action.ListFields()]
    return "\n".join([title, *(indented(text, "    ") for text in parameters)])


def bounded_text(text: str) -> str:
    """Return a text's first lines, safe to show, and how much is left out."""
    lines = text.split("\n")
    shown = [_bounded_line(line) for line in lines[:TEXT_LINES]]
    if len(lines) > TEXT_LINES:
        shown.append(f"… {len(lines) - TEXT_LINES} more lines (gonogo show -o json has them all)")
    return "\n".join(shown)


def _bounded_line(line: str) -> str:
    safe = safe_block(line[:LINE_CHARACTERS])
    left = len(line) - LINE_CHARACTERS
    return f"{safe}… {left} more characters" if left > 0 else safe


def _parameter(name: str, value: Any) -> str:
    if name == "argv":
        return f"argv: {shown_argv(list(value))}"
    if isinstance(value, str):
        return f"{name}:\n{indented(bounded_text(value))}" if "\n" in value else f"{name}: {_bounded_line(value)}"
    if hasattr(value, "items"):
        return "\n".join(f"{name}: {_bounded_line(f'{key}={text}')}" for key, text in sorted(value.items()))
    return f"{name}: {_plain(value)}"


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(str(item) for item in value) if hasattr(value, "__len__") else str(value)


def _limits(scope: plan_pb2.Scope) -> str:
    parts = [f"{scope.max_duration_seconds} s for one command"] if scope.max_duration_seconds else []
    parts += [f"{scope.max_bytes} bytes in all"] if scope.max_bytes else []
    parts += [f"{scope.max_pages} pages"] if scope.max_pages > 1 else []
    return ", ".join(parts)
