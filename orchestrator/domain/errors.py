"""What can go wrong in the orchestrator: whose fault it is, what happened, and what to do next."""

from collections.abc import Mapping
from enum import StrEnum

from orchestrator.domain.evidence import Sealed


class Reason(StrEnum):
    """The contract's stable reasons, one for one; a client may rely on them."""

    REPORT_MISSING = "REPORT_MISSING"
    REPORT_UNKNOWN = "REPORT_UNKNOWN"
    SIMULATION_UNSAFE = "SIMULATION_UNSAFE"
    SIMULATION_BLOCKED = "SIMULATION_BLOCKED"
    SIMULATION_FAILED = "SIMULATION_FAILED"
    NOT_APPROVED = "NOT_APPROVED"
    QUORUM_NOT_MET = "QUORUM_NOT_MET"
    APPROVAL_EXPIRED = "APPROVAL_EXPIRED"
    APPROVAL_REVOKED = "APPROVAL_REVOKED"
    SIGNATURE_INVALID = "SIGNATURE_INVALID"
    APPROVER_UNKNOWN = "APPROVER_UNKNOWN"
    SELF_APPROVAL = "SELF_APPROVAL"
    PLAN_MISMATCH = "PLAN_MISMATCH"
    MISSION_MISMATCH = "MISSION_MISMATCH"
    WORKSPACE_MISMATCH = "WORKSPACE_MISMATCH"
    EXECUTOR_MISMATCH = "EXECUTOR_MISMATCH"
    BASE_DRIFTED = "BASE_DRIFTED"
    ALREADY_EXECUTED = "ALREADY_EXECUTED"
    ALREADY_CLAIMED = "ALREADY_CLAIMED"
    MALFORMED = "MALFORMED"
    PEER_NOT_ALLOWED = "PEER_NOT_ALLOWED"
    INTERNAL = "INTERNAL"
    NOT_FOUND = "NOT_FOUND"
    REQUEST_REUSED = "REQUEST_REUSED"
    STATE_FORBIDS = "STATE_FORBIDS"
    EXECUTOR_UNAVAILABLE = "EXECUTOR_UNAVAILABLE"
    STORE_FULL = "STORE_FULL"
    OVERLOADED = "OVERLOADED"
    RESUME_TOKEN_INVALID = "RESUME_TOKEN_INVALID"  # noqa: S105 - a reason, no password
    WORKSPACE_UNKNOWN = "WORKSPACE_UNKNOWN"
    PLAN_INVALID = "PLAN_INVALID"
    PATH_OUTSIDE_WORKSPACE = "PATH_OUTSIDE_WORKSPACE"
    PATH_OUTSIDE_SCOPE = "PATH_OUTSIDE_SCOPE"
    PATH_INVALID = "PATH_INVALID"
    TOO_LARGE = "TOO_LARGE"
    UNSUPPORTED = "UNSUPPORTED"
    DIVERGED = "DIVERGED"
    CONFLICT = "CONFLICT"
    PROGRAM_HIDDEN = "PROGRAM_HIDDEN"
    COMMAND_FAILED = "COMMAND_FAILED"
    TESTS_UNEXPECTED = "TESTS_UNEXPECTED"
    JUNIT_MISSING = "JUNIT_MISSING"
    JUNIT_UNREADABLE = "JUNIT_UNREADABLE"
    LADDER_TOO_LOW = "LADDER_TOO_LOW"
    CHECKPOINT_GONE = "CHECKPOINT_GONE"
    POLICY_REFUSES = "POLICY_REFUSES"
    HARDWARE_KEY_NEEDED = "HARDWARE_KEY_NEEDED"
    CLOCK_BEHIND = "CLOCK_BEHIND"
    TRUST_EXPIRED = "TRUST_EXPIRED"
    AUDIT_FORKED = "AUDIT_FORKED"
    SECRET_IN_PLAN = "SECRET_IN_PLAN"  # noqa: S105 - a reason, no password
    SECRET_UNAVAILABLE = "SECRET_UNAVAILABLE"  # noqa: S105 - a reason, no password
    UNAUTHENTICATED = "UNAUTHENTICATED"
    ROLE_MISSING = "ROLE_MISSING"
    SECRET_EXPOSED = "SECRET_EXPOSED"  # noqa: S105 - a reason, no password
    NETWORK_REFUSED = "NETWORK_REFUSED"
    FETCH_FAILED = "FETCH_FAILED"
    TOOL_CHANGED = "TOOL_CHANGED"
    FAR_SIDE_UNKNOWN = "FAR_SIDE_UNKNOWN"
    ROWS_DIVERGED = "ROWS_DIVERGED"
    EFFECT_UNKNOWN = "EFFECT_UNKNOWN"
    EFFECT_FAILED = "EFFECT_FAILED"
    EXECUTION_PAUSED = "EXECUTION_PAUSED"
    STOPPED = "STOPPED"
    NOT_READY = "NOT_READY"
    STEP_NOT_WAITING = "STEP_NOT_WAITING"
    TOOL_FAILED = "TOOL_FAILED"


class OrchestratorError(Exception):
    """Root of the orchestrator's errors: a stable reason, what happened, and a remedy."""

    def __init__(self, reason: Reason, message: str, remedy: str, *, facts: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.remedy = remedy
        self.facts = dict(facts or {})
        """Further facts for programs, such as the mission's status."""


class RequestRefusedError(OrchestratorError):
    """The caller asked for something that is malformed, unknown or not allowed; the caller must change it."""


class StateForbidsError(OrchestratorError):
    """The mission stands where this can not be done."""


class ContractError(OrchestratorError):
    """A message, document or stored row does not say what the contract says it must; nothing in it is relied on."""


class ExecutorUnavailableError(OrchestratorError):
    """The executor can not be reached, or the connection to it broke; what it did meanwhile is not known."""


class ExecutorRefusedError(OrchestratorError):
    """The executor answered that it will not; it has touched nothing for this request.

    `refusal` is its signed statement, where it gave one.
    """

    def __init__(
        self,
        reason: Reason,
        message: str,
        remedy: str,
        *,
        facts: Mapping[str, str] | None = None,
        refusal: Sealed | None = None,
    ) -> None:
        super().__init__(reason, message, remedy, facts=facts)
        self.refusal = refusal


class TransitionError(OrchestratorError):
    """A mission's status and an event that do not go together: a fault of ours, and nothing is recorded."""

    def __init__(self, status: str, event_type: str) -> None:
        super().__init__(
            Reason.INTERNAL,
            f"a mission that is {status} can not take the event {event_type}",
            "Report this with the mission's events; nothing was changed.",
        )


def malformed(message: str, remedy: str) -> RequestRefusedError:
    """Say that a request is not well formed."""
    return RequestRefusedError(Reason.MALFORMED, message, remedy)
