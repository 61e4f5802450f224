"""What can go wrong in the executor, by whose fault it is and what it means for the work.

Each error carries a stable reason (a name of `gonogo.v1.Reason` without its prefix), what happened, and what to do.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What went wrong, as every face shows it."""

    reason: str
    message: str
    remedy: str
    paths: tuple[bytes, ...] = ()


class ExecutorError(Exception):
    """Root of the executor's errors."""

    def __init__(self, reason: str, message: str, remedy: str, *, paths: tuple[bytes, ...] = ()) -> None:
        super().__init__(message)
        self.fault = Fault(reason=reason, message=message, remedy=remedy, paths=paths)


class RequestMalformedError(ExecutorError):
    """The caller sent something that is not a well-formed request; the caller must change it."""


class GateRefusedError(ExecutorError):
    """A gate does not hold: nothing was touched, written or used up."""

    def __init__(self, gate: int, reason: str, message: str, remedy: str, *, paths: tuple[bytes, ...] = ()) -> None:
        super().__init__(reason, message, remedy, paths=paths)
        self.gate = gate


class StepFailedError(ExecutorError):
    """The step can not do what it says on the tree it found: a dry run is `failed`, an execution undoes the step."""


class StepBlockedError(ExecutorError):
    """Scope, policy or the ladder level does not allow the step: a dry run is `blocked`."""


class StepUnsafeError(ExecutorError):
    """The step's result may not be committed, such as a device or a setuid file: a dry run is `unsafe`."""


class DriftError(ExecutorError):
    """The workspace is no longer what the report was made from; `fault.paths` names where."""


class NotFoundError(ExecutorError):
    """What was asked for is not here."""


class StoreError(ExecutorError):
    """The executor's own storage failed or is full; nothing may run until it works again."""
