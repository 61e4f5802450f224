"""What the facts of risk need to know of the workspace around a change set."""

import functools
import os

from executor.domain.changes import Node
from executor.domain.errors import ExecutorError
from executor.domain.risk import HEAD_BYTES, Around
from executor.workspace.folding import Folding
from executor.workspace.paths import ROOT, Directory, ancestors, join, parent_of
from executor.workspace.tree import Tree

_REPOSITORY = b".git"
_PARTS_OF_A_REPOSITORY = frozenset({b"HEAD", b"objects", b"refs"})


def around(tree: Tree, folding: Folding) -> Around:
    """Return what is around a change set.

    Args:
        tree: the workspace as it is in the end.
        folding: what folds in the workspace.
    """

    def head(path: bytes, node: Node) -> bytes:
        if tree.batch.has(node.digest):
            return tree.batch.read(node.digest, 0, HEAD_BYTES)
        try:
            fd = tree.open_content(path)
        except ExecutorError:
            return b""  # somebody is changing it, which the dry run says elsewhere
        try:
            return os.pread(fd, HEAD_BYTES, 0)
        finally:
            os.close(fd)

    def folds(path: bytes) -> bool:
        return folding.folds(parent_of(path))

    def git_directory(path: bytes) -> bool:
        try:
            return set(tree.children(path)) >= _PARTS_OF_A_REPOSITORY
        except ExecutorError:
            return False  # gone, or no directory

    return Around(
        head=head, folds=folds, versioned=_Repositories(tree.base).hold, git_directory=functools.cache(git_directory)
    )


class _Repositories:
    """Where git keeps versions; each directory is looked at once."""

    def __init__(self, base: Directory) -> None:
        self._base = base
        self._known: dict[bytes, bool] = {}

    def hold(self, path: bytes) -> bool:
        """Tell whether a directory at or above a path, inside the workspace, is a repository's."""
        return self._is_repository(ROOT) or any(map(self._is_repository, ancestors(path)))

    def _is_repository(self, directory: bytes) -> bool:
        known = self._known.get(directory)
        if known is None:
            # Whether the name is there is all that counts, so that a plain look, as cheap as can be, does.
            try:
                os.stat(join(directory, _REPOSITORY), dir_fd=self._base.fd, follow_symlinks=False)
                known = True
            except OSError:
                known = False
            self._known[directory] = known
        return known
