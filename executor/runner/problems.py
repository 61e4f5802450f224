"""What an error of a step means for a dry run, and how its report says so."""

from collections.abc import Iterator

from executor.domain.errors import (
    DriftError,
    ExecutorError,
    Fault,
    StepBlockedError,
    StepFailedError,
    StepUnsafeError,
)
from executor.domain.report import Problem, ReportStatus
from executor.domain.unsafe import ResultUnsafeError
from executor.workspace.paths import PathOutsideError
from executor.workspace.staging import StagingUnavailableError
from gonogo.safe_text import shown_path

SHOWN_PATHS = 20

STATUS_OF_ERROR: tuple[tuple[type[ExecutorError], ReportStatus], ...] = (
    (StepBlockedError, ReportStatus.BLOCKED),
    (PathOutsideError, ReportStatus.BLOCKED),
    (StagingUnavailableError, ReportStatus.BLOCKED),
    (StepUnsafeError, ReportStatus.UNSAFE),
    (StepFailedError, ReportStatus.FAILED),
    (DriftError, ReportStatus.FAILED),
)


def status_of(error: ExecutorError) -> ReportStatus | None:
    """Return what a dry run that ends with an error comes to; None where it could not be made at all."""
    return next((status for kind, status in STATUS_OF_ERROR if isinstance(error, kind)), None)


def problems_of(step_id: str, error: ExecutorError) -> Iterator[Problem]:
    """Yield what an error says of each path, the first ones by name and the others by number."""
    faults = error.faults if isinstance(error, ResultUnsafeError) else (error.fault,)
    named = [(path, fault) for fault in faults for path in fault.paths or (b"",)]
    for path, fault in named[:SHOWN_PATHS]:
        yield _problem(step_id, path, fault, fault.message)
    if len(named) > SHOWN_PATHS:
        yield _problem(step_id, b"", named[SHOWN_PATHS][1], f"and {len(named) - SHOWN_PATHS} more paths")


def _problem(step_id: str, path: bytes, fault: Fault, message: str) -> Problem:
    shown = shown_path(path)
    return Problem(step_id=step_id, path=shown, reason=fault.reason, message=message, remedy=fault.remedy)
