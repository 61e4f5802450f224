"""The one table from reasons, report statuses and outcomes to exit codes.

====  ==========================================================================================
code  meaning
====  ==========================================================================================
0     done; a dry run that is a success; an execution whose outcome is success
1     error: bad input, not running, not found, an unclear chat message, a failed check
2     usage: the command line itself is wrong
3     waiting for approval: not approved, quorum not met, nobody there to ask; an execution that
      waits for a signature or because somebody paused it
4     rejected, cancelled or expired; approval revoked or expired; an execution that waits because
      what it stands on was taken back
5     drift (the workspace is no longer what the report was made from) or divergence
6     execution failed, partial or rolled back, or waits after a failure; a dry run that failed
7     not permitted: a gate, a signature, the policy or the scope says no; a dry run that is
      unsafe or blocked
8     already executed
====  ==========================================================================================

A reason that is not in the table is an error: 1. An execution that took place is judged by its receipt, whatever reason
ended it: a success is 0, also where what diverged was made good by a retry or a repair; else 5 where a divergence was
detected, else by its outcome.
"""

import enum
from collections.abc import Mapping

from client.errors import ClientError, ResultError


class ExitCode(enum.IntEnum):
    """What the command's end means to a script."""

    DONE = 0
    ERROR = 1
    USAGE = 2
    WAITING = 3
    REJECTED = 4
    DRIFT = 5
    FAILED = 6
    NOT_PERMITTED = 7
    ALREADY_EXECUTED = 8


LOCAL_REASONS = frozenset(
    {
        "CHECK_FAILED",
        "DECLINED",
        "FILE_UNREADABLE",
        "INTERNAL",
        "INTERRUPTED",
        "KEY_UNUSABLE",
        "NOT_RUNNING",
        "NO_TERMINAL",
        "SERVICE_DIED",
        "STATE_EXISTS",
        "STATE_LOCKED",
        "STATE_MISSING",
        "USAGE",
        "WORKSPACE_INVALID",
    }
)

BY_REASON: Mapping[str, ExitCode] = {
    "USAGE": ExitCode.USAGE,
    "NOT_APPROVED": ExitCode.WAITING,
    "QUORUM_NOT_MET": ExitCode.WAITING,
    "NO_TERMINAL": ExitCode.WAITING,
    "DECLINED": ExitCode.WAITING,
    "APPROVAL_EXPIRED": ExitCode.REJECTED,
    "APPROVAL_REVOKED": ExitCode.REJECTED,
    "BASE_DRIFTED": ExitCode.DRIFT,
    "DIVERGED": ExitCode.DRIFT,
    "SIMULATION_FAILED": ExitCode.FAILED,
    "SIMULATION_UNSAFE": ExitCode.NOT_PERMITTED,
    "SIMULATION_BLOCKED": ExitCode.NOT_PERMITTED,
    "REPORT_MISSING": ExitCode.NOT_PERMITTED,
    "REPORT_UNKNOWN": ExitCode.NOT_PERMITTED,
    "SIGNATURE_INVALID": ExitCode.NOT_PERMITTED,
    "APPROVER_UNKNOWN": ExitCode.NOT_PERMITTED,
    "SELF_APPROVAL": ExitCode.NOT_PERMITTED,
    "PLAN_MISMATCH": ExitCode.NOT_PERMITTED,
    "MISSION_MISMATCH": ExitCode.NOT_PERMITTED,
    "WORKSPACE_MISMATCH": ExitCode.NOT_PERMITTED,
    "EXECUTOR_MISMATCH": ExitCode.NOT_PERMITTED,
    "PEER_NOT_ALLOWED": ExitCode.NOT_PERMITTED,
    "UNAUTHENTICATED": ExitCode.NOT_PERMITTED,
    "ROLE_MISSING": ExitCode.NOT_PERMITTED,
    "PATH_OUTSIDE_SCOPE": ExitCode.NOT_PERMITTED,
    "STATE_FORBIDS": ExitCode.NOT_PERMITTED,
    "POLICY_REFUSES": ExitCode.NOT_PERMITTED,
    "HARDWARE_KEY_NEEDED": ExitCode.NOT_PERMITTED,
    "LADDER_TOO_LOW": ExitCode.NOT_PERMITTED,
    "NETWORK_REFUSED": ExitCode.NOT_PERMITTED,
    "FAR_SIDE_UNKNOWN": ExitCode.NOT_PERMITTED,
    "STEP_NOT_WAITING": ExitCode.NOT_PERMITTED,
    "EXECUTION_PAUSED": ExitCode.WAITING,
    "EFFECT_UNKNOWN": ExitCode.WAITING,
    "STOPPED": ExitCode.REJECTED,
    "TOOL_CHANGED": ExitCode.DRIFT,
    "ROWS_DIVERGED": ExitCode.DRIFT,
    "FETCH_FAILED": ExitCode.FAILED,
    "EFFECT_FAILED": ExitCode.FAILED,
    "TOOL_FAILED": ExitCode.FAILED,
    "NOT_READY": ExitCode.FAILED,
    "CLOCK_BEHIND": ExitCode.NOT_PERMITTED,
    "TRUST_EXPIRED": ExitCode.NOT_PERMITTED,
    "AUDIT_FORKED": ExitCode.NOT_PERMITTED,
    "ALREADY_EXECUTED": ExitCode.ALREADY_EXECUTED,
    "ALREADY_CLAIMED": ExitCode.ALREADY_EXECUTED,
}

