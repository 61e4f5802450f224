"""A plan as the person who decides must see it: every parameter of every step, texts bounded and the rest counted."""

from typing import Any

from google.protobuf.message import Message

from client.json_form import short_enum, short_name
from client.plan_defaults import LIVE
from client.render.layout import fields, indented
from gonogo.digests import digest
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
            ("pauses", _pauses(plan.pause)),
            ("goes on with", _segment(plan)),
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
    lines = [title, indented(_parameters(action), "    ")] if action.ListFields() else [title]
    if step.needs_approval:
        lines.append("    waits for a signature of its own before it is committed")
    if kind in LIVE:
        lines.append(indented(_compensation(step), "    "))
    return "\n".join(lines)


def _compensation(step: plan_pb2.Step) -> str:
    """Return what would make up for a live step's effect."""
    if not step.HasField("compensation"):
        return "compensation: none; what it does is irreversible"
    kind = step.compensation.WhichOneof("action") or "unknown"
    said = f"  {safe_line(step.compensation.description)}" if step.compensation.description else ""
    action: Message = getattr(step.compensation, kind) if kind != "unknown" else plan_pb2.Step()
    return f"compensation: {kind}{said}\n{indented(_parameters(action))}"


def _parameters(action: Message) -> str:
    return "\n".join(_parameter(field, value) for field, value in action.ListFields())


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


def _parameter(field: Any, value: Any) -> str:
    name = field.name
    if hasattr(value, "items"):
        return "\n".join(f"{name}: {_bounded_line(f'{key}={text}')}" for key, text in sorted(value.items()))
    if field.is_repeated:
        return _several(field, value)
    if isinstance(value, str):
        return _text(name, value)
    if isinstance(value, Message):
        return f"{name}:\n{indented(_parameters(value))}" if value.ListFields() else f"{name}: yes"
    if field.enum_type is not None:
        return f"{name}: {short_enum(field.enum_type, value) or '-'}"
    return f"{name}: {_plain(value)}"


def _several(field: Any, values: Any) -> str:
    if field.name == "argv":
        return f"argv: {shown_argv(list(values))}"
    if field.message_type is not None:
        return "\n".join(f"{field.name}: {_bounded_line(_pair(item))}" for item in values)
    if field.type == field.TYPE_STRING:
        return "\n".join(_text(f"{field.name} {number}", text) for number, text in enumerate(values, 1))
    return f"{field.name}: {_plain(values)}"


def _text(name: str, text: str) -> str:
    return f"{name}:\n{indented(bounded_text(text))}" if "\n" in text else f"{name}: {_bounded_line(text)}"


def _pair(header: Any) -> str:
    return f"{header.name}: {header.value}"


def _plain(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes, {digest(value)}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(str(item) for item in value) if hasattr(value, "__len__") else str(value)


def _pauses(pause: plan_pb2.PauseRules) -> str:
    if not pause.deadline_seconds:
        return ""  # a plan of an older release
    own = f"a step's own approval within {shown_seconds(pause.step_approval_seconds)}"
    return f"{shown_seconds(pause.deadline_seconds)}, then {short_name(pause, 'default_action')}; {own}"


def _segment(plan: plan_pb2.Plan) -> str:
    if not plan.segment:
        return ""
    return f"execution {plan.execution_id} as segment {plan.segment}, after {plan.journal_digest}"


def shown_seconds(seconds: int) -> str:
    """Return a time span in its largest whole unit."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _limits(scope: plan_pb2.Scope) -> str:
    parts = [f"{scope.max_duration_seconds} s for one command"] if scope.max_duration_seconds else []
    parts += [f"{scope.max_bytes} bytes in all"] if scope.max_bytes else []
    parts += [f"{scope.max_pages} pages"] if scope.max_pages > 1 else []
    return ", ".join(parts)
