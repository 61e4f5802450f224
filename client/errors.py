"""What can go wrong on the client's side, always with a stable reason and what to do next."""

from collections.abc import Sequence


class ClientError(Exception):
    """The command can not do what was asked; nothing was changed by the failed part of it.

    `reason` is one of the contract's reasons where a service refused, else one of `client.exit_codes.LOCAL_REASONS`.
    """

    def __init__(self, reason: str, message: str, remedy: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.remedy = remedy


class ResultError(ClientError):
    """What was asked for was done, and came out otherwise than wished; `exit_code` is the result's own."""

    def __init__(self, reason: str, message: str, remedy: str, *, exit_code: int) -> None:
        super().__init__(reason, message, remedy)
        self.exit_code = exit_code


class RemoteError(ClientError):
    """A service refused the call.

    `grpc_status` is the status' name, such as FAILED_PRECONDITION; `paths` are those the refusal is about.
    """

    def __init__(
        self, reason: str, message: str, remedy: str, *, grpc_status: str = "UNKNOWN", paths: Sequence[str] = ()
    ) -> None:
        super().__init__(reason, message, remedy)
        self.grpc_status = grpc_status
        self.paths = tuple(paths)


class NotRunningError(ClientError):
    """No service answers for this state directory."""

    def __init__(self, message: str) -> None:
        remedy = (
            "start the services: gonogo up --workspace ID=PATH (with the same --state or GONOGO_STATE);"
            " where they run elsewhere, name the orchestrator with GONOGO_ORCHESTRATOR"
        )
        super().__init__("NOT_RUNNING", message, remedy)


class StateError(ClientError):
    """The state directory is missing, incomplete or not to be overwritten."""


class PlanFileError(ClientError):
    """A plan file does not say what a plan must say; `line` counts from 1."""

    def __init__(self, line: int, problem: str, remedy: str) -> None:
        super().__init__("PLAN_INVALID", f"line {line}: {problem}", remedy)
        self.line = line


class KeyFileError(ClientError):
    """A key file can not be read or is not the key that is needed."""


class EvidenceError(ClientError):
    """Plan and report are not what their digests, ids or signatures say; nothing was signed."""


class TerminalNeededError(ClientError):
    """A person must answer, and there is no terminal to ask on."""
