from client.json_form import short_name
from client.render.layout import fields, indented, shortened, table, when
from client.render.pauses import pause_text
from gonogo.v1 import orchestrator_pb2


def whiteboard_text(board: orchestrator_pb2.Whiteboard) -> str:
    """Return a whiteboard."""
    head = fields(
        [
            ("mission", board.mission_id),
            ("objective", board.objective),
            ("status", short_name(board, "status")),
            ("outcome", short_name(board, "outcome")),
            ("started", when(board.start_time)),
            ("ended", when(board.end_time)),
            ("reason", shortened(board.reason)),
            ("answer", "" if board.result.final_answer == board.reason else board.result.final_answer),
            ("tools", ", ".join(board.result.tools_used)),
        ]
    )
    parts = [head]
    if board.HasField("pause"):
        parts.append(pause_text(board.pause, board.mission_id))
    if board.stages:
        stages = [
            (
                short_name(stage, "stage"),
                f"{stage.succeeded}/{stage.steps}",
                when(stage.start_time),
                when(stage.end_time),
            )
            for stage in board.stages
        ]
        parts.append("stages\n" + indented(table(("stage", "steps", "began", "ended"), stages)))
    if board.steps:
        steps = [
            (
                step.step_id,
                step.kind,
                _status(step),
                f"{step.duration_ms} ms",
                step.target,
                step.error or step.description,
            )
            for step in board.steps
        ]
        parts.append("steps\n" + indented(table(("step", "kind", "status", "took", "target", "for"), steps)))
    if board.approvals:
        approvals = [(one.approval_id, one.approver, when(one.time), when(one.expires_at)) for one in board.approvals]
        parts.append("approvals\n" + indented(table(("approval", "by", "at", "until"), approvals)))
    return "\n\n".join(parts)


def _status(step: orchestrator_pb2.WhiteboardStep) -> str:
    """Return how a step stands, and what is not usual about it."""
    marks = [f"segment {step.segment}"] if step.segment else []
    marks += [f"{step.attempts} attempts"] if step.attempts > 1 else []
    return f"{step.status} ({', '.join(marks)})" if marks else step.status
