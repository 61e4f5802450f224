"""The desk of one execution: controls arrive here, are recorded, and reach the thread that carries it out.

    a control arrives  →  does it fit?  →  recorded in the ledger, durably  →  it takes effect
    a pause begins     →  its event is durable  →  watchers see it, and only from then on somebody can act on it

Both happen under one lock, so that what was recorded is what the execution does next. The thread that carries it out
takes that lock only when it waits: before each step it reads two attributes.
"""

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from executor.domain.cancel import Cancel
from executor.domain.control import ControlAction, Pause, PauseKind
from executor.domain.errors import ExecutorError, StoreError
from executor.domain.events import ExecutionPaused, StepApproved
from executor.domain.pauses import check_fits
from executor.domain.plan import PauseDefault
from executor.domain.receipt import ApprovalRecord, ControlRecord
from executor.domain.revocation import RevocationRecord
from executor.runner.control_ports import DEADLINE, DENY_STEP, ControlEntry, PausedState
from executor.runner.control_records import record_of, records_of, repaired, stop_by, stop_of
from executor.runner.control_requests import ControlInput
from executor.runner.desk import (
    DEADLINE_ACTOR,
    Approved,
    Decision,
    GoOn,
    LeftError,
    PauseWish,
    Reconciled,
    Repair,
    Stop,
)
from executor.runner.ids import new_id
from executor.runner.ports import Claim
from executor.runner.run import Recorder, Run
from executor.runner.segments import Segment
from executor.runner.signed_words import SignedWords
from executor.runner.words import WaitingStep
from gonogo.digests import framed_digest

