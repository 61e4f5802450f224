"""The `os` of a module under test, whose process is cut off at its n-th call that changes something."""

import os
from typing import Any, Final

CHANGING: Final = frozenset({"open", "write", "ftruncate", "fdatasync"})


class CutOffError(BaseException):
    """The process is dead from here on: nothing that handles errors gets to do anything."""


class CuttingOs:
    """Counts the changing calls; the one whose turn it is writes at most half of what it should, and is the last."""

    def __init__(self, cut_at: int) -> None:
        self.calls = 0
        self._cut_at = cut_at

    def __getattr__(self, name: str) -> Any:
        return self._counted(name) if name in CHANGING else getattr(os, name)

    def _counted(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self.calls += 1
            if self.calls == self._cut_at:
                if name == "write":
                    os.write(arguments[0], arguments[1][: len(arguments[1]) // 2])
                raise CutOffError
            return getattr(os, name)(*arguments, **options)

        return call
