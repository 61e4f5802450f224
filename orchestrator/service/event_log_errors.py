"""What can go wrong between a caller and the event log, and what to do next."""
# ruff: noqa: N818 - each class is named after the fault; that it is an error its root says

from typing import ClassVar

from orchestrator.service.event_log import CommandRecord


class EventLogError(Exception):
    """Root of the event log's faults: a stable `reason` for programs, a `remedy` for people."""

    reason: ClassVar[str] = "EVENT_LOG_ERROR"
    remedy: ClassVar[str] = "Run `gonogo doctor`."


class VersionConflict(EventLogError):
    """The stream is not at the version the caller decided on; nothing was written."""

    reason = "VERSION_CONFLICT"
    remedy = "Read the stream again, decide again, and append with the version you read."

    def __init__(self, stream_id: str, expected: int, actual: int) -> None:
        super().__init__(f"stream {stream_id} is at version {actual}, expected {expected}")
        self.stream_id = stream_id
        self.expected = expected
        self.actual = actual


class DuplicateCommand(EventLogError):
    """The same command was done before; nothing was written now. `record` holds the first answer."""

    reason = "DUPLICATE_COMMAND"
    remedy = "Use the first answer, in `record`."

    def __init__(self, record: CommandRecord) -> None:
        super().__init__(f"command {record.command_id} was done before")
        self.record = record


class CommandConflict(EventLogError):
    """The command id was used before for another request; nothing was written."""

    reason = "COMMAND_CONFLICT"
    remedy = "Use a new request id for a new request."

    def __init__(self, command_id: str) -> None:
        super().__init__(f"command {command_id} was already used for another request")
        self.command_id = command_id


class StoreOverloaded(EventLogError):
    """Too much is waiting to be written; nothing was written."""

    reason = "STORE_OVERLOADED"
    remedy = "Try again in a moment with the same request id."


class StoreFull(EventLogError):
    """The file system has no room; nothing was written and everything written before is intact."""

    reason = "STORE_FULL"
    remedy = "Free space where the state directory is, then try again with the same request id."


class StoreBusy(EventLogError):
    """Another program holds the database's write lock; nothing was written."""

    reason = "STORE_BUSY"
    remedy = "Close the program that writes to the store's file (open it read-only instead), then try again."


class StoreFailed(EventLogError):
    """The disk failed while writing: whether this append is kept is unknown, and the store takes no more."""

    reason = "STORE_FAILED"
    remedy = "Check the disk, restart the service, and try again with the same request id."


class StoreLocked(EventLogError):
    """Another process has this store open for writing."""

    reason = "STORE_LOCKED"
    remedy = "Stop the other service that uses this state directory, or choose another one."


class StoreClosed(EventLogError):
    """The store is closed, or was closed before this append was written."""

    reason = "STORE_CLOSED"
    remedy = "Try again, with the same request id, when the service is running."


class StoreUnusable(EventLogError):
    """The file is not an event log, is from a newer gonogo, or is damaged."""

    reason = "STORE_UNUSABLE"
    remedy = "Run `gonogo doctor`; restore the newest backup if the file is damaged."


class LogForked(EventLogError):
    """The log is not what its own checkpoints, or those that others keep, say it was."""

    reason = "AUDIT_FORKED"
    remedy = (
        "Run `python -m orchestrator audit check` on the state directory, and find out who changed the file; "
        "restore the newest backup that passes the check."
    )
