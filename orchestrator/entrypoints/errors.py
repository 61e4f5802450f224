"""Errors as they leave the orchestrator: one status, the reason and the remedy in its details."""

import logging
from collections.abc import Mapping
from typing import Final, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from orchestrator.adapters.wire import sealed_to_proto
from orchestrator.domain.errors import ExecutorRefusedError, OrchestratorError, Reason
from orchestrator.service import event_log_errors as store

DOMAIN: Final = "gonogo"
MAX_TEXT_BYTES: Final = 600
"""Of a message or remedy as it leaves: it stands up to four times in a call's trailers, of which gRPC takes 8 KiB."""
MAX_FACT: Final = 200

_log = logging.getLogger(__name__)

CODES: Final[Mapping[Reason, grpc.StatusCode]] = {
    Reason.REPORT_MISSING: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.REPORT_UNKNOWN: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.SIMULATION_UNSAFE: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.SIMULATION_BLOCKED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.SIMULATION_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.NOT_APPROVED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.QUORUM_NOT_MET: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.APPROVAL_EXPIRED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.APPROVAL_REVOKED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.SIGNATURE_INVALID: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.APPROVER_UNKNOWN: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.SELF_APPROVAL: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.PLAN_MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.MISSION_MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.WORKSPACE_MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.EXECUTOR_MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.BASE_DRIFTED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.ALREADY_EXECUTED: grpc.StatusCode.ALREADY_EXISTS,
    Reason.ALREADY_CLAIMED: grpc.StatusCode.ALREADY_EXISTS,
    Reason.MALFORMED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.PEER_NOT_ALLOWED: grpc.StatusCode.PERMISSION_DENIED,
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
    Reason.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.REQUEST_REUSED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.STATE_FORBIDS: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.EXECUTOR_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    Reason.STORE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.OVERLOADED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.RESUME_TOKEN_INVALID: grpc.StatusCode.OUT_OF_RANGE,
    Reason.WORKSPACE_UNKNOWN: grpc.StatusCode.NOT_FOUND,
    Reason.PLAN_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.PATH_OUTSIDE_WORKSPACE: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.PATH_OUTSIDE_SCOPE: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.PATH_INVALID: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.TOO_LARGE: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.UNSUPPORTED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.DIVERGED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.CONFLICT: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.PROGRAM_HIDDEN: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.COMMAND_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.TESTS_UNEXPECTED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.JUNIT_MISSING: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.JUNIT_UNREADABLE: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.LADDER_TOO_LOW: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.CHECKPOINT_GONE: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.POLICY_REFUSES: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.HARDWARE_KEY_NEEDED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.CLOCK_BEHIND: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.TRUST_EXPIRED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.AUDIT_FORKED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.SECRET_IN_PLAN: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.SECRET_UNAVAILABLE: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.ROLE_MISSING: grpc.StatusCode.PERMISSION_DENIED,
    Reason.SECRET_EXPOSED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.NETWORK_REFUSED: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.FETCH_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.TOOL_CHANGED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.FAR_SIDE_UNKNOWN: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.ROWS_DIVERGED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.EFFECT_UNKNOWN: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.EFFECT_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.EXECUTION_PAUSED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.STOPPED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.NOT_READY: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.STEP_NOT_WAITING: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.TOOL_FAILED: grpc.StatusCode.FAILED_PRECONDITION,
}

_STORE_REASONS: Final[Mapping[type[store.EventLogError], Reason]] = {
    store.VersionConflict: Reason.CONFLICT,
    store.CommandConflict: Reason.REQUEST_REUSED,
    store.StoreOverloaded: Reason.OVERLOADED,
    store.StoreBusy: Reason.OVERLOADED,
    store.StoreFull: Reason.STORE_FULL,
    store.StoreFailed: Reason.INTERNAL,
    store.StoreLocked: Reason.INTERNAL,
    store.StoreClosed: Reason.OVERLOADED,
    store.StoreUnusable: Reason.INTERNAL,
    store.LogForked: Reason.AUDIT_FORKED,
}


def known(error: Exception) -> OrchestratorError:
    """Return an error as one of ours; what nobody foresaw is logged whole and told in short."""
    if isinstance(error, OrchestratorError):
        return error
    if isinstance(error, store.EventLogError):
        reason = _STORE_REASONS.get(type(error), Reason.INTERNAL)
        return OrchestratorError(reason, str(error), error.remedy)
    _log.error("an unexpected error", exc_info=error)
    return OrchestratorError(
        Reason.INTERNAL, f"an unexpected {type(error).__name__}", "Look at the orchestrator's log, and report it."
    )


def status_of(error: OrchestratorError) -> status_pb2.Status:
    """Return the status that tells an error."""
    code = CODES[error.reason]
    details = [_info(error)]
    if code is grpc.StatusCode.FAILED_PRECONDITION:
        details.append(_precondition(error))
    elif code is grpc.StatusCode.INVALID_ARGUMENT:
        details.append(_bad_request(error))
    if isinstance(error, ExecutorRefusedError) and error.refusal is not None:
        details.append(_packed(sealed_to_proto(error.refusal)))
    return status_pb2.Status(code=code.value[0], message=_bounded(error.message), details=details)


async def abort(context: "grpc.aio.ServicerContext[object, object]", error: Exception) -> NoReturn:
    """End a call with an error."""
    await context.abort_with_status(rpc_status.to_status(status_of(known(error))))
    raise AssertionError  # abort_with_status never returns


def _info(error: OrchestratorError) -> AnyMessage:
    metadata = {**{key: value[:MAX_FACT] for key, value in error.facts.items()}, "remedy": _bounded(error.remedy)}
    return _packed(error_details_pb2.ErrorInfo(reason=error.reason.value, domain=DOMAIN, metadata=metadata))


def _precondition(error: OrchestratorError) -> AnyMessage:
    violation = error_details_pb2.PreconditionFailure.Violation(
        type=error.reason.value,
        subject=error.facts.get("mission_id", ""),
        description=_bounded(error.message),
    )
    return _packed(error_details_pb2.PreconditionFailure(violations=[violation]))


def _bad_request(error: OrchestratorError) -> AnyMessage:
    violation = error_details_pb2.BadRequest.FieldViolation(description=_bounded(error.message))
    return _packed(error_details_pb2.BadRequest(field_violations=[violation]))


def _bounded(text: str) -> str:
    raw = text.encode("utf-8", "backslashreplace")
    return raw.decode() if len(raw) <= MAX_TEXT_BYTES else raw[:MAX_TEXT_BYTES].decode("utf-8", "ignore") + "…"


def _packed(message: object) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(message)  # type: ignore[arg-type]  # every caller hands in a message
    return packed
