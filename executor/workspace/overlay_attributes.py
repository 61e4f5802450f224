"""Extended attributes of an overlay's upper nodes: what is the command's, what the overlay's own, what is neither.

The attributes that a command sets under `user.overlay.` are stored one level deeper, as `user.overlay.overlay.`, and
are read back here as what the command meant them to be. The overlay's own are no part of the tree. An attribute of
another name space (an access control list, a capability) is not a command's to set, and is reported apart.
"""

import os
from dataclasses import dataclass

from executor.domain.errors import StepUnsafeError
from gonogo.safe_text import shown_path

Xattrs = tuple[tuple[str, bytes], ...]

_OWN = "user.overlay."
_ESCAPED = "user.overlay.overlay."
_OPAQUE = "user.overlay.opaque"
# What the overlay notes for itself on an upper node; none of it is part of the tree.
_PRIVATE = frozenset({_OPAQUE, *(f"{_OWN}{name}" for name in ("origin", "impure", "nlink", "protattr", "uuid"))})
# The kernel labels every file by itself where such a policy is in force; no program chose these.
_LABELS = frozenset({"security.selinux", "security.SMACK64"})


class UpperUnreadableError(StepUnsafeError):
    """The upper directory holds what this reader does not know or can not reach, so the changes are not known."""

    def __init__(self, path: bytes, why: str) -> None:
        super().__init__(
            "SIMULATION_UNSAFE",
            f"the changes can not be read: {shown_path(path)!r} {why}",
            "let the command leave plain files and directories, less deeply nested",
            paths=(path,),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UpperAttributes:
    """The attributes of one upper node.

    `user`: those of the `user.` name space as the command set them, sorted. `foreign`: those of any other name space.
    """

    user: Xattrs = ()
    foreign: Xattrs = ()
    opaque: bool = False


NO_ATTRIBUTES = UpperAttributes()


def upper_attributes(path: bytes, place: bytes) -> UpperAttributes:
    """Reads the attributes of the upper node at `place`, which is `path` in the tree.

    Raises:
        UpperUnreadableError: a mark of the overlay is unknown.
    """
    names = os.listxattr(place, follow_symlinks=False)
    if not names:
        return NO_ATTRIBUTES
    user, foreign = [], []
    opaque = False
    for name in names:
        if not name.startswith("user."):
            if name not in _LABELS:
                foreign.append((name, _value(place, name)))
        elif name.startswith(_ESCAPED):
            user.append((_OWN + name.removeprefix(_ESCAPED), _value(place, name)))
        elif not name.startswith(_OWN):
            user.append((name, _value(place, name)))
        elif name not in _PRIVATE:
            raise UpperUnreadableError(path, f"carries the unknown overlay mark {name!r}")
        elif name == _OPAQUE:
            opaque = _is_opaque(path, _value(place, name))
    return UpperAttributes(user=tuple(sorted(user)), foreign=tuple(sorted(foreign)), opaque=opaque)


def lower_attributes(place: bytes) -> UpperAttributes:
    """Reads the attributes of a node below; what is named as the overlay's own no command is shown: it is foreign."""
    user, foreign = [], []
    for name in os.listxattr(place, follow_symlinks=False):
        if name.startswith("user.") and not name.startswith(_OWN):
            user.append((name, _value(place, name)))
        elif name not in _LABELS:
            foreign.append((name, _value(place, name)))
    return UpperAttributes(user=tuple(sorted(user)), foreign=tuple(sorted(foreign)))


def _is_opaque(path: bytes, value: bytes) -> bool:
    if value != b"y":
        raise UpperUnreadableError(path, "carries an overlay mark of an unknown kind")
    return True


def _value(place: bytes, name: str) -> bytes:
    return os.getxattr(place, name, follow_symlinks=False)
