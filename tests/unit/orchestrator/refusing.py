"""What a use case that refuses must be like."""

import pytest

from orchestrator.domain.errors import OrchestratorError


async def refused(awaitable: object) -> OrchestratorError:
    """Return the error that a call ends with."""
    with pytest.raises(OrchestratorError) as caught:
        await awaitable  # type: ignore[misc]  # any coroutine
    assert caught.value.remedy
    return caught.value
