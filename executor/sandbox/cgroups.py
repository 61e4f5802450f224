"""Limits on all of a session's processes together, where the machine lets this process set them.

What setrlimit(2) bounds is bounded per process, and the number of processes per user, root exempt. A cgroup bounds a
whole session: the number of its processes (`pids`) and their memory with that of its tmpfs (`memory`).

A cgroup belongs to one manager, and its children are that manager's to make. So one is used only where it was handed
over: with version 2 a cgroup marked as delegated (systemd: `Delegate=pids memory`, with `DelegateSubgroup=` or the
executor alone in it), or the root of all that this process sees, as in a container that may write to it; with version
1, which has no such mark, the root of a hierarchy that this process, as root, is in. Elsewhere rlimits are all there
is, and a finding says so.

Moving a process into a cgroup stops all forks of the machine until every processor has passed a quiet state, some ten
milliseconds; only a thread of version 1 that moves itself is spared that. So the directories are made once and reused,
and with version 1 the server's own thread joins for the moment in which it starts a launcher, which is born inside.
"""

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from executor.sandbox.sandbox import Limits, SandboxUnavailableError
from gonogo.safe_text import safe_line

CONTROLLERS = ("pids", "memory")
_PREFIX = "gonogo-"
_LEAF = "gonogo-executor"
_LAUNCHERS = 8  # processes of a command that are not the command's own: nsenter, bwrap, shells, and a thread that joins
_JOIN = 'echo 0 > "$0" && exec "$@"'
_MEMORY_FILES = {1: "memory.limit_in_bytes", 2: "memory.max"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchy:
    """A cgroup beneath which sessions' cgroups may be made, and what it bounds."""

    version: int
    place: Path
    controllers: tuple[str, ...]

    @property
    def entrance(self) -> str:
        """The file that takes a 0 from who wants to join."""
        return "tasks" if self.version == 1 else "cgroup.procs"

    def __str__(self) -> str:
        return f"{' and '.join(self.controllers)} by cgroup v{self.version} in {safe_line(str(self.place))}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One session's cgroups; another session gets them when it has ended."""

    name: str
    hierarchies: tuple[Hierarchy, ...]

    def limit(self, limits: Limits) -> None:
        """Sets what the next session may use.

        Raises:
            SandboxUnavailableError: the machine took the cgroup away.
        """
        wanted = {"pids": limits.max_processes + _LAUNCHERS, "memory": limits.upper_bytes + limits.session_memory_bytes}
        with _errors_named():
            for hierarchy in self.hierarchies:
                files = {"pids": "pids.max", "memory": _MEMORY_FILES[hierarchy.version]}
                for controller in hierarchy.controllers:
                    _write(hierarchy.place / self.name / files[controller], str(wanted[controller]))

    @property
    def prefix(self) -> list[str]:
        """What has to be started before a launcher so that it joins by itself."""
        entrances = [self._entrance(one) for one in self.hierarchies if one.version != 1]
        return [word for entrance in entrances for word in ("/bin/sh", "-c", _JOIN, str(entrance))]

    @contextlib.contextmanager
    def joined(self) -> Iterator[None]:
        """Has the calling thread in the slot, so that what it starts is born there.

        Raises:
            SandboxUnavailableError: it can not join.
        """
        with contextlib.ExitStack() as leaving:
            with _errors_named():
                for hierarchy in self.hierarchies:
                    if hierarchy.version == 1:
                        leaving.callback(_write, hierarchy.place / hierarchy.entrance, "0")
                        _write(self._entrance(hierarchy), "0")
            yield

    def _entrance(self, hierarchy: Hierarchy) -> Path:
        return hierarchy.place / self.name / hierarchy.entrance


@dataclass(slots=True, kw_only=True)
class Cgroups:
    """The slots of one executor. Thread safe."""

    hierarchies: tuple[Hierarchy, ...]
    _free: list[Slot] = field(default_factory=list)
    _made: list[Slot] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, limits: Limits) -> Slot:
        """A slot with these limits, to be given back by `give_back`.

        Raises:
            SandboxUnavailableError: it can not be made.
        """
        with self._lock:
            slot = self._free.pop() if self._free else self._make()
        slot.limit(limits)
        return slot

    def give_back(self, slot: Slot) -> None:
        with self._lock:
            self._free.append(slot)

    def close(self) -> None:
        """Removes the slots; one in which a process is still dying is left for the next executor to remove."""
        with self._lock:
            for slot in self._made:
                _remove(slot.name, self.hierarchies)
            self._made.clear()
            self._free.clear()

    def clean(self) -> None:
        """Removes what executors that died left behind, as far as no process is in it."""
        for hierarchy in self.hierarchies:
            for place in hierarchy.place.glob(f"{_PREFIX}*-*-*"):
                _, pid, started, *_ = place.name.split("-")
                if _started(pid) != started:
                    _remove(place.name, (hierarchy,))

    def _make(self) -> Slot:
        pid = str(os.getpid())
        slot = Slot(name=f"{_PREFIX}{pid}-{_started(pid)}-{len(self._made)}", hierarchies=self.hierarchies)
        with _errors_named():
            for hierarchy in self.hierarchies:
                (hierarchy.place / slot.name).mkdir(exist_ok=True)
        self._made.append(slot)
        return slot


