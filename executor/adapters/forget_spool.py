"""The folder in which the executor's own host asks for a caller's kept checkpoint to be forgotten.

A running executor takes what waits within a second, one that starts before it serves anything: so the ledger has one
writer. What may be written there is as good as the ledger beside it.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path


class ForgetSpool:
    """The folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ask(self, identity: str) -> Path:
        """Ask for a caller to be forgotten; returns the file, which goes when that is done.

        Raises:
            OSError: the file can not be written.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / hashlib.sha256(identity.encode()).hexdigest()[:32]
        new = path.with_name(f"{path.name}.{os.getpid()}.new")
        new.write_text(identity, encoding="utf-8")
        new.replace(path)
        return path

    def waiting(self) -> Iterator[str]:
        """Yield who is to be forgotten; the file goes when the next one is asked for."""
        try:
            names = [entry.name for entry in os.scandir(self._folder) if not entry.name.endswith(".new")]
        except FileNotFoundError:
            return
        for name in sorted(names):
            path = self._folder / name
            yield path.read_text("utf-8", "replace")
            path.unlink(missing_ok=True)
