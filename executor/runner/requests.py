"""What the executor is asked, that a request is well formed, and that one request id is one request."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from executor.domain.errors import RequestMalformedError
from executor.domain.gates import NamedIds
from executor.domain.plan_rules import MAX_ID_LENGTH, is_identifier
from executor.domain.sealed import SealedBytes
from executor.runner.ports import RequestRecord
from gonogo import sealing
from gonogo.digests import framed_digest

MAX_APPROVALS = 16
MAX_APPROVAL_BYTES = 64 * 1024
MAX_SIGNATURES = 4

DRY_RUN = "dry_run"
EXECUTE = "execute"
CONTROL = "control"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecuteInput:
    """A request to execute, as it arrived."""

    request_id: str
    plan: SealedBytes
    report: SealedBytes | None
    approvals: tuple[SealedBytes, ...]
    named: NamedIds
    caller: str = ""
    """The SPIFFE id of whoever brought it; no part of the request itself."""

    @property
    def body_digest(self) -> str:
        """Tells two requests apart, everything carried counted."""
        named = self.named
        ids = (named.mission_id, named.intent_id, named.workspace_id, named.executor_id)
        documents = (self.plan, *((self.report,) if self.report else ()), *self.approvals)
        return framed_digest([*(text.encode() for text in ids), *(one.envelope_digest.encode() for one in documents)])


def check_execute(request: ExecuteInput) -> None:
    """Refuse a request that is not well formed; the cheapest checks of all, before anything is looked up.

    Raises:
        RequestMalformedError: with the reason MALFORMED or TOO_LARGE.
    """
    check_request_id(request.request_id)
    if not is_identifier(request.named.mission_id):
        raise malformed("the request names no mission", "set mission_id")
    if len(request.approvals) > MAX_APPROVALS:
        raise RequestMalformedError(
            "TOO_LARGE",
            f"the request carries {len(request.approvals)} approvals",
            f"send at most {MAX_APPROVALS}, one for each person",
        )
    check_envelope(request.plan, sealing.PLAN, sealing.MAX_BODY_BYTES)
    if request.report is not None:
        check_envelope(request.report, sealing.REPORT, sealing.MAX_BODY_BYTES)
    for approval in request.approvals:
        check_envelope(approval, sealing.APPROVAL, MAX_APPROVAL_BYTES)


def check_request_id(request_id: str) -> None:
    """Refuse a request without an id that can be stored and shown.

    Raises:
        RequestMalformedError: reason MALFORMED.
    """
    if not 0 < len(request_id) <= MAX_ID_LENGTH or not request_id.isprintable():
        raise malformed(
            "the request has no request_id that can be used", f"set 1 to {MAX_ID_LENGTH} printable characters"
        )


def check_envelope(document: SealedBytes, media_type: str, limit: int) -> None:
    """Refuse a document that does not claim to be what its place in the request says, or is too large.

    Raises:
        RequestMalformedError: reason MALFORMED or TOO_LARGE.
    """
    if document.media_type != media_type:
        raise malformed(
            f"a document says that it is {document.media_type[:100]!r} where {media_type!r} belongs",
            "send the sealed documents as they were made",
        )
    if len(document.body) > limit or len(document.signatures) > MAX_SIGNATURES:
        raise RequestMalformedError(
            "TOO_LARGE",
            f"a document has {len(document.body)} bytes and {len(document.signatures)} signatures",
            f"at most {limit} bytes and {MAX_SIGNATURES} signatures are read for {media_type}",
        )


def malformed(message: str, remedy: str) -> RequestMalformedError:
    """Return the error for a request that is not well formed."""
    return RequestMalformedError("MALFORMED", message, remedy)


def check_same(known: RequestRecord, kind: str, body_digest: str) -> None:
    """Refuse a request id that stood for another request before.

    Raises:
        RequestMalformedError: reason REQUEST_REUSED.
    """
    if (known.kind, known.body_digest) != (kind, body_digest):
        raise RequestMalformedError(
            "REQUEST_REUSED",
            f"request id {known.request_id!r} was used for another request",
            "use a new request_id for a new request, and the same one only to repeat it",
        )


@dataclass(slots=True)
class _Turn:
    lock: threading.Lock = field(default_factory=threading.Lock)
    wanted: int = 0


class RequestDesk:
    """Lets requests with the same id in one after the other, so that the second finds what the first has done."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: dict[str, _Turn] = {}

    @contextmanager
    def turn(self, request_id: str) -> Iterator[None]:
        """Wait for the turn of a request id and hold it."""
        with self._lock:
            turn = self._turns.setdefault(request_id, _Turn())
            turn.wanted += 1
        try:
            with turn.lock:
                yield
        finally:
            with self._lock:
                turn.wanted -= 1
                if not turn.wanted:
                    del self._turns[request_id]
