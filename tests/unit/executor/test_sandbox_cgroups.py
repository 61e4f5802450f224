"""Cgroups: what counts as delegated, that a session is bounded as a whole, and what is cleaned."""

import errno
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.sandbox import cgroups
from executor.sandbox.bubblewrap import Bubblewrap
from executor.sandbox.cgroups import Cgroups, Hierarchy, describe, find_hierarchies
from executor.sandbox.sandbox import Limits, SandboxUnavailableError, SessionRequest
from tests.conformance.sandbox_suite import said, shell

LIMITS = Limits(max_duration_seconds=20, upper_bytes=8 << 20, upper_inodes=500, max_processes=30)


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    root = tmp_path / "ws"
    root.mkdir()
    return root


@pytest.fixture
def real() -> Iterator[Cgroups]:
    hierarchies = find_hierarchies()
    if not hierarchies:
        pytest.skip("no cgroup is delegated to this process")
    made = Cgroups(hierarchies=hierarchies)
    yield made
    made.close()
    assert not [place for one in hierarchies for place in one.place.glob(f"gonogo-{os.getpid()}-*")]


@pytest.mark.sandbox
def test_a_session_is_bounded_as_a_whole(real: Cgroups, workspace: Path) -> None:
    """Also where a command is the machine's root, which rlimits exempt, no more processes run than allowed."""
    if "pids" not in {name for one in real.hierarchies for name in one.controllers}:
        pytest.skip("the pids controller is not delegated to this process")
    request = SessionRequest(workspace=workspace, workspace_id="w", limits=LIMITS)
    script = (
        "import os, time\nn = 0\ntry:\n    while n < 200:\n        if os.fork() == 0: time.sleep(9)\n        n += 1\n"
        "except OSError as error: print(error.strerror)\nprint(n)"
    )
    with Bubblewrap.on_this_machine(cgroups=real).open(request) as session:
        first, count = said(shell(session, f"python3 -c '{script}'")).splitlines()
        assert first == "Resource temporarily unavailable"
        assert 20 <= int(count) <= 40
        assert said(shell(session, "echo on; echo thrown", discard_changes=True)) == "on\nthrown\n"


@pytest.mark.sandbox
def test_the_servers_thread_is_where_it_was(real: Cgroups, workspace: Path) -> None:
    """The thread that starts a command is in the session's cgroup for that moment only, and no other thread ever is."""
    before = Path("/proc/thread-self/cgroup").read_text()
    seen = []
    slot = real.take(LIMITS)
    with slot.joined():
        other = threading.Thread(target=lambda: seen.append(Path("/proc/self/cgroup").read_text()))
        inside = Path("/proc/thread-self/cgroup").read_text()
        child = subprocess.run(["cat", "/proc/self/cgroup"], capture_output=True, text=True, check=True).stdout
    other.start()
    other.join()
    assert (slot.name in inside) is (slot.name in child) is any(one.version == 1 for one in real.hierarchies)
    assert Path("/proc/thread-self/cgroup").read_text() == before == seen[0]
    real.give_back(slot)


def test_slots_are_used_again(tmp_path: Path) -> None:
    """A slot that was given back serves the next session, with that session's limits."""
    hierarchy = a_version_2(tmp_path)
    slots = Cgroups(hierarchies=(hierarchy,))
    with pytest.raises(SandboxUnavailableError, match="cgroup"):
        slots.take(LIMITS)  # a plain directory has no pids.max
    (slot,) = slots._made
    for name in ("pids.max", "memory.max"):
        (hierarchy.place / slot.name / name).touch()
    slots.give_back(slot)
    assert slots.take(LIMITS) == slot
    assert (hierarchy.place / slot.name / "pids.max").read_text() == "38"
    assert (hierarchy.place / slot.name / "memory.max").read_text() == str((8 << 20) + (4 << 30))
    assert slot.prefix == ["/bin/sh", "-c", 'echo 0 > "$0" && exec "$@"', f"{hierarchy.place}/{slot.name}/cgroup.procs"]


def test_a_launcher_joins_by_itself(tmp_path: Path) -> None:
    """With version 2 a launcher asks to be moved before it becomes what it is to be; else it does not run."""
    hierarchy = a_version_2(tmp_path)
    slot = cgroups.Slot(name="slot", hierarchies=(hierarchy,))
    (hierarchy.place / "slot").mkdir()
    procs = hierarchy.place / "slot" / "cgroup.procs"
    assert subprocess.run([*slot.prefix, "echo", "ran"], capture_output=True, check=True).stdout == b"ran\n"
    assert procs.read_text() == "0\n"
    procs.unlink()
    procs.mkdir()
    assert subprocess.run([*slot.prefix, "echo", "ran"], capture_output=True, check=False).stdout == b""


def a_version_2(place: Path, controllers: str = "cpu memory pids") -> Hierarchy:
    """A directory that looks like a cgroup."""
    own = place / "own"
    own.mkdir()
    for name in ("cgroup.procs", "cgroup.subtree_control"):
        (own / name).touch()
    (own / "cgroup.controllers").write_text(controllers + "\n")
    return Hierarchy(version=2, place=own, controllers=("pids", "memory"))


