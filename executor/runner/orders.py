"""What an execution is done by: the machine that carries it out, and the one that finds out how far it came."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from executor.domain.events import ExecutionCompleted
from executor.domain.plan import Live, Plan
from executor.domain.receipt import ApprovalRecord, EffectRecord, Outcome
from executor.domain.report import Report
from executor.runner.clock import wall_time
from executor.runner.control_ports import ControlEntry, EffectClaim, EffectEntry
from executor.runner.desk import Desk, Undisturbed
from executor.runner.ports import Claim, Emit, Ended, Event
from executor.runner.position import Restored
from executor.runner.segments import Segment
from executor.workspace.workspace import Workspace


class Effects(Protocol):
    """The ledger's part that live steps need."""

    def claim_effect(self, claim: EffectClaim) -> None: ...

    def settle_effect(self, effect_id: str, record: EffectRecord, at: datetime) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One execution, as its executioner gets it.

    `restored` says how far it came before, where this is not its beginning.
    """

    segment: Segment
    workspace: Workspace
    emit: Emit
    desk: Desk = field(default_factory=Undisturbed)
    effects: Effects
    now: Callable[[], datetime] = wall_time
    restored: Restored | None = None

    @property
    def plan(self) -> Plan:
        return self.segment.plan

    @property
    def report(self) -> Report:
        return self.segment.report

    @property
    def execution_id(self) -> str:
        return self.segment.claim.execution_id


class Executioner(Protocol):
    """Commits what the report found, step by step. It owns the failure policy and undoing.

    It emits every event from after `execution_started` to `execution_completed`, that one included.
    """

    def run(self, order: Order) -> Ended:
        """Run it. Called after the claim, under the workspace's lock, in the execution's own thread.

        Before each step it asks the desk what people want, and waits there wherever a person has to decide.

        It does not raise for what goes wrong with a step. Where it does raise, recovery finds out what was done.

        Raises:
            LeftError: the process ends while it waits; nothing was changed by that.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What is known of an execution that a dead process, or a thread that broke off, has left."""

    claims: Sequence[Claim]
    """Segment by segment."""
    plans: Sequence[Plan | None]
    """Their plans; None for what an older release claimed, which kept none."""
    reports: Sequence[Report]
    events: Sequence[Event]
    """What was recorded before the end; the last ones may be missing."""
    controls: Sequence[ControlEntry] = ()
    effects: Sequence[EffectEntry] = ()
    approvals: Mapping[str, tuple[ApprovalRecord, ...]] = field(default_factory=dict)
    """The recorded signatures for single steps."""
    now: Callable[[], datetime] = wall_time
    doubted: bool = False
    """The ledger began anew since: it may be a copy of the past, and not know what was done or taken back later."""

    @property
    def claim(self) -> Claim:
        """What the execution began with."""
        return self.claims[0]

    @property
    def completed(self) -> bool:
        """Whether it was told already that it had ended; only the receipt is missing then."""
        return self.outcome is not None

    @property
    def outcome(self) -> Outcome | None:
        """What was told already that it came to: the receipt says the same, whatever somebody changed since."""
        told = (one.payload for one in reversed(self.events))
        return next((one.outcome for one in told if isinstance(one, ExecutionCompleted)), None)

    @property
    def may_have_reached_outside(self) -> bool:
        """Whether something was done outside, or may have been and the ledger has lost it."""
        live = any(isinstance(step.action, Live) for plan in self.plans if plan for step in plan.steps)
        return bool(self.effects) or (self.doubted and live)

    @property
    def segments(self) -> tuple[Segment, ...] | None:
        """The segments that were claimed; None where one of the plans is not here any more."""
        plans = [plan for plan in self.plans if plan is not None]
        if len(plans) != len(self.claims):
            return None
        parts = zip(self.claims, plans, self.reports, strict=True)
        return tuple(Segment(claim=claim, plan=plan, report=report) for claim, plan, report in parts)


def is_doubted(reports: Sequence[Report], epoch: str) -> bool:
    """Tell whether an execution is of another epoch of the ledger than the present one."""
    return any(report.ledger_epoch != epoch for report in reports)


class Recovery(Protocol):
    """Finds out what became of executions that their own thread, or process, has not brought to an end."""

    def recover(self, left: Left, emit: Emit) -> Ended | Restored:
        """Undo what was half made, and return what the execution came to, or how to go on with it.

        Nothing is ever run again by this. It may be cut off anywhere and called again: it goes on from what the disk
        shows, and comes to the same end. It emits every event from where the execution broke off to where it stands,
        which for one that has ended is `execution_completed`.
        The caller holds the workspace's lock where the workspace is served.
        """
        ...

    def tidy(self, workspace: Workspace) -> None:
        """Let go of everything that ended executions have left in a workspace's journal. The caller holds its lock."""
        ...