def find_hierarchies() -> tuple[Hierarchy, ...]:
    """The cgroups that were handed over to this process, each controller once; with version 2 it may move for that."""
    places, mounts = _own_places(), _mounts()
    found = _version_2(places.get("", ""), mounts.get("", None))
    taken = set(found.controllers) if found else set()
    hierarchies = [found] if found else []
    for controller in CONTROLLERS:
        mount = mounts.get(controller)
        if controller not in taken and mount is not None and os.geteuid() == 0 and places.get(controller) == "/":
            hierarchies += [Hierarchy(version=1, place=mount, controllers=(controller,))] if _writable(mount) else []
    return tuple(hierarchies)


def describe(hierarchies: Sequence[Hierarchy]) -> str:
    """What of a session's processes together is bounded, and what is not."""
    bounded = {controller for hierarchy in hierarchies for controller in hierarchy.controllers}
    missing = [controller for controller in CONTROLLERS if controller not in bounded]
    parts = [str(hierarchy) for hierarchy in hierarchies]
    parts += [f"{' and '.join(missing)} by rlimits only: no cgroup is delegated to the executor"] if missing else []
    return "; ".join(parts)


def _version_2(own: str, mount: Path | None) -> Hierarchy | None:
    """The delegated cgroup that this process is in, or in whose child, made ready for children with limits."""
    if mount is None or not own.startswith("/"):
        return None
    place = mount / own.lstrip("/")
    for candidate in (place, place.parent) if own != "/" else (place,):
        with contextlib.suppress(OSError):  # others are in it, or it is not ours after all
            if not _is_delegated(candidate, own):
                continue
            there = (candidate / "cgroup.controllers").read_text(encoding="ascii").split()
            controllers = tuple(name for name in CONTROLLERS if name in there)
            if controllers:
                _enable(candidate, controllers, inside=candidate == place)
                return Hierarchy(version=2, place=candidate, controllers=controllers)
    return None


def _is_delegated(place: Path, own: str) -> bool:
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):  # it has no such mark
            if os.getxattr(place, name) == b"1":
                return True
    return own == "/" and _writable(place)


def _enable(place: Path, controllers: Sequence[str], *, inside: bool) -> None:
    """Has children get these controllers. No cgroup with processes of its own may, so this one goes to a child of it.

    Raises:
        OSError: it can not be; this process is then where it was.
    """
    wanted = " ".join(f"+{name}" for name in controllers)
    try:
        _write(place / "cgroup.subtree_control", wanted)
    except OSError:
        if not inside:
            raise
    else:
        return
    leaf = place / _LEAF
    leaf.mkdir(exist_ok=True)
    _write(leaf / "cgroup.procs", "0")
    try:
        _write(place / "cgroup.subtree_control", wanted)
    except OSError:
        _write(place / "cgroup.procs", "0")
        leaf.rmdir()
        raise


def _own_places() -> dict[str, str]:
    """This process's place in the hierarchy of each controller; that of version 2 has the empty name."""
    found = {}
    for line in Path("/proc/self/cgroup").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        _, controllers, place = line.split(":", 2)
        found.update(dict.fromkeys(controllers.split(","), place))
    return found


def _mounts() -> dict[str, Path]:
    """Where the hierarchy of each controller is mounted, from its root on."""
    found = {}
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        point = Path(before.split(" ")[4])
        if kind == "cgroup2":
            found[""] = point
        elif kind == "cgroup":
            found.update({name: point for name in CONTROLLERS if name in options.split(",")})
    return found


def _writable(place: Path) -> bool:
    return os.access(place, os.W_OK) and not os.statvfs(place).f_flag & os.ST_RDONLY


def _started(pid: str) -> str:
    """When a process started, which with its number names it for good; empty where there is none."""
    try:
        return Path("/proc", pid, "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _remove(name: str, hierarchies: Sequence[Hierarchy]) -> None:
    for hierarchy in hierarchies:
        with contextlib.suppress(OSError):  # a process is in it
            (hierarchy.place / name).rmdir()


def _write(file: Path, text: str) -> None:
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode("ascii"))
    finally:
        os.close(fd)


@contextlib.contextmanager
def _errors_named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SandboxUnavailableError(
            "UNSUPPORTED",
            f"a session's cgroup can not be used: {safe_line(str(error))}",
            "restart the executor; it then finds out again what is delegated to it",
        ) from error
