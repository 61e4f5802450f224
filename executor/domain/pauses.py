"""What an execution that waits takes, and how long it waits: tables, and functions that read them.

An execution runs, or waits for one thing. What somebody wants of it either fits that or is refused by name:

    runs                what fits it
    ------------------  --------------------------------------------------------------
    (nothing)           pause, stop
    requested           resume, stop, a repair plan
    failure             retry, stop, a repair plan
    interrupted         resume, retry, stop, a repair plan
    revoked             resume (refused again while it is still taken back), stop, a repair plan
    step_approval       approve_step, stop
    unknown_effect      reconcile, stop

Nobody can have an effect forgotten of which nobody knows whether it happened: that wait has no end of its own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from executor.domain.control import ControlAction, Pause, PauseKind
from executor.domain.errors import ExecutorError
from executor.domain.plan import PauseDefault, PauseRules

WHILE_RUNNING: Final = (ControlAction.PAUSE, ControlAction.STOP)
WHILE_PAUSED: Final[Mapping[PauseKind, tuple[ControlAction, ...]]] = {
    PauseKind.REQUESTED: (ControlAction.RESUME, ControlAction.STOP),
    PauseKind.FAILURE: (ControlAction.RETRY, ControlAction.STOP),
    PauseKind.INTERRUPTED: (ControlAction.RESUME, ControlAction.RETRY, ControlAction.STOP),
    PauseKind.REVOKED: (ControlAction.RESUME, ControlAction.STOP),
    PauseKind.STEP_APPROVAL: (ControlAction.APPROVE_STEP, ControlAction.STOP),
    PauseKind.UNKNOWN_EFFECT: (ControlAction.RECONCILE, ControlAction.STOP),
    PauseKind.UNKNOWN_OUTCOME: (),
}
REPAIRABLE: Final = frozenset({PauseKind.REQUESTED, PauseKind.FAILURE, PauseKind.INTERRUPTED, PauseKind.REVOKED})

_WORDS_OF_STEPS: Final = frozenset({ControlAction.APPROVE_STEP, ControlAction.RECONCILE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an execution stands when it begins to wait."""

    step_id: str
    results_digest: str
    change_set_digest: str = ""


def pause_of(kind: PauseKind, reason: str, place: Place, rules: PauseRules, now: datetime) -> Pause:
    """Return a pause that begins now.

    Args:
        kind: what it waits for.
        reason: why, in words.
        place: where it stands.
        rules: the plan's.
        now: effective time.
    """
    deadline, default = _end(kind, rules, now)
    return Pause(
        kind=kind,
        reason=reason,
        step_id=place.step_id,
        deadline=deadline,
        default_action=default,
        results_digest=place.results_digest,
        change_set_digest=place.change_set_digest,
        actions=WHILE_PAUSED[kind],
        repairable=kind in REPAIRABLE,
    )


def fitting(pause: Pause | None) -> tuple[ControlAction, ...]:
    """Return what can be asked of an execution that waits, or runs."""
    return WHILE_RUNNING if pause is None else pause.actions


def check_fits(action: ControlAction, pause: Pause | None) -> None:
    """Refuse what does not fit how an execution stands.

    Raises:
        ExecutorError: reason STATE_FORBIDS, or STEP_NOT_WAITING where the word about a step fits nothing.
    """
    fits = fitting(pause)
    if action in fits:
        return
    raise ExecutorError(
        "STEP_NOT_WAITING" if action in _WORDS_OF_STEPS else "STATE_FORBIDS",
        f"{action.value} does not fit the execution: {_standing(action, pause)}",
        f"what fits now: {named(fits)}{', or a repair plan' if pause is not None and pause.repairable else ''}",
    )


def _standing(action: ControlAction, pause: Pause | None) -> str:
    """Say what an action meets that does not fit."""
    if pause is None:
        return "it runs"
    if action in WHILE_PAUSED[pause.kind]:  # a wait of this kind takes it, and this one does not
        return f"the effect of {pause.step_id} has happened, or may have, and is never begun again"
    return f"it waits for another thing ({pause.kind.value})"


def named(actions: Iterable[ControlAction]) -> str:
    """Return actions by the names of their commands."""
    return ", ".join(action.value.replace("_", "-") for action in actions) or "nothing"


def _end(kind: PauseKind, rules: PauseRules, now: datetime) -> tuple[datetime | None, PauseDefault | None]:
    if kind in {PauseKind.UNKNOWN_EFFECT, PauseKind.UNKNOWN_OUTCOME}:
        return None, None
    if kind is PauseKind.STEP_APPROVAL:
        return now + timedelta(seconds=rules.step_approval_seconds), PauseDefault.STOP
    return now + timedelta(seconds=rules.deadline_seconds), rules.default_action
