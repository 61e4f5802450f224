"""What somebody asks of an execution that was claimed, and that it is well formed."""

from dataclasses import dataclass
from typing import Final

from executor.domain.control import ControlAction
from executor.domain.plan_rules import is_identifier
from executor.domain.sealed import SealedBytes
from executor.runner.requests import check_envelope, check_request_id, malformed
from gonogo import sealing
from gonogo.digests import framed_digest

CONTROL: Final = "control"
MAX_ACTOR: Final = 200
MAX_REASON: Final = 4_000
MAX_DOCUMENT_BYTES: Final = 64 * 1024
DOCUMENTS: Final = {
    ControlAction.APPROVE_STEP: sealing.STEP_APPROVAL,
    ControlAction.RECONCILE: sealing.RECONCILIATION,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlInput:
    """A request to have an execution do something, as it arrived."""

    request_id: str
    mission_id: str
    action: ControlAction
    actor: str
    """As the orchestrator knows them: a claim, and nothing that anything is decided by."""
    reason: str = ""
    roll_back: bool = False
    document: SealedBytes | None = None
    caller: str = ""
    """The SPIFFE id of whoever brought it; no part of the request itself."""

    @property
    def body_digest(self) -> str:
        """Tells two requests apart, everything carried counted."""
        texts = (self.mission_id, self.action.value, self.actor, self.reason, "roll_back" if self.roll_back else "")
        document = "" if self.document is None else self.document.envelope_digest
        return framed_digest(text.encode("utf-8", "surrogatepass") for text in (*texts, document))


def check_control(request: ControlInput) -> None:
    """Refuse a request that is not well formed.

    Raises:
        RequestMalformedError: reason MALFORMED or TOO_LARGE.
    """
    check_request_id(request.request_id)
    if not is_identifier(request.mission_id):
        raise malformed("the request names no mission", "set mission_id")
    if len(request.actor) > MAX_ACTOR or len(request.reason) > MAX_REASON:
        raise malformed("the actor or the reason is too long", f"use at most {MAX_ACTOR} and {MAX_REASON} characters")
    if request.roll_back and request.action is not ControlAction.STOP:
        raise malformed(f"roll_back says nothing beside {request.action.value}", "set it with stop alone")
    wanted = DOCUMENTS.get(request.action)
    if (wanted is None) != (request.document is None):
        raise malformed(
            f"{request.action.value} comes with {'no' if wanted is None else 'a'} sealed document",
            "send the sealed document with approve_step and reconcile, and with nothing else",
        )
    if wanted is not None and request.document is not None:
        check_envelope(request.document, wanted, MAX_DOCUMENT_BYTES)
