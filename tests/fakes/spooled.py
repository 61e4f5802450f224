"""Answers to what was handed in through a folder on the executor's host."""

import threading
from typing import Any

from executor.adapters.revocation_spool import RevocationSpool


def waited(spool: RevocationSpool, name: str) -> dict[str, Any]:
    """The answer, once it is there."""
    for _ in range(500):
        answer = spool.answer(name)
        if answer is not None:
            return dict(answer)
        threading.Event().wait(0.01)
    raise AssertionError("no answer came")
