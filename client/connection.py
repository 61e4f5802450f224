"""One channel to the orchestrator, and what its errors mean."""

from collections.abc import Sequence

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from client.errors import ClientError, NotRunningError, RemoteError, StateError
from client.state import CA_VARIABLE, StateDirectory
from gonogo import sealing
from gonogo.v1 import evidence_pb2, sealed_pb2

MAX_MESSAGE = 64 * 1024 * 1024
ERROR_DOMAIN = "gonogo"
SERVICE_NAME = "orchestrator"
EXECUTOR_NAME = "executor"
TARGET_NAME = "grpc.ssl_target_name_override"

# ping_timeout_ms, not keepalive_timeout_ms, is what ends a call to a frozen peer.
CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    (TARGET_NAME, SERVICE_NAME),
)


def open_channel(state: StateDirectory, address: str | None = None) -> grpc.aio.Channel:
    """Open a channel with the token or the client's certificate; nothing is sent before the first call.

    Raises:
        NotRunningError: no address is known.
        StateError: the token or the certificates can not be read.
    """
    target = address or state.orchestrator_address()
    token = state.token()
    if not target and token is not None:
        remedy = "start the orchestrator with --token-listen HOST:PORT, or call with a certificate"
        raise StateError("NOT_RUNNING", "no address is known at which tokens are taken", remedy)
    if not target:
        raise NotRunningError("not running: no services on this state directory")
    credentials = _certificate_credentials(state) if token is None else _token_credentials(state, token)
    return grpc.aio.secure_channel(target, credentials, options=CHANNEL_OPTIONS)


def open_executor_channel(state: StateDirectory, address: str) -> grpc.aio.Channel:
    """Open a channel to a listener of the executor's own with the client's certificate.

    Raises:
        StateError: the certificates can not be read.
    """
    options = [(name, EXECUTOR_NAME if name == TARGET_NAME else value) for name, value in CHANNEL_OPTIONS]
    return grpc.aio.secure_channel(address, _certificate_credentials(state), options=options)


def client_error(error: grpc.aio.AioRpcError) -> ClientError:
    """Return what a failed call means, from the details the service gave."""
    status = error.code().name
    details = _details(error)
    info = _error_info(details)
    if info is not None:
        remedy = info.metadata.get("remedy", "")
        message = error.details() or info.reason
        return RemoteError(info.reason, message, remedy, grpc_status=status, paths=_refused_paths(details))
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return NotRunningError("not running: the orchestrator does not answer")
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        return RemoteError("OVERLOADED", "no answer in time", "try again; gonogo doctor shows what is wrong")
    message = f"{status.lower().replace('_', ' ')}: {error.details() or 'no details'}"
    reason = "OVERLOADED" if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED else "INTERNAL"
    return RemoteError(
        reason, message, "gonogo doctor shows what is wrong; the services' logs are in run/", grpc_status=status
    )


def _details(error: grpc.aio.AioRpcError) -> Sequence[AnyMessage]:
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # the details contradict the status: do not believe them
        return ()
    return tuple(status.details) if status is not None else ()


def _error_info(details: Sequence[AnyMessage]) -> error_details_pb2.ErrorInfo | None:
    for detail in details:
        info = error_details_pb2.ErrorInfo()
        if detail.Is(info.DESCRIPTOR) and detail.Unpack(info) and info.domain == ERROR_DOMAIN:
            return info
    return None


def _refused_paths(details: Sequence[AnyMessage]) -> Sequence[str]:
    """Return the paths that the executor's refusal names, for a person to look at; nothing is decided by them."""
    for detail in details:
        sealed = sealed_pb2.Sealed()
        if detail.Is(sealed.DESCRIPTOR) and detail.Unpack(sealed) and sealed.media_type == sealing.REFUSAL:
            try:
                return tuple(sealing.open_sealed(sealed.body, evidence_pb2.Refusal).paths)
            except sealing.SealingError:
                return ()
    return ()


def _token_credentials(state: StateDirectory, token: str) -> grpc.ChannelCredentials:
    """Return credentials with a token, which gRPC sends to nobody but the server that the authority vouches for."""
    try:
        authority = state.authority.read_bytes()
    except OSError as error:
        message = f"the authority's certificate can not be read: {error.filename}: {error.strerror}"
        raise StateError("STATE_MISSING", message, f"name it with {CA_VARIABLE}: it is tls/ca.pem there") from None
    return grpc.composite_channel_credentials(
        grpc.ssl_channel_credentials(authority), grpc.access_token_call_credentials(token)
    )


def _certificate_credentials(state: StateDirectory) -> grpc.ChannelCredentials:
    try:
        authority = state.authority.read_bytes()
        key = (state.tls / "client.key").read_bytes()
        chain = (state.tls / "client.pem").read_bytes()
    except OSError as error:
        message = f"the client's certificate can not be read: {error.filename}: {error.strerror}"
        raise StateError("STATE_MISSING", message, "make a state directory with gonogo init") from None
    return grpc.ssl_channel_credentials(authority, key, chain)
