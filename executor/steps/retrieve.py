"""Steps that only read: a file, a directory, a search. They see the tree as the steps before left it."""

import os
from collections.abc import Sequence
from dataclasses import replace

from executor.domain.changes import Node, NodeType
from executor.domain.errors import StepBlockedError, StepFailedError, StepUnsafeError
from executor.domain.plan import ListDirectory, ReadFile, Retrieval, SearchFiles
from executor.domain.redaction import NO_SECRETS, Redactor
from executor.domain.report import Evidence, Excerpt, ListEvidence, ReadEvidence
from executor.steps.search import search
from executor.workspace.globs import Globs
from executor.workspace.paths import ROOT, join, read_up_to, relative, shown
from executor.workspace.tree import Tree
from gonogo.digests import framed_digest

HEAD_BYTES = 3072
TAIL_BYTES = 1024
MAX_ENTRIES = 1000


def retrieve(
    tree: Tree, action: Retrieval, *, hidden: Globs, timeout: float = 30.0, redactor: Redactor = NO_SECRETS
) -> Evidence:
    """Read what a step asks for.

    Args:
        tree: the workspace as the steps before left it.
        action: what to read.
        hidden: paths that are never shown; they can not be read, and are left out of listings and searches.
        timeout: seconds that a search may take.
        redactor: takes secrets out of what is shown, and of what the digests of listings and searches are over.

    Raises:
        StepFailedError: it is not there, not of the right type, or the search is not well formed or too large.
        StepBlockedError: the path is hidden, or ripgrep is not installed.
        StepUnsafeError: an extended attribute of the file holds a secret.
        PathInvalidError: the path is not well formed.
        PathOutsideError: the path leads out of the workspace.
    """
    path = relative(action.path)
    if hidden.covers(path) and path != ROOT:
        remedy = "leave it out of the plan, or ask the executor's operator to change `hidden`"
        message = f"the executor's policy hides {shown(path)!r}"
        raise StepBlockedError("PATH_OUTSIDE_SCOPE", message, remedy, paths=(path,))
    match action:
        case ReadFile():
            return _read_file(tree, path, redactor)
        case ListDirectory():
            return _list_directory(tree, path, hidden, redactor)
        case SearchFiles():
            return search(tree, action, path, hidden=hidden, timeout=timeout, redactor=redactor)


def _read_file(tree: Tree, path: bytes, redactor: Redactor) -> ReadEvidence:
    fd = tree.open_content(path)
    try:
        node = _present(tree, path)
        _check_attributes(path, node, redactor)
        whole = node.size <= HEAD_BYTES + TAIL_BYTES
        head = _shown_part(fd, 0, node.size if whole else HEAD_BYTES, redactor)
        tail = b"" if whole else _shown_part(fd, node.size - TAIL_BYTES, node.size, redactor)
    finally:
        os.close(fd)
    preview = Excerpt(
        head=head.decode("utf-8", "replace"),
        tail=tail.decode("utf-8", "replace"),
        total_bytes=node.size,
        digest=node.digest,
        truncated=not whole,
    )
    return ReadEvidence(node=node, preview=preview)


def _shown_part(fd: int, start: int, end: int, redactor: Redactor) -> bytes:
    """Return a part of a file, without the secrets that lie in it or reach into it."""
    before = max(0, start - redactor.overlap)
    data = read_up_to(fd, before, end + redactor.overlap - before)
    return redactor.window(data, start - before, min(end - before, len(data)))


def _check_attributes(path: bytes, node: Node, redactor: Redactor) -> None:
    """Refuse what can not be told without a secret: a report names a file's attributes exactly."""
    for name, value in node.xattrs if redactor else ():
        secret = redactor.find(value)
        if secret is not None:
            message = f"attribute {name} of {shown(path)!r} holds secret {secret}"
            raise StepUnsafeError("SECRET_EXPOSED", message, "keep secrets out of attributes", paths=(path,))


def _list_directory(tree: Tree, path: bytes, hidden: Globs, redactor: Redactor) -> ListEvidence:
    names = [name for name in tree.children(path) if not hidden.covers(join(path, name))]
    entries = [(redactor.data(name), _redacted(_outside(tree, join(path, name)), redactor)) for name in names]
    return ListEvidence(entries=tuple(entries[:MAX_ENTRIES]), count=len(entries), digest=_list_digest(entries))


def _outside(tree: Tree, path: bytes) -> Node:
    """Return what a path is without its content: a listing reads no file."""
    node = tree.node(path) if tree.touched(path) else tree.base.node(path, digest=False)
    if node is None:
        raise _gone(path)
    return replace(node, digest="")


def _redacted(node: Node, redactor: Redactor) -> Node:
    if not redactor:
        return node
    xattrs = tuple((name, redactor.data(value)) for name, value in node.xattrs)
    return replace(node, link_target=redactor.data(node.link_target), xattrs=xattrs)


def _list_digest(entries: Sequence[tuple[bytes, Node]]) -> str:
    parts: list[bytes] = []
    for name, node in entries:
        size = node.size if node.type is NodeType.FILE else 0
        parts += (name, node.record, b"%d" % size)
    return framed_digest(parts)


def _present(tree: Tree, path: bytes) -> Node:
    node = tree.node(path)
    if node is None:
        raise _gone(path)
    return node


def _gone(path: bytes) -> StepFailedError:
    message = f"{shown(path)!r} does not exist, or went away while it was read"
    return StepFailedError("NOT_FOUND", message, "name a path that exists", paths=(path,))
