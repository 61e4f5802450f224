"""Resume tokens: opaque to callers, a place in one execution's events to the executor."""

import base64
import binascii

from executor.domain.errors import ExecutorError

VERSION = "1"


class ResumeTokenError(ExecutorError):
    """The token is none, or not one of this execution; the caller must begin anew."""

    def __init__(self) -> None:
        super().__init__(
            "RESUME_TOKEN_INVALID",
            "the resume token is not one of this execution",
            "get the execution, then watch it again without a token",
        )


def encode(execution_id: str, sequence: int) -> str:
    """Return the token of a place."""
    return base64.urlsafe_b64encode(f"{VERSION}:{execution_id}:{sequence}".encode()).decode()


def decode(token: str, execution_id: str, last_sequence: int) -> int:
    """Return the place of a token; the empty token is the beginning.

    Raises:
        ResumeTokenError: not a token of this execution, or of a place that it has not reached.
    """
    if not token:
        return 0
    try:
        text = base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise ResumeTokenError from None
    head, _, place = text.rpartition(":")
    if head != f"{VERSION}:{execution_id}" or not (place.isascii() and place.isdigit()) or int(place) > last_sequence:
        raise ResumeTokenError
    return int(place)
