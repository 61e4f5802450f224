"""Changes that hold a secret: a change set says exactly what comes, so nothing can be taken out of it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from executor.domain.changes import Change, ChangeKind, Node, NodeType
from executor.domain.errors import Fault
from executor.domain.redaction import Redactor
from gonogo.safe_text import shown_path

NameOf = Callable[[bytes, Node], str | None]

_REMEDY = (
    "leave the file out of the plan, list it in `hidden` of the trust file, or keep the secret out of the workspace"
)
_CONTENT_CHANGES = frozenset({ChangeKind.MODIFY, ChangeKind.TYPE_CHANGE, ChangeKind.DELETE, ChangeKind.CREATE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposure:
    """What one change set says of secrets."""

    tellable: tuple[Change, ...]
    """The changes whose names, link targets and attributes a report may hold."""
    faults: tuple[Fault, ...]
    """Why the others, and those with a secret in their content, may not be committed."""


def exposure(changes: Iterable[Change], redactor: Redactor, new_content: NameOf, old_content: NameOf) -> Exposure:
    """Find the changes that hold a secret.

    A file that only moves, or only changes its bits, does not show its content.

    Args:
        changes: one step's.
        redactor: what knows the secrets.
        new_content: names the secret in what a file comes to hold.
        old_content: names the secret in what a file held.
    """
    kept = tuple(changes)
    if not redactor:
        return Exposure(tellable=kept, faults=())
    tellable: list[Change] = []
    faults: list[Fault] = []
    for change in kept:
        told = next(filter(None, map(redactor.find, _told(change))), None)
        if told is None:
            tellable.append(change)
        secret = told or _in_content(change, new_content, old_content)
        if secret is not None:
            faults.append(exposed(change.path, secret, redactor))
    return Exposure(tellable=tuple(tellable), faults=tuple(faults))


def exposed(path: bytes, secret: str, redactor: Redactor) -> Fault:
    """Return the finding that a path's change shows a secret."""
    shown = redactor.data(path)
    message = f"the change of {shown_path(shown)!r} holds secret {secret}"
    return Fault(reason="SECRET_EXPOSED", message=message, remedy=_REMEDY, paths=(shown,))


def _told(change: Change) -> Iterable[bytes]:
    yield change.path
    yield change.moved_from
    for node in (change.old, change.new):
        if node is not None:
            yield node.link_target
            for name, value in node.xattrs:
                yield name.encode("utf-8", "surrogateescape")
                yield value


def _in_content(change: Change, new_content: NameOf, old_content: NameOf) -> str | None:
    if change.kind not in _CONTENT_CHANGES:
        return None
    for node, content in ((change.new, new_content), (change.old, old_content)):
        secret = content(change.path, node) if node is not None and node.type is NodeType.FILE else None
        if secret is not None:
            return secret
    return None
