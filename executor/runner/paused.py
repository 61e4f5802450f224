"""What an execution waits for when it stands where it stands, and whether it can go on after it has waited."""

from dataclasses import replace
from datetime import datetime

from executor.domain.changes import Node
from executor.domain.control import ControlAction, Pause, PauseKind
from executor.domain.errors import ExecutorError
from executor.domain.events import ApprovalRevoked, ExecutionPaused
from executor.domain.pauses import REPAIRABLE, WHILE_PAUSED, Place, pause_of
from executor.domain.revocation import SHOWN_REASON, RevocationRecord
from executor.runner.disk import states_on_disk
from executor.runner.live_steps import NEVER_AGAIN
from executor.runner.orders import Order
from executor.runner.position import Position
from executor.runner.results import results_digest
from gonogo.digests import step_digest
from gonogo.safe_text import excerpt, safe_line, shown_path

SHOWN_PATHS = 20


class Pauses:
    """Makes the pauses of one execution."""

    def __init__(self, order: Order, position: Position) -> None:
        self._order = order
        self._position = position

    def make(self, kind: PauseKind, reason: str, step_id: str) -> Pause:
        """Return a pause that begins now; see `new_pause`."""
        return new_pause(self._position, kind, reason, step_id, self._order.now())

    def taken_back(self, revoked: RevocationRecord) -> Pause:
        """Say that somebody took back what the execution stands on, and return the pause for that."""
        self._order.emit(
            ApprovalRevoked(
                revocation_id=revoked.revocation_id,
                approver=revoked.person,
                denied=revoked.denied,
                reason=safe_line(excerpt(revoked.reason, SHOWN_REASON)),
            )
        )
        step_id = self._next_step()
        return self.make(PauseKind.REVOKED, f"stopped before {step_id or 'the end'}: {revoked.words}", step_id)

    def after(self, pause: Pause) -> Pause | None:
        """Look whether it can go on after a pause; where not, return what it waits for now, for as long as before."""
        revoked = self._order.desk.revoked()
        again = self.taken_back(revoked) if revoked is not None else self._drifted()
        return again and replace(again, deadline=pause.deadline or again.deadline)

    def _drifted(self) -> Pause | None:
        try:
            different = self._different()
        except ExecutorError as error:  # the workspace is not there now, and may be there again
            reason = f"{error.fault.reason}: {error.fault.message}"
            return self.make(PauseKind.FAILURE, reason, self._next_step())
        if not different:
            return None
        shown = ", ".join(different[:SHOWN_PATHS])
        reason = f"BASE_DRIFTED: what was committed is not as it was left: {shown}"
        return self.make(PauseKind.FAILURE, reason, self._next_step())

    def _different(self) -> list[str]:
        """Return the paths that are not as the execution has left them."""
        after = self._position.after
        found = states_on_disk(self._order.workspace.open(), after)
        return [safe_line(shown_path(path)) for path, node in sorted(after.items()) if not _same(found, path, node)]

    def _next_step(self) -> str:
        following = self._position.current
        return following[0].step_id if following else ""


def new_pause(position: Position, kind: PauseKind, reason: str, step_id: str, now: datetime) -> Pause:
    """Return a pause that begins now, where an execution stands.

    Args:
        position: where it stands.
        kind: what it waits for.
        reason: why, in words.
        step_id: the step that it is about; may be empty.
        now: effective time.
    """
    segment = position.segment
    named = step_digest(segment.claim.report_digest, step_id) if step_id else ""
    place = Place(step_id=step_id, results_digest=results_digest(position), change_set_digest=named)
    return _offered(pause_of(kind, safe_line(reason), place, segment.plan.pause, now), position)


def told_pause(told: ExecutionPaused, position: Position) -> Pause:
    """Return the pause that an event told of, with the same end."""
    pause = Pause(
        kind=told.kind,
        reason=told.reason,
        step_id=told.step_id,
        deadline=told.deadline,
        default_action=told.default_action,
        results_digest=told.results_digest,
        change_set_digest=told.change_set_digest,
        actions=WHILE_PAUSED[told.kind],
        repairable=told.kind in REPAIRABLE,
    )
    return _offered(pause, position)


def _offered(pause: Pause, position: Position) -> Pause:
    """Leave out what can not be done there: an effect that may have happened is never begun once more."""
    receipt = position.receipts.get(pause.step_id)
    if receipt is None or receipt.effect is None or receipt.effect.state not in NEVER_AGAIN:
        return pause
    again = {ControlAction.RETRY, ControlAction.RESUME} if not receipt.success else set()
    return replace(pause, actions=tuple(one for one in pause.actions if one not in again))


def _same(found: dict[bytes, Node | None], path: bytes, node: Node | None) -> bool:
    return path in found and found[path] == node
