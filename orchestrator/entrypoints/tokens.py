"""Page and resume tokens: opaque to clients, without any authority in them."""

import base64
import binascii
import json
from typing import Any, Final

from orchestrator.domain.errors import Reason, RequestRefusedError
from orchestrator.service.event_log import ProjectionCursor

END: Final = 2**63
"""No log counts as far."""


def resume_token(mission_id: str, sequence: int) -> str:
    """Return the token for going on after a mission's event."""
    return _written([mission_id, sequence])


def sequence_of(token: str, mission_id: str) -> int:
    """Return the sequence to go on after; an empty token asks for everything.

    Raises:
        RequestRefusedError: not a token of this mission.
    """
    if not token:
        return 0
    match _read(token):
        case [str(of), int(sequence)] if of == mission_id and 0 <= sequence < END:
            return sequence
        case _:
            raise RequestRefusedError(
                Reason.RESUME_TOKEN_INVALID,
                "the resume token is not one of this mission",
                "Watch without a token, from the first event.",
            )


def page_token(cursor: ProjectionCursor | None) -> str:
    """Return the token of the page after a row; nothing at the end."""
    return "" if cursor is None else _written([cursor.sort_key, cursor.key])


def cursor_of(token: str) -> ProjectionCursor | None:
    """Return the row that a page begins after.

    Raises:
        RequestRefusedError: not a page token.
    """
    if not token:
        return None
    match _read(token):
        case [str(sort_key), str(key)] if sort_key.isascii() and key.isascii():
            return ProjectionCursor(sort_key=sort_key, key=key)
        case _:
            raise RequestRefusedError(
                Reason.MALFORMED, "the page token is not one of this list", "List from the first page."
            )


def _written(parts: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts, separators=(",", ":")).encode()).decode().rstrip("=")


def _read(token: str) -> object:
    try:
        return json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return None