BY_REPORT_STATUS: Mapping[str, ExitCode] = {
    "success": ExitCode.DONE,
    "unsafe": ExitCode.NOT_PERMITTED,
    "blocked": ExitCode.NOT_PERMITTED,
    "failed": ExitCode.FAILED,
}

BY_OUTCOME: Mapping[str, ExitCode] = {
    "success": ExitCode.DONE,
    "partial": ExitCode.FAILED,
    "rolled_back": ExitCode.FAILED,
    "aborted": ExitCode.FAILED,
    "unknown": ExitCode.FAILED,
}

BY_PAUSE: Mapping[str, ExitCode] = {
    "requested": ExitCode.WAITING,
    "step_approval": ExitCode.WAITING,
    "unknown_effect": ExitCode.WAITING,
    "revoked": ExitCode.REJECTED,
    "failure": ExitCode.FAILED,
    "interrupted": ExitCode.FAILED,
    "unknown_outcome": ExitCode.FAILED,
}

# A mission that stands so can not be executed; what keeps it from that decides.
BY_MISSION_STATUS: Mapping[str, ExitCode] = {
    "proposed": ExitCode.WAITING,
    "rejected": ExitCode.REJECTED,
    "expired": ExitCode.REJECTED,
    "cancelled": ExitCode.REJECTED,
    "active": ExitCode.ALREADY_EXECUTED,
    "paused": ExitCode.ALREADY_EXECUTED,
    "completed": ExitCode.ALREADY_EXECUTED,
    "failed": ExitCode.ALREADY_EXECUTED,
}


def for_error(error: ClientError) -> int:
    """Return the exit code of an error: a result's own, else what its reason says."""
    return error.exit_code if isinstance(error, ResultError) else for_reason(error.reason)


def for_reason(reason: str) -> ExitCode:
    """Return the exit code of a refusal or error."""
    return BY_REASON.get(reason, ExitCode.ERROR)


def for_report(status: str) -> ExitCode:
    """Return the exit code of a dry run."""
    return BY_REPORT_STATUS.get(status, ExitCode.ERROR)


def for_outcome(outcome: str, *, diverged: bool) -> ExitCode:
    """Return the exit code of an execution; a divergence outweighs what was made of it, unless it was made good."""
    if diverged and outcome != "success":
        return ExitCode.DRIFT
    return BY_OUTCOME.get(outcome, ExitCode.ERROR)


def for_pause(kind: str) -> ExitCode:
    """Return the exit code of a command that followed an execution to where it waits."""
    return BY_PAUSE.get(kind, ExitCode.ERROR)


def table_text() -> str:
    """Return the table as `gonogo help exit-codes` prints it."""
    lines = (__doc__ or "").splitlines()[2:]
    meanings = [line for line in lines if not line.startswith("====")]
    reasons: dict[ExitCode, list[str]] = {}
    for reason, code in BY_REASON.items():
        reasons.setdefault(code, []).append(reason)
    listed = [f"{code.value}     {', '.join(names)}" for code, names in sorted(reasons.items())]
    return "\n".join([*meanings, "", "by reason:", *listed])
