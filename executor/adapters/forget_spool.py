"""The folder in which the executor's own host asks for a caller's kept checkpoint to be forgotten.

A running executor takes what waits within a second, one that starts before it serves anything: so the ledger has one
writer. What may be written there is as good as the ledger beside it.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from executor.adapters.spool_files import UNFINISHED, leave, make_folder, read

MAX_IDENTITY: Final = 8 * 1024


class ForgetSpool:
    """The folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ask(self, identity: str) -> Path:
        """Ask for a caller to be forgotten; returns the file, which goes when that is done.

        Raises:
            OSError: the file can not be written.
        """
        make_folder(self._folder)
        path = self._folder / hashlib.sha256(identity.encode()).hexdigest()[:32]
        leave(self._folder, path.name, identity)
        return path

    def waiting(self) -> Iterator[str]:
        """Yield who is to be forgotten; the file goes when the next one is asked for.

        Raises:
            OSError: something there can not be read; the others were yielded before.
        """
        try:
            names = [entry.name for entry in os.scandir(self._folder) if not entry.name.endswith(UNFINISHED)]
        except FileNotFoundError:
            return
        failed: OSError | None = None
        for path in (self._folder / name for name in sorted(names)):
            try:
                identity = read(path, MAX_IDENTITY).decode("utf-8", "replace")
            except OSError as error:
                failed = error
                continue
            yield identity
            path.unlink(missing_ok=True)
        if failed is not None:
            raise failed
