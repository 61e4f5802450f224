"""Whom new objects belong to."""

import contextlib
import os
import stat
from collections.abc import Mapping

from executor.workspace.paths import Directory, PathOutsideError, parent_of
from executor.workspace.staging import Former


class Owners:
    """Whom new names belong to where root commits: the owner of the directory that they come into.

    A directory that comes in the same commit belongs to the owner of its own, and so on upwards; one that moves keeps
    its owner. An ordinary user can make nothing but its own.
    """

    def __init__(self, root: Directory, moved: Mapping[bytes, bytes]) -> None:
        self._root = root
        self._moved = moved
        self._root_commits = os.geteuid() == 0
        self._known: dict[bytes, Former] = {}

    def of_new(self, path: bytes) -> Former | None:
        return self._of_directory(parent_of(path)) if self._root_commits else None

    def _of_directory(self, path: bytes) -> Former:
        known = self._known.get(path)
        if known is None:
            known = self._known[path] = self._found(path)
        return known

    def _found(self, path: bytes) -> Former:
        # Behind a link there is nothing of ours: the link is about to make way for a directory.
        with contextlib.suppress(PathOutsideError):
            status = self._root.lstat(self._moved.get(path, path))
            if status is not None and stat.S_ISDIR(status.st_mode):
                return Former.directory(path, status)
        return self._of_directory(parent_of(path))
