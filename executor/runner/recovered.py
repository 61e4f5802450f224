"""One execution that broke off: what is taken back, what it came to, and what its receipt says."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from executor.domain.changes import Node, net_states, net_times, states_after, states_before, states_fingerprint
from executor.domain.events import (
    DivergenceDetected,
    ExecutionCompleted,
    ExecutionPaused,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionStopped,
    FailureDetected,
    RollbackCompleted,
    RollbackStarted,
    SegmentOpened,
)
from executor.domain.plan import FailurePolicy
from executor.domain.receipt import ExecutionResult, Outcome
from executor.domain.report import Report
from executor.runner.control_records import records_of, stop_of
from executor.runner.disk import mtimes_on_disk, states_on_disk
from executor.runner.ids import new_id
from executor.runner.letting_go import Commits
from executor.runner.orders import Left
from executor.runner.ports import Claim, Emit, Ended, Event
from executor.runner.recovered_steps import CUT_OFF, REASON, KnownStep, known_steps, silent_ends
from executor.workspace.commit import Applied, Committer
from executor.workspace.paths import Directory
from gonogo.safe_text import safe_line, shown_path

SHOWN_DETAILS = 50
_TURNS = (ExecutionPaused, ExecutionResumed, ExecutionStopped, SegmentOpened)


@dataclass(slots=True, kw_only=True)
class Recovered:
    """Decides about one execution; `ended` is called once."""

    left: Left
    emit: Emit
    root: Directory
    committer: Committer | None
    """None where nothing was ever committed, for want of a staging directory."""
    commits: Commits
    steps: tuple[KnownStep, ...] = ()
    divergence: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    reason: str = ""

    @property
    def claim(self) -> Claim:
        return self.left.claim

    @property
    def report(self) -> Report:
        return self.left.reports[0]

    @property
    def events(self) -> Sequence[Event]:
        return self.left.events

    def ends_by_itself(self) -> bool:
        """Tell whether what was left is brought to an end without asking anybody; nothing is changed by that.

        It is not where people had a part in it that a receipt must tell of in full: a repair plan, an effect outside, a
        step's own approval, a wait, or a stop. Otherwise it is, unless the plan has people asked, and something is left
        to ask about.
        """
        left = self.left
        if len(left.claims) > 1 or left.may_have_reached_outside or left.approvals:
            return False
        if _waits(self.events) or stop_of(left.controls) is not None:
            return False
        if self.claim.failure_policy is not FailurePolicy.PAUSE:
            return True
        self.steps = known_steps(self.claim, self.report, self.events, self._mine())
        done = not any(step.failed for step in self.steps) and all(step.done for step in self.steps)
        return (done and not self._different()) or self._is_journal_lost()

    def ended(self) -> Ended:
        """Bring the execution to its end."""
        self._take_stock()
        self._undo([step for step in self.steps if step.commit and not step.commit.complete])
        outcome = self._outcome_without_plans() if self._is_unread else self._outcome()
        outcome = self.left.outcome or outcome
        result = self._result(outcome)
        if not self.left.completed:
            self.emit(ExecutionCompleted(execution_id=self.claim.execution_id, outcome=outcome))
        return Ended(result=result, checkpoints=self.commits.checkpoints(), let_go=self._let_go)

    def _take_stock(self) -> None:
        """Find out how far each step came, and tell what nobody was told of it."""
        self.steps = known_steps(self.claim, self.report, self.events, self._mine())
        self.reason = next(self._failures(), "")
        if not any(isinstance(one.payload, ExecutionStarted) for one in self.events):
            self.emit(ExecutionStarted(execution_id=self.claim.execution_id))
        silent = self._silent()
        for step in self.steps:
            if step.step_id in silent:
                self._tell_silent(step, done=silent[step.step_id])
                continue
            for payload in step.missing_events():
                self.emit(payload)
            if step.is_cut_off:
                self.emit(FailureDetected(step_id=step.step_id, reason=REASON, message=CUT_OFF))
                self.emit(step.completed(success=False))
            if step.commit is not None and step.commit.complete:
                self.commits.standing[step.step_id] = step.commit

    def _silent(self) -> Mapping[str, bool]:
        """Return the steps that left nothing behind before a later one was begun, and whether they were done."""
        goes_on = self.claim.failure_policy is FailurePolicy.CONTINUE
        return silent_ends(self.steps, {entry.claim.step_id for entry in self.left.effects}, goes_on=goes_on)

    def _tell_silent(self, step: KnownStep, *, done: bool) -> None:
        step.begun_again(1)
        for payload in tuple(step.missing_of_silent(done=done)):
            self.emit(payload)
            step.events[type(payload)] = Event(
                event_id=new_id("e"), mission_id="", sequence=0, time=datetime.now(UTC), payload=payload
            )

    def _mine(self) -> list[Applied]:
        pending = () if self.committer is None else self.committer.pending()
        return [applied for applied in pending if self.commits.has(applied)]

    def _is_journal_lost(self) -> bool:
        """Tell whether the disk shows, or an event says, what no record in the journal tells of."""
        if any(step.commit for step in self.steps):
            return False
        before, after = net_states([step.report.changes for step in self.steps])
        found = states_on_disk(self.root, after)
        return any(node == after[path] and node != before[path] for path, node in found.items())

    def _failures(self) -> Iterator[str]:
        """Yield why it is no success, in the order of it; what was made good by a retry is no reason any more."""
        failed = {step.step_id for step in self.steps if step.failed} | {""}
        for event in self.events:
            if isinstance(event.payload, FailureDetected) and event.payload.step_id in failed:
                yield event.payload.reason

    @property
    def _is_unread(self) -> bool:
        """Whether it did more than its first report tells, under plans that can not be read any more."""
        left = self.left
        return left.segments is None and (len(left.claims) > 1 or bool(left.effects))

    def _outcome_without_plans(self) -> Outcome:
        self.reason = self.reason or REASON
        self.errors.append(f"a plan of execution {self.claim.execution_id} can not be read; what it did is left")
        return Outcome.UNKNOWN

    def _outcome(self) -> Outcome:
        if not self.reason and not self.commits.conflicts and all(step.done for step in self.steps):
            # Where it was told that it was one, it was; then somebody else has built on it since.
            different = () if self.left.outcome is Outcome.SUCCESS else self._different()
            if not different:
                return Outcome.SUCCESS
            self.reason = "DIVERGED"
            self._diverged(self.steps[-1], different)
            # To undo what somebody has built on since would leave a mixture; all of it stays, and a person decides.
            return Outcome.UNKNOWN if self._rolls_back else Outcome.PARTIAL
        self.reason = self.reason or REASON
        self.errors.append(f"execution {self.claim.execution_id} broke off; it was not run again")
        if not any(step.commit for step in self.steps):
            return self._outcome_without_journal()
        if self._rolls_back:
            self._undo([step for step in self.steps if step.step_id in self.commits.standing])
        if self.commits.conflicts:
            return Outcome.UNKNOWN
        if self.commits.standing:
            return Outcome.PARTIAL
        undone_whole = any(applied.made_whole for applied in self.commits.undone)
        return Outcome.ROLLED_BACK if undone_whole or self._rolls_back else Outcome.ABORTED

    def _outcome_without_journal(self) -> Outcome:
        """Nothing was committed, unless the disk says otherwise: then the journal was lost, and nobody knows."""
        before, after = net_states([step.report.changes for step in self.steps])
        found = states_on_disk(self.root, after)
        there = [path for path, node in found.items() if node == after[path] and node != before[path]]
        if not there:
            return Outcome.ABORTED
        told = [f"{_shown(path)}: as the plan would leave it, and no journal tells who did that" for path in there]
        self._diverged(self.steps[-1], told)
        return Outcome.UNKNOWN

    @property
    def _rolls_back(self) -> bool:
        return self.claim.failure_policy in {FailurePolicy.ROLL_BACK, FailurePolicy.PAUSE}

    def _undo(self, steps: Iterable[KnownStep]) -> None:
        """Undo some steps, the newest first."""
        for step in sorted(steps, key=lambda step: step.number, reverse=True):
            if step.commit is None or self.committer is None:
                continue
            told = step.was_rolled_back()
            if not told:
                self.emit(RollbackStarted(step_id=step.step_id))
            step.undone = undone = self.committer.undo(step.commit)
            self.commits.took_back(step.step_id, step.commit, undone)
            if not told or not undone.success:
                message = safe_line("; ".join(undone.differences[:SHOWN_DETAILS]))
                self.emit(RollbackCompleted(step_id=step.step_id, success=undone.success, message=message))
            if not undone.success:
                self._diverged(step, undone.differences)

    def _diverged(self, step: KnownStep, details: Sequence[str]) -> None:
        self.divergence += details
        self.emit(DivergenceDetected(step_id=step.step_id, details=tuple(details[:SHOWN_DETAILS])))

    def _different(self) -> tuple[str, ...]:
        """Return how the workspace differs from what all steps together should have left."""
        change_sets = [step.report.changes for step in self.steps]
        _, after = net_states(change_sets)
        found = states_on_disk(self.root, after)
        different = [f"{_shown(path)}: not what the report said" for path in after if _is_other(found, path, after)]
        times = net_times(change_sets)
        now = mtimes_on_disk(self.root, times)
        late = [path for path, mtime_ns in times.items() if now.get(path) != mtime_ns]
        different += [f"{_shown(path)}: another modification time than the report's" for path in late]
        if not different and states_fingerprint(found) != self.report.after_fingerprint:
            different.append("the after fingerprint is not the report's")
        return tuple(different)

    def _result(self, outcome: Outcome) -> ExecutionResult:
        now = datetime.now(UTC)
        begun = [step for step in self.steps if step.begun]
        change_sets = [step.commit.changes for step in begun if step.commit]
        before, made = net_states(change_sets)
        touched = {path for changes in change_sets for path in (*states_before(changes), *states_after(changes))}
        success = outcome is Outcome.SUCCESS
        after = {**states_on_disk(self.root, touched), **(made if success else {})}
        return ExecutionResult(
            outcome=outcome,
            steps=tuple(step.receipt(self.claim.claimed_at, now) for step in (self.steps if success else begun)),
            before=tuple(sorted(before.items())),
            after=tuple(sorted(after.items())),
            after_fingerprint=states_fingerprint(after),
            divergence_details=tuple(self.divergence),
            abort_reason="" if success else self.reason,
            errors=tuple(self.errors),
            controls=records_of(self.left.controls, self.left.claims),
        )

    def _let_go(self) -> None:
        if self.committer is not None:
            self.commits.let_go(self.committer)


def _waits(events: Sequence[Event]) -> bool:
    """Tell whether it waited for a person when it broke off."""
    last = next((one.payload for one in reversed(events) if isinstance(one.payload, _TURNS)), None)
    return isinstance(last, ExecutionPaused)


def _is_other(found: dict[bytes, Node | None], path: bytes, after: dict[bytes, Node | None]) -> bool:
    return path not in found or found[path] != after[path]


def _shown(path: bytes) -> str:
    return safe_line(shown_path(path))
