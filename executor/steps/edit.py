"""Typed edits: each of the nine kinds applied to a tree, with a clear reason where it can not be."""

import stat
from dataclasses import dataclass

from executor.domain.changes import Node, NodeType
from executor.domain.errors import StepFailedError, StepUnsafeError
from executor.domain.plan import (
    AppendText,
    CreateDirectory,
    CreateFile,
    DeletePath,
    Edit,
    MovePath,
    PatchFile,
    ReplaceText,
    SetMode,
    WriteFile,
)
from executor.workspace.edits import append_text, replace_text
from executor.workspace.patch import apply_patch
from executor.workspace.paths import relative, shown
from executor.workspace.tree import Tree

DEFAULT_FILE_MODE = 0o644
PERMISSIONS = 0o777
ALL_BITS = 0o7777


@dataclass(frozen=True, slots=True, kw_only=True)
class EditLimits:
    """How much typed edits may carry and change; the operator's."""

    content_bytes: int = 1 << 20
    """Content that one step may carry."""
    text_bytes: int = 16 << 20
    """Size of a file that a patch, a replacement or an append may read or leave; it is held in memory."""


def apply_edit(tree: Tree, action: Edit, limits: EditLimits) -> None:
    """Apply one edit to the tree.

    Raises:
        StepFailedError: the tree is not what the edit needs (`NOT_FOUND`, `CONFLICT`, `UNSUPPORTED`, `TOO_LARGE`).
        StepUnsafeError: the result may not be committed, such as setuid bits or a file with other hard links.
        PathInvalidError: a path is not well formed.
        PathOutsideError: a path leads out of the workspace.
    """
    path = relative(action.path)
    match action:
        case CreateFile(content=content, mode=mode):
            _create_file(tree, path, content, mode, limits)
        case WriteFile(content=content, mode=mode):
            _write_file(tree, path, content, mode, limits)
        case CreateDirectory(mode=mode):
            tree.make_directory(path, _plain_mode(path, mode))
        case MovePath(to=to):
            tree.move(path, relative(to))
        case DeletePath(recursive=recursive):
            tree.remove(path, recursive=recursive)
        case SetMode(mode=mode):
            tree.set_mode(path, _plain_mode(path, mode))
        case PatchFile() | ReplaceText() | AppendText():
            _edit_text(tree, path, action, limits)


def _create_file(tree: Tree, path: bytes, content: bytes, mode: int, limits: EditLimits) -> None:
    _check_size(path, content, limits.content_bytes)
    if tree.node(path) is not None:
        remedy = "use write_file to replace it, or a free name"
        raise StepFailedError("CONFLICT", f"{shown(path)!r} exists already", remedy, paths=(path,))
    tree.put_file(path, content, _plain_mode(path, mode))


def _write_file(tree: Tree, path: bytes, content: bytes, mode: int | None, limits: EditLimits) -> None:
    _check_size(path, content, limits.content_bytes)
    old = tree.node(path)
    kept = DEFAULT_FILE_MODE if old is None else old.mode
    tree.put_file(path, content, _plain_mode(path, kept if mode is None else mode))


def _edit_text(tree: Tree, path: bytes, action: PatchFile | ReplaceText | AppendText, limits: EditLimits) -> None:
    node = _file(tree, path)
    content = tree.content(path, limits.text_bytes)
    result = _edited(path, content, action, limits)
    _check_size(path, result, limits.text_bytes)
    tree.put_file(path, result, _plain_mode(path, node.mode))


def _edited(path: bytes, content: bytes, action: PatchFile | ReplaceText | AppendText, limits: EditLimits) -> bytes:
    match action:
        case PatchFile(patch=patch):
            _check_size(path, patch.encode(), limits.content_bytes)
            return apply_patch(path, content, patch.encode())
        case ReplaceText(old=old, new=new, expected_count=expected):
            _check_growth(path, content, action, limits)
            return replace_text(path, content, old=old.encode(), new=new.encode(), expected=expected)
        case AppendText(content=text):
            _check_size(path, text.encode(), limits.content_bytes)
            return append_text(path, content, text=text.encode())


def _check_growth(path: bytes, content: bytes, action: ReplaceText, limits: EditLimits) -> None:
    """Refuse a replacement whose result would be too large, before it is made: it can be a large multiple."""
    old, new = action.old.encode(), action.new.encode()
    _check_size(path, new, limits.content_bytes)
    growth = content.count(old) * (len(new) - len(old)) if old else 0
    if len(content) + growth > limits.text_bytes:
        raise _too_large(path, len(content) + growth, limits.text_bytes)


def _file(tree: Tree, path: bytes) -> Node:
    node = tree.node(path)
    if node is None:
        remedy = "name a file that exists, or create it with write_file"
        raise StepFailedError("NOT_FOUND", f"{shown(path)!r} does not exist", remedy, paths=(path,))
    if node.type is not NodeType.FILE:
        message = f"{shown(path)!r} is not a file but {node.type.value}"
        raise StepFailedError("CONFLICT", message, "name a regular file", paths=(path,))
    return node


def _check_size(path: bytes, content: bytes, limit: int) -> None:
    if len(content) > limit:
        raise _too_large(path, len(content), limit)


def _too_large(path: bytes, size: int, limit: int) -> StepFailedError:
    message = f"{shown(path)!r}: {size} bytes are over the limit of {limit}"
    return StepFailedError("TOO_LARGE", message, "let a command make large files", paths=(path,))


def _plain_mode(path: bytes, mode: int) -> int:
    """Return permission bits that a plan may set: no setuid, setgid or sticky bit.

    Raises:
        StepUnsafeError: there is one of these bits.
        StepFailedError: these are no permission bits, or the owner may not read.
    """
    if not 0 <= mode <= ALL_BITS:
        message = f"{shown(path)!r}: {mode} is no set of permission bits"
        raise StepFailedError("PLAN_INVALID", message, "give an octal mode such as 0644", paths=(path,))
    if mode & ~PERMISSIONS:
        message = f"{shown(path)!r}: mode {mode:04o} has a setuid, setgid or sticky bit"
        raise StepUnsafeError("UNSUPPORTED", message, "give a mode of 0777 or less", paths=(path,))
    if not mode & stat.S_IRUSR:
        message = f"{shown(path)!r}: with mode {mode:04o} its owner could not read it, and the commit not be verified"
        raise StepFailedError("UNSUPPORTED", message, "leave the owner the right to read", paths=(path,))
    return mode
