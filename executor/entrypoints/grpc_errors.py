"""The one place where an error of the executor becomes an error of a call.

The code says whose turn it is; ErrorInfo carries the stable reason and the remedy; a refusal's sealed document rides
along, so that whoever asked can show and keep the executor's signed answer.
"""

from typing import Final, NoReturn

import grpc
from google.protobuf.any_pb2 import Any
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from executor.adapters.wire import sealed_to_proto
from executor.domain.errors import ExecutorError, GateRefusedError, RequestMalformedError
from executor.runner.executions import RefusedError
from executor.runner.receipts import trailer_text

DOMAIN: Final = "gonogo"
BEFORE_THE_GATES, ONCE = 0, 7

# For errors that are neither a gate's nor the request's; a reason that is not here is the executor's own fault.
CODES: Final = {
    "PEER_NOT_ALLOWED": code_pb2.PERMISSION_DENIED,
    "NOT_FOUND": code_pb2.NOT_FOUND,
    "STATE_FORBIDS": code_pb2.FAILED_PRECONDITION,
    "BASE_DRIFTED": code_pb2.FAILED_PRECONDITION,
    "WORKSPACE_UNKNOWN": code_pb2.FAILED_PRECONDITION,
    "UNSUPPORTED": code_pb2.FAILED_PRECONDITION,
    "CONFLICT": code_pb2.FAILED_PRECONDITION,
    "LADDER_TOO_LOW": code_pb2.FAILED_PRECONDITION,
    "CLOCK_BEHIND": code_pb2.FAILED_PRECONDITION,
    "TRUST_EXPIRED": code_pb2.FAILED_PRECONDITION,
    "AUDIT_FORKED": code_pb2.FAILED_PRECONDITION,
    "SECRET_UNAVAILABLE": code_pb2.FAILED_PRECONDITION,
    "SECRET_EXPOSED": code_pb2.FAILED_PRECONDITION,
    "EXECUTION_PAUSED": code_pb2.FAILED_PRECONDITION,
    "STEP_NOT_WAITING": code_pb2.FAILED_PRECONDITION,
    "EFFECT_UNKNOWN": code_pb2.FAILED_PRECONDITION,
    "OVERLOADED": code_pb2.RESOURCE_EXHAUSTED,
    "STORE_FULL": code_pb2.RESOURCE_EXHAUSTED,
    "RESUME_TOKEN_INVALID": code_pb2.OUT_OF_RANGE,
}


def code_of(error: ExecutorError) -> int:
    """Return the code of a call that fails with an error."""
    cause = error.cause if isinstance(error, RefusedError) else error
    if isinstance(cause, GateRefusedError):
        in_ledger = cause.gate in {BEFORE_THE_GATES, ONCE}
        return int(code_pb2.ALREADY_EXISTS if in_ledger else code_pb2.FAILED_PRECONDITION)
    if isinstance(cause, RequestMalformedError):
        return int(code_pb2.INVALID_ARGUMENT)
    return int(CODES.get(cause.fault.reason, code_pb2.INTERNAL))


def status_of(error: ExecutorError) -> status_pb2.Status:
    """Return the rich status of an error."""
    fault = error.fault
    message = trailer_text(fault.message)
    status = status_pb2.Status(code=code_of(error), message=message)
    info = error_details_pb2.ErrorInfo(
        reason=fault.reason, domain=DOMAIN, metadata={"remedy": trailer_text(fault.remedy)}
    )
    status.details.append(_packed(info))
    cause = error.cause if isinstance(error, RefusedError) else error
    if isinstance(cause, GateRefusedError):
        violation = error_details_pb2.PreconditionFailure.Violation(type=fault.reason, description=message)
        status.details.append(_packed(error_details_pb2.PreconditionFailure(violations=[violation])))
    elif isinstance(cause, RequestMalformedError):
        field = error_details_pb2.BadRequest.FieldViolation(reason=fault.reason, description=message)
        status.details.append(_packed(error_details_pb2.BadRequest(field_violations=[field])))
    if isinstance(error, RefusedError):
        status.details.append(_packed(sealed_to_proto(error.refusal)))
    return status


async def abort(context: grpc.aio.ServicerContext, error: ExecutorError) -> NoReturn:  # type: ignore[type-arg]  # generic only in the stubs
    """End a call with an error."""
    await context.abort_with_status(rpc_status.to_status(status_of(error)))
    raise AssertionError("abort_with_status returned")


def internal_error() -> ExecutorError:
    """Return what a caller is told about a fault that has no name; the log has the rest."""
    return ExecutorError("INTERNAL", "the executor failed", "look into the executor's log")


def _packed(message: error_details_pb2.ErrorInfo | object) -> Any:
    packed = Any()
    packed.Pack(message)  # type: ignore[arg-type]  # the details' stubs are not typed
    return packed
