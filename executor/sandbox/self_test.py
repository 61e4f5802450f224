"""Finding out, by really doing it, how far this machine can isolate a command.

A kernel that lists a feature, a distribution's switch and a container's filter tell different stories; only a run
tells what holds. Whatever fails becomes a finding with a remedy. Where no session works on an overlay, L3, the same
trials are made on a private copy, L2; where those fail too the level is L1, and commands are refused. The level is
found once, at the start: a sandbox that fails later is an error of that run, and never a reason for a lower level.
"""

import errno
import functools
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from executor.domain.errors import ExecutorError
from executor.domain.ladder import LadderLevel
from executor.sandbox.bubblewrap import Bubblewrap, find_launchers
from executor.sandbox.cgroups import Cgroups, describe
from executor.sandbox.copy_session import CopySession
from executor.sandbox.sandbox import CommandResult, CommandSpec, Limits, SandboxSession, SessionRequest
from executor.sandbox.seccomp import shipped_filter
from executor.sandbox.storage import Storage
from gonogo.safe_text import safe_line

_CAP = "max_ladder_level"
_OLDEST_BWRAP = (0, 8)
_SECONDS = 10
_LIMITS = Limits(max_duration_seconds=_SECONDS, upper_bytes=8 << 20, upper_inodes=500, output_bytes=8192)
_DEATH_SECONDS = 1.5
_MEASURED = "the size cap is then checked during and after each command, besides RLIMIT_FSIZE"
_CORRECT = "correct what the detail names; in a container, start it as deploy/compose.commands.yaml does"
_ATTRIBUTES_REMEDY = "use Linux 6.6 or later, or give the executor a scratch directory on a disk with user attributes"
# Switches that turn user namespaces off, the value that does it, and how to turn them on.
_SWITCHES = (
    ("kernel/unprivileged_userns_clone", "0", "sysctl -w kernel.unprivileged_userns_clone=1"),
    ("user/max_user_namespaces", "0", "sysctl -w user.max_user_namespaces=10000"),
    (
        "kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "give /usr/bin/bwrap and /usr/bin/unshare an AppArmor profile that allows userns",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was tried. `remedy` is empty where there is nothing to do."""

    name: str
    ok: bool
    detail: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The level that holds here, on what sessions have to lie for it, and what was tried to know it."""

    level: LadderLevel
    findings: tuple[Finding, ...]
    storage: Storage = Storage.TMPFS

    @property
    def limitation(self) -> str:
        """Why the level is not the highest, and what to do; empty where it is."""
        if self.level is max(LadderLevel):
            return ""
        failed = [one for one in self.findings if not one.ok] or [one for one in self.findings if one.name == _CAP]
        return "; ".join(f"{one.detail}: {one.remedy}" for one in failed)


class _TrialError(Exception):
    """A trial did not come out as it must; the arguments are what was seen and what to do."""

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.remedy = remedy


def probe(
    workspace_staging_dir: Path,
    scratch: Path | None = None,
    *,
    storage: Storage | None = None,
    highest: LadderLevel = LadderLevel.L3,
    cgroups: Cgroups | None = None,
) -> Probe:
    """Tries everything that a dry run of commands needs, in a throw-away workspace; never raises.

    Args:
        workspace_staging_dir: A directory on the workspaces' filesystem that this process may write to.
        scratch: Where sessions may lie on disk, should this kernel's tmpfs not do.
        storage: On what they are to lie; by default what works here is found out.
        highest: The highest level that the operator allows.
        cgroups: What is to bound each session as a whole.
    """
    findings = [] if highest is max(LadderLevel) else [_capped(highest)]
    if not highest.runs_commands:
        return Probe(level=highest, findings=tuple(findings))
    findings += [
        _try("bubblewrap", _bubblewrap),
        _try("user_namespaces", _user_namespaces),
        _try("seccomp_filter", lambda: f"{shipped_filter()} is for this machine"),
        Finding(name="cgroups", ok=True, detail=describe(cgroups.hierarchies if cgroups else ()), remedy=""),
    ]
    if not _all_hold(findings):
        return Probe(level=LadderLevel.L1, findings=tuple(findings))
    failed: list[Finding] = []
    for one, where in _candidates(workspace_staging_dir, scratch, storage, highest):
        sandbox = Bubblewrap.on_this_machine(scratch=scratch, storage=one, cgroups=cgroups)
        found = _try_sessions(workspace_staging_dir, sandbox, safe_line(where))
        if _all_hold(found):
            return Probe(level=one.level, findings=(*findings, *failed, *found), storage=one)
        failed += [finding for finding in found if not finding.ok]
    return Probe(level=LadderLevel.L1, findings=(*findings, *failed))


def _all_hold(findings: list[Finding]) -> bool:
    return all(finding.ok for finding in findings)


def _capped(highest: LadderLevel) -> Finding:
    return Finding(
        name=_CAP,
        ok=True,
        detail=f"the operator allows no more than level {highest.name}",
        remedy="start the executor with a higher --max-ladder-level, or without it",
    )


def _candidates(
    staging: Path, scratch: Path | None, wanted: Storage | None, highest: LadderLevel
) -> Iterator[tuple[Storage, str]]:
    """On what sessions might lie, best first, with what is said about it."""
    if highest >= Storage.TMPFS.level and wanted is not Storage.COPY:
        on_disk = f"on disk in {scratch}%s; {_MEASURED}"
        if wanted is Storage.DISK:
            yield Storage.DISK, on_disk % ""
        elif wanted is None and scratch is not None and not _tmpfs_has_attributes(staging):
            yield Storage.DISK, on_disk % ", since this kernel's tmpfs has no user attributes"
        else:
            yield Storage.TMPFS, "on a capped tmpfs"
    if scratch is not None and wanted in (None, Storage.COPY):
        yield Storage.COPY, f"on disk in {scratch}; {_MEASURED}"


def _tmpfs_has_attributes(staging: Path) -> bool:
    """Whether a tmpfs, mounted as sessions mount it, takes an attribute such as an overlay has to set.

    What else may be wrong with a session is for the trials to find out and to name.
    """
    try:
        with tempfile.TemporaryDirectory(dir=staging, prefix=".probe-") as folder:
            request = SessionRequest(workspace=Path(folder).resolve(), workspace_id="probe", limits=_LIMITS)
            with Bubblewrap.on_this_machine().open(request) as session:
                return _takes_attributes(session.upper)
    except (OSError, ExecutorError):
        return True


def _takes_attributes(upper: Path) -> bool:
    try:
        _set_attribute(upper, "user.gonogo.probe", b"y")
    except OSError as error:
        return error.errno != errno.ENOTSUP
    return True


def _set_attribute(place: Path, name: str, value: bytes) -> None:
    os.setxattr(place, name, value)


def _try(name: str, trial: Callable[[], str]) -> Finding:
    try:
        return Finding(name=name, ok=True, detail=trial(), remedy="")
    except _TrialError as error:
        return Finding(name=name, ok=False, detail=error.detail, remedy=error.remedy)
    except ExecutorError as error:
        # A run that finds no sandbox sends people to the doctor, and this is what the doctor tells them.
        circular = error.fault.remedy.startswith("run gonogo doctor")
        remedy = _CORRECT if circular else error.fault.remedy
        return Finding(name=name, ok=False, detail=safe_line(error.fault.message), remedy=remedy)
    except Exception as error:  # noqa: BLE001  # whatever goes wrong is what was to be found out
        detail = f"{type(error).__name__}: {safe_line(str(error))}"
        return Finding(name=name, ok=False, detail=detail, remedy="correct what the detail names, then probe again")


def _bubblewrap() -> str:
    launchers = find_launchers()
    said = subprocess.run([launchers.bwrap, "--version"], capture_output=True, check=False, timeout=_SECONDS).stdout
    match = re.search(rb"(\d+)\.(\d+)", said)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    if version < _OLDEST_BWRAP:
        raise _TrialError(f"{launchers.bwrap} says {said!r}", "install bubblewrap 0.8 or later")
    return f"{launchers.bwrap} {version[0]}.{version[1]}"


def _user_namespaces() -> str:
    trial = [find_launchers().unshare, "--user", "--mount", "--pid", "--fork", "true"]
    done = subprocess.run(trial, capture_output=True, check=False, timeout=_SECONDS)
    if done.returncode:
        raise _TrialError(safe_line(done.stderr.decode("utf-8", "replace").strip()), _userns_remedy())
    return "user, mount and pid namespaces can be made"


def _userns_remedy() -> str:
    for name, off, remedy in _SWITCHES:
        switch = Path("/proc/sys", name)
        if switch.exists() and switch.read_text(encoding="ascii").strip() == off:
            return remedy
    return "allow unprivileged user namespaces; in a container, as deploy/compose.commands.yaml does"


def _try_sessions(staging: Path, sandbox: Bubblewrap, where: str) -> list[Finding]:
    """The trials that need a session; the first one that fails for all is reported once."""
    findings: list[Finding] = []

    def in_session() -> str:
        with tempfile.TemporaryDirectory(dir=staging, prefix=".probe-") as folder:
            workspace = Path(folder).resolve()
            _fill(workspace)
            request = SessionRequest(workspace=workspace, workspace_id="probe", limits=_LIMITS)
            with sandbox.open(request) as session:
                findings.extend(_try(name, functools.partial(trial, session, workspace)) for name, trial in _TRIALS)
        what = "a private copy" if sandbox.level is LadderLevel.L2 else "an overlay"
        return f"the workspace can be covered at its own path by {what} {where}"

    name = "private_copy" if sandbox.level is LadderLevel.L2 else "overlay"
    return [_try(name, in_session), *findings]


def _fill(workspace: Path) -> None:
    workspace.joinpath("kept").write_text("base\n", encoding="ascii")
    workspace.joinpath("folder").mkdir()
    workspace.joinpath("folder", "inner").write_text("base\n", encoding="ascii")


def _shell(session: SandboxSession, script: str, *, seconds: float = _SECONDS, discard: bool = False) -> CommandResult:
    spec = CommandSpec(argv=("/bin/sh", "-c", script), timeout_seconds=seconds, discard_changes=discard)
    return session.run(spec)


def _said(result: CommandResult) -> str:
    return safe_line((result.stdout.head + result.stderr.head).decode("utf-8", "replace").strip()[-500:])


def _write(session: SandboxSession, workspace: Path) -> str:
    # Replacing a directory needs an extended attribute on the upper filesystem: tmpfs has them since Linux 6.6.
    # The remedy names both ways out.
    result = _shell(session, "echo changed > kept && rm -r folder && mkdir folder && echo new > folder/other")
    if result.exit_code != 0:
        raise _TrialError(f"a command could not write in its copy: {_said(result)}", _ATTRIBUTES_REMEDY)
    if workspace.joinpath("kept").read_text(encoding="ascii") != "base\n":
        raise _TrialError("a command's write reached the workspace", "do not run commands here; report this")
    if session.merged.joinpath("folder", "inner").exists():
        raise _TrialError("a replaced directory still shows what it held", _ATTRIBUTES_REMEDY)
    return "a command wrote, and the workspace is as it was"


def _discard(session: SandboxSession, _workspace: Path) -> str:
    result = _shell(session, "echo junk > junk && echo junk > kept", discard=True)
    if result.exit_code != 0 or session.merged.joinpath("junk").exists():
        raise _TrialError(
            f"changes could not be thrown away: {_said(result)}", "keep workspaces off overlay filesystems"
        )
    return "a command's changes were thrown away"


def _network(session: SandboxSession, _workspace: Path) -> str:
    result = _shell(session, "cat /proc/net/dev")
    names = re.findall(r"^\s*(\S+):", result.stdout.head.decode("ascii", "replace"), re.MULTILINE)
    if result.exit_code != 0 or names != ["lo"]:
        raise _TrialError(f"interfaces inside: {names}", "do not run commands here; report this")
    return "only an own loopback is there"


def _confinement(session: SandboxSession, _workspace: Path) -> str:
    """Each line tries one way out and says so when it is open; as root no capability is needed for most of them."""
    script = """
    grep -q '^NoNewPrivs:.1$' /proc/self/status || echo privileges
    grep -q '^CapEff:.0*$' /proc/self/status || echo capabilities
    (: >> /proc/sys/kernel/core_pattern) 2>/dev/null && echo kernel-settings
    chmod 666 /dev/null 2>/dev/null && echo device-nodes
    (: > /usr/.probe) 2>/dev/null && echo system-directories
    (: > /.probe) 2>/dev/null && echo root-directory
    test -e /etc/shadow -o -e /etc/machine-id -o -e /sys/kernel && echo other-directories
    echo tried
    """
    result = _shell(session, script)
    open_ways = result.stdout.head.decode("ascii", "replace").split()
    if open_ways != ["tried"]:
        raise _TrialError(f"not closed: {' '.join(open_ways)}", "do not run commands here; report this")
    return "no capability, nothing writable but the copy and temporary folders"


def _seccomp(session: SandboxSession, _workspace: Path) -> str:
    """The kernel says that a filter is there, and a call that nothing else would deny is denied."""
    script = """
    grep -q '^Seccomp:.2$' /proc/self/status || echo no-filter
    command -v setarch >/dev/null || echo no-setarch
    setarch "$(uname -m)" -R true 2>/dev/null && echo not-denied
    echo tried
    """
    result = _shell(session, script)
    said = result.stdout.head.decode("ascii", "replace").split()
    if said == ["no-setarch", "tried"]:
        raise _TrialError("there is no setarch to try the filter with", "install the package util-linux")
    if said != ["tried"]:
        raise _TrialError(
            f"the system call filter is not in force: {_said(result)}", "use a kernel with seccomp filters"
        )
    return f"{shipped_filter()} is in force: what it denies was denied"


def _kill(session: SandboxSession, _workspace: Path) -> str:
    began = time.monotonic()
    result = _shell(session, "setsid sh -c 'trap \"\" TERM; sleep 60' & sleep 60", seconds=0.3)
    took = time.monotonic() - began
    if not result.timed_out or took > _DEATH_SECONDS:
        raise _TrialError(f"a command was not ended in time ({took:.1f} s)", "probe again on a less loaded machine")
    return f"a command and its background children were ended in {round(took * 1000)} ms"


def _ids(session: SandboxSession, _workspace: Path) -> str:
    if os.geteuid() == 0:
        return "all users and groups are known inside; commands run as the owner of the workspace"
    if isinstance(session, CopySession):
        return "only this user and its primary group are known inside; in the copy every file is this user's own"
    return (
        "only this user and its primary group are known inside: a command can not change files that belong to another "
        "user or group (it sees EOVERFLOW); run the executor as root, or chown and chgrp such files"
    )


def _limits(_session: SandboxSession, _workspace: Path) -> str:
    if os.geteuid() == 0:
        exempt = "(by rlimit only for workspaces that root does not own: the kernel's rule)"
        return f"bytes, inodes, output, time, open files, file size, processes {exempt}"
    return "bytes, inodes, output, time, open files, file size, processes"


_TRIALS: tuple[tuple[str, Callable[[SandboxSession, Path], str]], ...] = (
    ("write", _write),
    ("discard", _discard),
    ("network", _network),
    ("confinement", _confinement),
    ("seccomp", _seccomp),
    ("kill", _kill),
    ("identities", _ids),
    ("limits", _limits),
)
