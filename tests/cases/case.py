"""Which listed case a test is about: its id becomes part of the test's name."""

import pytest


def case(*ids: str) -> pytest.MarkDecorator:
    """Name the cases of `sandbox.jsonl` that a test holds."""
    return pytest.mark.parametrize("case_ids", ["+".join(ids)], indirect=True)
