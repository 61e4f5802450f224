"""Which users and groups a session's commands know, and so whose files they can change."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class MappedIds:
    """The ids that a session's user namespace has names for.

    A file whose owner or group is not among them can be read, where its mode allows, but not changed: an overlay
    would have to give its copy the same owner and group, and fails with EOVERFLOW.
    """

    users: tuple[range, ...]
    groups: tuple[range, ...]

    def holds(self, uid: int, gid: int) -> bool:
        """Whether a file of this owner and group can be changed."""
        return any(uid in some for some in self.users) and any(gid in some for some in self.groups)


def mapped_ids() -> MappedIds:
    """Those of the sessions that this process opens: an ordinary user's own two, or all that root has itself."""
    if os.geteuid() != 0:
        uid, gid = os.geteuid(), os.getegid()
        return MappedIds(users=(range(uid, uid + 1),), groups=(range(gid, gid + 1),))
    return MappedIds(users=_own_map("uid_map"), groups=_own_map("gid_map"))


def _own_map(name: str) -> tuple[range, ...]:
    lines = Path("/proc/self", name).read_text(encoding="ascii").splitlines()
    spans = ((int(inside), int(count)) for inside, _, count in (line.split() for line in lines))
    return tuple(range(start, start + count) for start, count in spans)
