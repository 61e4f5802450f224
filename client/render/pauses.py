"""Why an execution waits, until when, and what a person can do about it: the very command lines."""

import shlex
from collections.abc import Mapping

from client.json_form import short_name
from client.render.layout import fields, indented, shortened, when
from gonogo.safe_text import safe_line
from gonogo.v1 import events_pb2, executor_pb2

WHY: Mapping[int, str] = {
    events_pb2.PAUSE_KIND_REQUESTED: "somebody asked for it",
    events_pb2.PAUSE_KIND_FAILURE: "a step failed",
    events_pb2.PAUSE_KIND_STEP_APPROVAL: "a step waits for a signature of its own",
    events_pb2.PAUSE_KIND_UNKNOWN_EFFECT: "nobody can tell whether a step's effect happened",
    events_pb2.PAUSE_KIND_REVOKED: "what it stands on was taken back",
    events_pb2.PAUSE_KIND_INTERRUPTED: "the executor ended while it ran",
    events_pb2.PAUSE_KIND_UNKNOWN_OUTCOME: "its outcome is not known",
}


def pause_text(pause: executor_pb2.Pause, mission_id: str) -> str:
    """Return what a paused mission waits for and what can be done."""
    head = fields(
        [
            ("paused", WHY.get(pause.kind, "")),
            ("reason", shortened(pause.reason)),
            ("step", pause.step_id),
            ("deadline", _deadline(pause)),
            ("done so far", pause.results_digest),
            ("would do", pause.change_set_digest),
        ]
    )
    commands = pause_commands(pause, mission_id)
    return f"{head}\nwhat you can do\n{indented(chr(10).join(commands))}" if commands else head


def pause_commands(pause: executor_pb2.Pause, mission_id: str) -> list[str]:
    """Return the command lines that a paused mission takes now, fit to be pasted into a shell whatever its ids are."""
    mission, step = (shlex.quote(safe_line(one)) for one in (mission_id, pause.step_id))
    lines = [line.format(mission=mission, step=step) for action in pause.actions for line in COMMANDS.get(action, ())]
    if pause.kind == events_pb2.PAUSE_KIND_UNKNOWN_OUTCOME:
        lines.append(f"gonogo cancel {mission}")  # it has ended; once looked at, it need not stand there for ever
    return [*lines, f"gonogo repair {mission}"] if pause.repairable else lines


COMMANDS: Mapping[int, tuple[str, ...]] = {
    events_pb2.CONTROL_ACTION_RESUME: ("gonogo resume {mission}",),
    events_pb2.CONTROL_ACTION_RETRY: ("gonogo retry {mission}",),
    events_pb2.CONTROL_ACTION_APPROVE_STEP: (
        "gonogo approve-step {mission} {step} --key KEY",
        "gonogo deny-step {mission} {step} --key KEY",
    ),
    events_pb2.CONTROL_ACTION_RECONCILE: (
        "gonogo reconcile {mission} {step} --happened --key KEY",
        "gonogo reconcile {mission} {step} --did-not --key KEY",
    ),
    events_pb2.CONTROL_ACTION_STOP: ("gonogo stop {mission}", "gonogo stop {mission} --roll-back"),
}
"""What each control is called; a mission that is paused can not be paused."""


def _deadline(pause: executor_pb2.Pause) -> str:
    if not pause.HasField("deadline"):
        return "none: it waits for a person"
    return f"{when(pause.deadline)}, then {short_name(pause, 'default_action') or 'nothing'}"