LOOK_SECONDS: Final = 30.0
STORE_SECONDS: Final = 1.0
GOING_ON: Final = frozenset({ControlAction.RESUME, ControlAction.RETRY})
MOST_CONTROLS: Final = 10_000
"""Each is in the receipt, and a receipt that nobody can read any more is none."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeskParts:
    """What the desks of all executions have in common.

    Args:
        words: verifies and records signed documents, and records controls.
        revoked: what was taken back of what a mission stands on now.
        now: effective time.
        flush: makes a run's events durable; raises StoreError.
        stands_on: has only what is taken back of a repair plan count from now on.
        rest: has a run's events left alone until it goes on; called with whether it waits.
        look: has whoever waits for the end of all work look again.
        look_seconds: how long a wait lasts at most before the clock is asked again.
    """

    words: SignedWords
    revoked: Callable[[str], RevocationRecord | None]
    now: Callable[[], datetime]
    flush: Callable[[Run], None]
    stands_on: Callable[[Claim], None]
    rest: Callable[[Run, bool], None]
    look: Callable[[], None]
    look_seconds: float = LOOK_SECONDS


class ControlDesk:
    """The port `executor.runner.desk.Desk`, and where controls arrive. See there, and above."""

    def __init__(self, parts: DeskParts, run: Run, recorder: Recorder, segments: Sequence[Segment]) -> None:
        self.wish: PauseWish | Stop | None = None
        self.cancel = Cancel()
        self._parts = parts
        self._run = run
        self._emit = recorder
        self._segments = list(segments)
        self._entries: list[ControlEntry] = []
        self._records: list[ControlRecord] = []
        self._pause: Pause | None = None
        self._decision: Decision | None = None
        self._left = False
        self._closed = False
        self._unheeded: ControlEntry | None = None
        events = (one.payload for one in recorder.after(0))
        self._told = {one.approval_id for one in events if isinstance(one, StepApproved)}
        """The step approvals of which everybody was told."""
        self._changed = threading.Condition()

    def remember(self, entries: Sequence[ControlEntry], unheeded: ControlEntry | None) -> None:
        """Take what was recorded before this process; called once, before anything else.

        Args:
            entries: all of it.
            unheeded: the last entry, where nothing of what it leads to is durable.
        """
        self._unheeded = unheeded
        self._entries += entries
        self._records += records_of(entries, [one.claim for one in self._segments])
        self.wish = stop_of(entries)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments so far."""
        return tuple(self._segments)

    @property
    def paused(self) -> Pause | None:
        """What it waits for; None while it runs."""
        return self._pause if self._decision is None else None

    def paused_state(self) -> PausedState | None:
        """Return how it waits, for a repair plan to fit to."""
        pause = self.paused
        if pause is None:
            return None
        return PausedState(
            execution_id=self._run.execution_id,
            segment=self._segments[-1].number,
            kind=pause.kind,
            results_digest=pause.results_digest,
            repairable=pause.repairable,
            step_ids=frozenset(step.step_id for one in self._segments for step in one.plan.steps),
        )

    def revoked(self) -> RevocationRecord | None:
        return self._parts.revoked(self._run.mission_id)

    def controls(self) -> tuple[ControlRecord, ...]:
        return tuple(self._records)

    def wait(self, pause: Pause, *, told: bool) -> Decision:
        with self._changed:
            self._closed = False
            stop = self._stopped(pause)
            if stop is None and not told:
                self._tell(pause)
                stop = self._stopped(pause)  # where there was no room to tell it, controls were taken meanwhile
            known = stop or self._known(pause) or self._asked_before(pause, told=told)
            if known is not None:
                return known
            with self._paused(pause):
                while self._decision is None:
                    self._wait_a_while(pause)
                return self._decision

    def holds(self, approvals: Sequence[ApprovalRecord]) -> bool:
        try:
            return self._parts.words.hold(self._segments[-1].claim, approvals)
        except ExecutorError as error:  # nothing can be decided now; they are asked for anew
            log.warning("whether a step of %s is approved still can not be told: %s", self._run.mission_id, error)
            return False

    def goes_on(self) -> None:
        with self._changed:
            self._stored()

    def closes(self) -> Stop | None:
        with self._changed:
            self._closed = True
            return self.wish if isinstance(self.wish, Stop) else None

    def leave(self) -> None:
        """Have the thread go where it waits, now or later: the process ends."""
        with self._changed:
            self._left = True
            self._changed.notify_all()

    def take(self, request: ControlInput) -> None:
        """Take a control: it is recorded, and then it takes effect.

        Raises:
            ExecutorError: reason STATE_FORBIDS or STEP_NOT_WAITING; nothing was recorded.
            GateRefusedError: the signed document that came with it does not hold.
            StoreError: it could not be recorded, and has no effect.
        """
        with self._changed:
            pause = self.paused
            check_fits(request.action, pause)
            self._check_open(request)
            if pause is None:
                self._take_while_running(request)
            else:
                self._take_while_paused(request, pause)

    def repair(self, claimed: Callable[[], Segment]) -> None:
        """Go on with a repair plan, once that is claimed; nothing else ends the pause meanwhile.

        Raises:
            ExecutorError: reason STATE_FORBIDS, or whatever the claim raises; it waits on.
        """
        with self._changed:
            pause = self.paused
            if pause is None or not pause.repairable:
                raise ExecutorError(
                    "STATE_FORBIDS",
                    "the execution does not wait for a repair plan any more",
                    "look how the mission stands, and plan anew",
                )
            segment = claimed()
            self._parts.stands_on(segment.claim)
            self._segments.append(segment)
            self._records.append(repaired(segment.claim))
            self._decide(Repair(segment=segment))

    def _check_open(self, request: ControlInput) -> None:
        """Refuse what could have no effect any more, and a record without an end; a first stop is always taken."""
        if self._closed:
            raise ExecutorError("STATE_FORBIDS", "the execution is ending", "look how it ends: gonogo show MISSION")
        stops = request.action is ControlAction.STOP and not isinstance(self.wish, Stop)
        if len(self._entries) >= MOST_CONTROLS and not stops:
            raise ExecutorError(
                "OVERLOADED",
                f"the execution was controlled {len(self._entries)} times; its record takes no more but a stop",
                "stop it, with or without a roll-back, and propose the rest as a new mission",
            )

    def _take_while_running(self, request: ControlInput) -> None:
        entry = self._record(request)
        if entry.action is ControlAction.STOP:
            self.wish = stop_by(entry)
            self.cancel.request()
        elif self.wish is None:
            self.wish = PauseWish(actor=entry.actor, reason=entry.reason)

    def _take_while_paused(self, request: ControlInput, pause: Pause) -> None:
        match request.action:
            case ControlAction.STOP:
                self._decide(stop_by(self._record(request)))
            case ControlAction.APPROVE_STEP:
                self._approve(request, pause)
            case ControlAction.RECONCILE:
                word = self._parts.words.reconciliation(request, self._waiting(pause))
                self._record(
                    request, step_id=pause.step_id, word=(word.record.reconciliation_id, word.nonce, word.record.person)
                )
                self._decide(Reconciled(record=word.record))
            case _:
                entry = self._record(request, step_id=pause.step_id)
                self._decide(GoOn(action=request.action.value, actor=entry.actor))

    def _approve(self, request: ControlInput, pause: Pause) -> None:
        """Take one person's signature, or denial; once there are enough it goes on."""
        vote = self._parts.words.step_approval(request, self._waiting(pause))
        approval = vote.record
        word = (approval.approval_id, vote.nonce, approval.approver)
        self._record(request, step_id=pause.step_id, word=word, denied=vote.denied)
        decision = self._standing(pause)
        if decision is not None:
            self._decide(decision)

    def _record(
        self,
        request: ControlInput,
        *,
        step_id: str = "",
        word: tuple[str, str, str] | None = None,
        denied: bool = False,
    ) -> ControlEntry:
        """Record a control, durably; what is told of a signed document is what its signer said."""
        document_id, nonce, actor = word or ("", "", request.actor)
        entry = ControlEntry(
            request_id=request.request_id,
            body_digest=request.body_digest,
            execution_id=self._run.execution_id,
            mission_id=self._run.mission_id,
            action=DENY_STEP if denied else request.action,
            actor=actor,
            reason=request.reason,
            roll_back=request.roll_back,
            step_id=step_id,
            document=request.document,
            recorded_at=self._parts.now(),
            document_id=document_id,
            nonce=nonce,
        )
        self._store(entry)
        return entry

    def _store(self, entry: ControlEntry) -> None:
        self._parts.words.record(entry)
        self._entries.append(entry)
        self._records.append(record_of(entry))

    def _decide(self, decision: Decision) -> None:
        self._decision = decision
        if isinstance(decision, Stop):
            self.wish = decision
        self._run.stands(None, self._segments[-1].number)
        self._changed.notify_all()

    def _stopped(self, pause: Pause) -> Stop | None:
        """Return the stop that was taken before it began to wait; of an unknown effect somebody is asked first."""
        wish = self.wish
        return wish if isinstance(wish, Stop) and pause.kind is not PauseKind.UNKNOWN_EFFECT else None

    def _known(self, pause: Pause) -> Decision | None:
        """Return what was decided before it began to wait: what was recorded and, in a crash, not acted upon."""
        if pause.kind is PauseKind.STEP_APPROVAL:
            return self._standing(pause)
        if pause.kind is PauseKind.UNKNOWN_EFFECT:
            record = self._parts.words.recorded_reconciliation(self._waiting(pause), self._entries)
            return None if record is None else Reconciled(record=record)
        return None

    def _asked_before(self, pause: Pause, *, told: bool) -> Decision | None:
        """Return what somebody decided in just this wait, where it died before anything came of that."""
        entry, self._unheeded = self._unheeded, None
        if entry is None or not told or entry.action not in pause.actions:
            return None
        if entry.action is ControlAction.STOP:
            return stop_by(entry)
        if entry.step_id != pause.step_id:
            return None
        return GoOn(action=entry.action_name, actor=entry.actor) if entry.action in GOING_ON else None

    def _standing(self, pause: Pause) -> Decision | None:
        """Return what the signatures for the step that waits come to, where that decides."""
        try:
            standing = self._parts.words.standing(self._waiting(pause), self._entries)
        except ExecutorError as error:  # nothing can be decided now; whoever signs next asks again
            log.warning("the approvals of step %s can not be counted now: %s", pause.step_id, error)
            return None
        self._tell_votes(pause, [vote.record for vote in standing.votes if not vote.denied])
        if standing.denied_by:
            comment = next((vote.comment for vote in standing.votes if vote.denied), "")
            said = f"denied {pause.step_id}" + (f": {comment}" if comment else "")
            return Stop(actor=standing.denied_by, reason=said, roll_back=False)
        if not standing.approved:
            return None
        approvals = tuple(vote.record for vote in standing.votes)
        actor = ", ".join(one.approver for one in approvals)
        return Approved(step_id=pause.step_id, actor=actor, approvals=approvals)

    def _tell_votes(self, pause: Pause, approvals: Sequence[ApprovalRecord]) -> None:
        """Say who has approved the step; of what was recorded just before a crash nobody was told yet."""
        untold = [one for one in approvals if one.approval_id not in self._told]
        for one in untold:
            self._told.add(one.approval_id)
            self._emit(
                StepApproved(
                    step_id=pause.step_id, approval_id=one.approval_id, approver=one.approver, key_id=one.key_id
                )
            )
        if untold:
            self._flush()

    def _waiting(self, pause: Pause) -> WaitingStep:
        return WaitingStep(
            claim=self._segments[-1].claim,
            step_id=pause.step_id,
            change_set_digest=pause.change_set_digest,
            results_digest=pause.results_digest,
        )

    @contextmanager
    def _paused(self, pause: Pause) -> Iterator[None]:
        """Let everybody see that it waits, from now on and until it goes on."""
        if isinstance(self.wish, PauseWish):
            self.wish = None
        self._pause, self._decision = pause, None
        self._parts.rest(self._run, True)
        self._run.stands(pause, self._segments[-1].number)
        self._parts.look()
        try:
            yield
        finally:
            self._pause, self._decision = None, None
            self._run.stands(None, self._segments[-1].number)
            self._parts.rest(self._run, False)

    def _tell(self, pause: Pause) -> None:
        """Say that it waits; nobody sees it, and nobody can act on it, before that is on the disk."""
        self._emit(
            ExecutionPaused(
                reason=pause.reason,
                kind=pause.kind,
                step_id=pause.step_id,
                deadline=pause.deadline,
                default_action=pause.default_action,
                results_digest=pause.results_digest,
                change_set_digest=pause.change_set_digest,
                actions=pause.actions,
                repairable=pause.repairable,
            )
        )
        self._stored()

    def _stored(self) -> None:
        while not self._flush():
            self._changed.wait(STORE_SECONDS)
            self._check_left()

    def _flush(self) -> bool:
        try:
            self._parts.flush(self._run)
        except StoreError as error:
            log.warning("the events of %s wait for storage: %s", self._run.execution_id, error)
            return False
        return True

    def _check_left(self) -> None:
        if self._left:
            raise LeftError(self._run.execution_id)

    def _wait_a_while(self, pause: Pause) -> None:
        self._check_left()
        if pause.deadline is None:
            self._changed.wait(self._parts.look_seconds)
            return
        left = (pause.deadline - self._parts.now()).total_seconds()
        if left > 0:
            self._changed.wait(min(left, self._parts.look_seconds))
            return
        try:
            self._decision = self.wish = self._deadline(pause)
        except StoreError as error:
            log.warning("the end of the pause of %s waits for storage: %s", self._run.execution_id, error)
            self._changed.wait(min(STORE_SECONDS, self._parts.look_seconds))

    def _deadline(self, pause: Pause) -> Stop:
        """Record that nobody has decided in time, and return what is done then."""
        roll_back = pause.default_action is PauseDefault.ROLL_BACK
        request_id = new_id("deadline")
        entry = ControlEntry(
            request_id=request_id,
            body_digest=framed_digest((DEADLINE.encode(), request_id.encode())),
            execution_id=self._run.execution_id,
            mission_id=self._run.mission_id,
            action=DEADLINE,
            actor=DEADLINE_ACTOR,
            reason="nobody decided in time",
            roll_back=roll_back,
            step_id=pause.step_id,
            document=None,
            recorded_at=self._parts.now(),
        )
        self._store(entry)
        return Stop(actor=entry.actor, reason=entry.reason, roll_back=roll_back)