class Kernel:
    """Refuses, as the kernel does, controllers for the children of a cgroup that has processes of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, others: bool) -> None:
        self.others = others
        self.inside: Path | None = None
        self.written: list[tuple[str, str]] = []
        monkeypatch.setattr(cgroups, "_write", self.write)

    def write(self, file: Path, text: str) -> None:
        self.written.append((str(Path(file.parent.name, file.name)), text))
        if file.name == "cgroup.procs":
            self.inside = file.parent
        if file.name == "cgroup.subtree_control" and (self.others or self.inside in (None, file.parent)):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


@pytest.mark.parametrize("delegate", ["1", "0", None])
def test_only_a_delegated_cgroup_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delegate: str | None) -> None:
    """A cgroup that its manager did not hand over is left alone, by root too; one that it did is prepared."""
    hierarchy = a_version_2(tmp_path)
    if delegate is not None:
        os.setxattr(hierarchy.place, "user.delegate", delegate.encode())
    monkeypatch.setattr(cgroups, "_own_places", lambda: {"": "/own", "memory": "/managed"})
    monkeypatch.setattr(cgroups, "_mounts", lambda: {"": tmp_path, "memory": tmp_path})
    kernel = Kernel(monkeypatch, others=False)
    found = find_hierarchies()
    assert found == ((hierarchy,) if delegate == "1" else ())
    enabled = ("own/cgroup.subtree_control", "+pids +memory")
    assert kernel.written == ([enabled, ("gonogo-executor/cgroup.procs", "0"), enabled] if found else [])
    expected = "pids and memory by cgroup v2" if found else "pids and memory by rlimits only: no cgroup is delegated"
    assert describe(found).startswith(expected)


def test_a_cgroup_of_others_too_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where other processes share the delegated cgroup the kernel refuses; this process then goes back where it was."""
    hierarchy = a_version_2(tmp_path)
    os.setxattr(hierarchy.place, "user.delegate", b"1")
    monkeypatch.setattr(cgroups, "_own_places", lambda: {"": "/own"})
    monkeypatch.setattr(cgroups, "_mounts", lambda: {"": tmp_path})
    kernel = Kernel(monkeypatch, others=True)
    assert find_hierarchies() == ()
    assert kernel.written[-1] == ("own/cgroup.procs", "0")
    assert not (hierarchy.place / "gonogo-executor").exists()


def test_a_containers_own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that sees its cgroup as the root, and may write to it, has been given it."""
    hierarchy = a_version_2(tmp_path)
    monkeypatch.setattr(cgroups, "_own_places", lambda: {"": "/"})
    monkeypatch.setattr(cgroups, "_mounts", lambda: {"": hierarchy.place})
    Kernel(monkeypatch, others=False)
    assert find_hierarchies() == (hierarchy,)
    monkeypatch.setattr(cgroups, "_writable", lambda _: False)
    assert find_hierarchies() == ()


def test_a_service_in_a_child_of_the_delegated_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With systemd's DelegateSubgroup the executor is in a child already; the delegated parent is used as it is."""
    hierarchy = a_version_2(tmp_path, controllers="pids")
    (hierarchy.place / "service").mkdir()
    os.setxattr(hierarchy.place, "user.delegate", b"1")
    monkeypatch.setattr(cgroups, "_own_places", lambda: {"": "/own/service"})
    monkeypatch.setattr(cgroups, "_mounts", lambda: {"": tmp_path})
    assert find_hierarchies() == (Hierarchy(version=2, place=hierarchy.place, controllers=("pids",)),)
    assert not (hierarchy.place / "gonogo-executor").exists()


def test_what_a_dead_executor_left_is_removed(tmp_path: Path) -> None:
    """Of a process that is gone, by number and start, and empty; all else stays."""
    hierarchy = a_version_2(tmp_path)
    me, started = os.getpid(), cgroups._started(str(os.getpid()))
    names = (
        f"gonogo-{me}-{started}-0",
        f"gonogo-{me}-1-0",
        "gonogo-999999999-5-0",
        "gonogo-999999999-6-0",
        "other-1-2-3",
    )
    for name in names:
        (hierarchy.place / name).mkdir()
    (hierarchy.place / "gonogo-999999999-6-0" / "process").touch()  # as a cgroup that has one can not be removed
    Cgroups(hierarchies=(hierarchy,)).clean()
    left = sorted(place.name for place in hierarchy.place.iterdir() if place.is_dir())
    assert left == sorted([names[0], names[3], names[4]])


def test_what_is_mounted_is_found() -> None:
    """The kernel's tables of this machine are read without a fault, whatever it has."""
    places, mounts = cgroups._own_places(), cgroups._mounts()
    assert all(place.startswith("/") for place in places.values())
    assert all(place.is_dir() for place in mounts.values())
