"""How far an execution has come: what a receipt is written from, and what a restart finds again."""

from dataclasses import dataclass, field

from executor.domain.changes import Node
from executor.domain.control import Pause
from executor.domain.plan import FailurePolicy, Step
from executor.domain.receipt import ApprovalRecord, EffectState, StepReceipt
from executor.domain.report import StepReport
from executor.runner.desk import Stop
from executor.runner.letting_go import Commits
from executor.runner.segments import Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What is wrong with a step now."""

    reason: str
    message: str


@dataclass(slots=True, kw_only=True)
class Position:
    """Everything that an execution has done so far."""

    commits: Commits
    segments: list[Segment]
    """Those under way and before; the last is the one that goes on."""
    next: int = 0
    """The place of the next step in the last segment's plan."""
    receipts: dict[str, StepReceipt] = field(default_factory=dict)
    """By step, in the order in which they were first begun."""
    attempts: dict[str, int] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    """What stands in the way of a success: of steps of the last segment."""
    approvals: dict[str, tuple[ApprovalRecord, ...]] = field(default_factory=dict)
    """The steps that were approved by themselves."""
    before: dict[bytes, Node | None] = field(default_factory=dict)
    after: dict[bytes, Node | None] = field(default_factory=dict)
    divergence: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What went wrong and is no step's."""
    reason: str = ""
    """Why it is no success where that is no step's: it was stopped, or its result is another."""
    stop: Stop | None = None
    doubtful: bool = False
    """Whether a compensation, or what the ledger has lost, had its effect nobody knows."""
    left_alone: bool = False
    """What was done stays as it is, since nobody knows all of it."""

    @property
    def segment(self) -> Segment:
        return self.segments[-1]

    @property
    def current(self) -> tuple[Step, StepReport] | None:
        """The next step, and what its dry run found; None after the last one."""
        steps = self.segment.plan.steps
        return (steps[self.next], self.segment.report.steps[self.next]) if self.next < len(steps) else None

    @property
    def number(self) -> int:
        """The number of the next step, counted from 1 through the steps of all segments."""
        return sum(len(one.plan.steps) for one in self.segments[:-1]) + self.next + 1

    @property
    def abort_reason(self) -> str:
        """Why it is no success; empty where nothing stands in the way."""
        return self.reason or next((one.reason for one in self.failures.values()), "")

    @property
    def errors(self) -> tuple[str, ...]:
        """What went wrong and was not made good since, in words."""
        return (*(f"{step_id}: {one.message}" for step_id, one in self.failures.items()), *self.notes)

    @property
    def rolls_back(self) -> bool:
        """Whether what was done is to be undone, now that no step begins any more."""
        if self.left_alone:
            return False
        if self.stop is not None:
            return self.stop.roll_back
        return bool(self.abort_reason) and self.segment.plan.failure_policy is FailurePolicy.ROLL_BACK

    def open(self, segment: Segment) -> None:
        """Go on with a repair plan in place of the rest: what failed before stands in nobody's way any more."""
        self.segments.append(segment)
        self.next = 0
        self.failures.clear()

    def step(self, step_id: str) -> Step:
        """Return a step of any of the plans.

        Raises:
            LookupError: there is none of that name.
        """
        for segment in self.segments:
            for step in segment.plan.steps:
                if step.step_id == step_id:
                    return step
        raise LookupError(step_id)

    def has_effects(self, *states: EffectState) -> bool:
        """Tell whether the effect of any live step is in one of some states."""
        return any(one.effect is not None and one.effect.state in states for one in self.receipts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """Where an execution that broke off goes on, and what it does first: wait, or be ended where it stands."""

    position: Position
    pause: Pause | None = None
    told: bool = False
    """The pause is the one that the durable events end with."""
    stop: Stop | None = None
    """Somebody had it end before it broke off."""
    completed: bool = False
    """It was told already that it had ended."""
