"""One caller's request: who asks, and what makes a retry of it recognisable."""

import json
from dataclasses import dataclass, field
from typing import Any, Final

from gonogo.digests import PREFIX, digest
from orchestrator.domain.errors import ContractError, Reason, RequestRefusedError, malformed
from orchestrator.domain.mission import Mission
from orchestrator.service.event_log import CommandRecord

MAX_REQUEST_ID: Final = 128

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A mutating request. The same id with the same digest is a retry, with another digest a mistake."""

    request_id: str
    digest: str
    """Digest of the method's name and of all that the request says."""
    person: str

    def __post_init__(self) -> None:
        if not 0 < len(self.request_id) <= MAX_REQUEST_ID or not self.request_id.isprintable():
            raise malformed(
                "the request has no usable request_id",
                f"Set `request_id` to 1 to {MAX_REQUEST_ID} printable characters, new for each request.",
            )

    @property
    def command_id(self) -> str:
        """The request's name in the log; two persons may use the same id."""
        return f"{self.person}/{self.request_id}"


def part_of(request: Request, kind: str, name: str) -> Request:
    """Return the request under which one part of a request's handling is recorded; a retry finds the same."""
    part = digest(json.dumps([request.request_id, name]).encode()).removeprefix(PREFIX)
    return Request(request_id=f"{kind}-{part[:40]}-{name}", digest=request.digest, person=request.person)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a request came to: the mission as it was then, and what else the caller was told."""

    mission: Mission
    told: dict[str, Any] = field(default_factory=dict)


def command_record(request: Request, mission: Mission, told: dict[str, Any]) -> CommandRecord:
    """Return what makes the same answer possible again: the mission's sequence tells how it stood."""
    result = {"mission_id": mission.mission_id, "sequence": mission.last_sequence, **told}
    return raw_record(request, result)


def raw_record(request: Request, result: dict[str, Any]) -> CommandRecord:
    return CommandRecord(
        command_id=request.command_id,
        request_hash=request.digest,
        result=_encode(result),
        just_encoded=True,
    )


def told_before(record: CommandRecord) -> dict[str, Any]:
    """Return what a recorded command's caller was told."""
    result = json.loads(record.result)
    if not isinstance(result, dict):
        raise ContractError(Reason.INTERNAL, f"command {record.command_id} has no readable answer", "Report this.")
    return result


def reused(request: Request) -> RequestRefusedError:
    """Say that a request id was used for something else before."""
    return RequestRefusedError(
        Reason.REQUEST_REUSED,
        f"request id {request.request_id!r} was used before for another request",
        "Use a new request id for a new request.",
    )


def check_same(request: Request, record: CommandRecord) -> None:
    """Refuse a request whose id was recorded for another one."""
    if record.request_hash != request.digest:
        raise reused(request)
