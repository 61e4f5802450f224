"""What was looked at, how it was, and what was measured."""

import sys
from dataclasses import dataclass, field

DETAIL = 160


@dataclass(slots=True, kw_only=True)
class Checks:
    """Prints each as it comes, and remembers whether one failed."""

    _failed: list[str] = field(default_factory=list)
    _held: int = 0

    def say(self, what: str, *, holds: bool, detail: str = "") -> None:
        """Note one check."""
        if holds:
            self._held += 1
        else:
            self._failed.append(what)
        told = " ".join(detail.split())
        shown = told if not holds or len(told) <= DETAIL else f"{told[:DETAIL]}…"
        sys.stdout.write(f"image-test: {'ok  ' if holds else 'FAIL'} {what}{f' [{shown}]' if shown else ''}\n")
        sys.stdout.flush()

    def figure(self, what: str, value: str) -> None:
        """Note one measurement."""
        sys.stdout.write(f"image-test:      {what}: {value}\n")
        sys.stdout.flush()

    def conclude(self) -> int:
        """Say how it all was; return the exit code."""
        failed = f", {len(self._failed)} do not: {'; '.join(self._failed)}" if self._failed else ""
        sys.stdout.write(f"image-test: {self._held} checks hold{failed}\n")
        return 1 if self._failed else 0
