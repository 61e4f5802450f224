"""What network sandboxed commands have, as the runner needs it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from executor.domain.plan import Plan
from executor.sandbox.sandbox import Gateway


def no_lines() -> tuple[str, ...]:
    """Tell nothing."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandGate:
    """What network one sandboxed command has."""

    gateway: Gateway | None = None
    why_none: str = ""
    """Why a command has none although its plan asks for one."""
    told: Callable[[], tuple[str, ...]] = no_lines
    """Returns what the command reached and was refused, a line each."""


class CommandNetwork(Protocol):
    """Decides what network sandboxed commands have."""

    def gate(self, plan: Plan) -> CommandGate:
        """Return what the next command of a plan may reach."""
        ...


class NoNetwork:
    """Gives no command a network."""

    def gate(self, _plan: Plan) -> CommandGate:
        """Return none."""
        return CommandGate()


NO_NETWORK: Final = NoNetwork()
