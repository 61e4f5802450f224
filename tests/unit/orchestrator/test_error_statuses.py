"""Errors as they leave: whatever they say, what tells them apart gets through."""

import base64
from urllib.parse import quote

import pytest

from orchestrator.domain.errors import OrchestratorError, Reason
from orchestrator.entrypoints.errors import status_of

TRAILERS = 8 * 1024


@pytest.mark.parametrize("letter", ["x", "é", "\U0001f980", "\ud800", "%"])
@pytest.mark.parametrize("reason", [Reason.STATE_FORBIDS, Reason.MALFORMED, Reason.NOT_FOUND])
def test_the_longest_error_fits_into_the_trailers(reason: Reason, letter: str) -> None:
    """Of trailers that are too large gRPC keeps nothing, neither reason nor remedy."""
    words = letter * 100_000
    status = status_of(OrchestratorError(reason, words, words, facts={"mission_id": "m" * 500, "status": "proposed"}))
    shown = quote(status.message)
    packed = base64.b64encode(status.SerializeToString())
    assert len(shown) + len(packed) < TRAILERS - 1024
    assert 0 < len(status.message.encode()) < 1_000


def test_a_usual_error_is_whole() -> None:
    """What anybody would write is not cut."""
    words = "a message of a usual length, " * 10
    assert status_of(OrchestratorError(Reason.NOT_FOUND, words, words)).message == words
