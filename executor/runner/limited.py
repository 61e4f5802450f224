"""Dry runs and executions within the limits of the trust file in force when they begin."""

from collections.abc import Callable
from dataclasses import dataclass

from executor.domain.plan import Plan
from executor.domain.policy import Limits
from executor.runner.orders import Executioner, Order
from executor.runner.ports import Emit, Ended, Simulation, Simulator
from executor.workspace.workspace import Workspace


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitedSimulator:
    """The port `executor.runner.ports.Simulator`, made anew for each dry run."""

    limits: Callable[[], Limits]
    within: Callable[[Limits], Simulator]

    def run(self, plan: Plan, workspace: Workspace, emit: Emit) -> Simulation:
        return self.within(self.limits()).run(plan, workspace, emit)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitedExecutioner:
    """The port `executor.runner.orders.Executioner`, made anew for each execution."""

    limits: Callable[[], Limits]
    within: Callable[[Limits], Executioner]

    def run(self, order: Order) -> Ended:
        return self.within(self.limits()).run(order)
