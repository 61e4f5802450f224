"""The launcher's arguments: what is where inside, what is covered, and what pid 1 does first.

Every path and value is an argument of its own behind a fixed option, and the command stands behind `--`, so that
nothing of a plan can be read as an option.
"""

import os
import resource
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from executor.sandbox import files, view
from executor.sandbox.sandbox import CommandSpec, Limits, SandboxRefusedError
from gonogo.safe_text import shown_path

# Pid 1 inside: keeps its own remarks to itself, sets the limits, says that the sandbox stands, makes /dev/null the
# standard input, and runs the command as a child: as pid 1 that would be deaf to most signals.
_INIT = (
    'exec 3>&2 2>/dev/null && umask 022 && {limits} && echo >&0 && exec 0</dev/null && (exec "$@" 2>&3 3>&-); exit $?'
)
# bash and dash name the number of processes differently; each refuses the other's letter.
_LIMITS = (
    "ulimit -c 0 && ulimit -n {files} && {{ ulimit -u {processes} || ulimit -p {processes}; }} && ulimit -f {blocks}"
)
_LIMIT_BLOCK = 512
_KIB = 1024
_CONFINE = (
    *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--disable-userns", "--cap-drop", "ALL", "--new-session", "--die-with-parent", "--as-pid-1"),
    *("--hostname", "sandbox", "--clearenv"),
)
# Under root, the files of /proc belong to the user that the command runs as, and no capability is needed to write to
# one's own file: without this, /proc/sys/kernel/core_pattern would be a way out.
_READ_ONLY = ("--remount-ro", "/proc", "--remount-ro", "/dev")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Whom a command runs as: the user itself, or under root the owner of the workspace."""

    uid: int
    gid: int

    @classmethod
    def for_workspace(cls, workspace: Path) -> Self:
        if os.geteuid() != 0:
            return cls(uid=os.geteuid(), gid=os.getegid())
        owner = workspace.stat()
        return cls(uid=owner.st_uid, gid=owner.st_gid)

    @property
    def accounts(self) -> Mapping[str, str]:
        """/etc's tables of names, made up: the machine's users are not the command's business."""
        name = "root" if self.uid == 0 else "sandbox"
        return {
            "passwd": f"{name}:x:{self.uid}:{self.gid}::{view.HOME}:/bin/sh\n",
            "group": f"{name}:x:{self.gid}:\n",
            "hosts": "127.0.0.1 localhost\n::1 localhost\n",
            "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """Where a session's commands find what. `cellar` is the session's own directory, which no command sees."""

    cellar: str
    workspace: Path
    tools: tuple[str, ...]
    system: tuple[str, ...]
    hidden: tuple[bytes, ...]
    identity: Identity

    def arguments(self, spec: CommandSpec, *, merged: Path, search_path: tuple[str, ...]) -> list[str | bytes]:
        """All of a launcher's options for one command.

        Raises:
            SandboxRefusedError: a hidden path can not be covered.
        """
        environment = {
            "PATH": ":".join(search_path),
            "HOME": view.HOME,
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            **spec.env,
        }
        variables = [word for name, value in environment.items() for word in ("--setenv", name, value)]
        start = ["--chdir", str(self.workspace / spec.cwd)]
        return [*_CONFINE, *self._trees(), *self._masks(merged), *variables, *start, "--remount-ro", "/"]

    def hides(self, path: bytes) -> bool:
        return any(_is_below(path, hidden) for hidden in self.hidden)

    def _trees(self) -> list[str]:
        """Later mounts lie over earlier ones: the workspace comes last, whatever holds it."""
        arguments = ["--uid", str(self.identity.uid), "--gid", str(self.identity.gid), *self.system]
        arguments += view.etc_arguments(f"{self.cellar}/etc")
        arguments += ["--proc", "/proc", "--dev", "/dev"]
        arguments += ["--bind", f"{self.cellar}/scratch/shm", "/dev/shm"]  # noqa: S108  # the command's own
        arguments += [*_READ_ONLY, "--bind", f"{self.cellar}/scratch/tmp", "/tmp"]  # noqa: S108  # the command's own
        for tool in self.tools:
            arguments += ["--ro-bind", tool, tool]
        return [*arguments, "--bind", f"{self.cellar}/merged", str(self.workspace)]

    def _masks(self, merged: Path) -> list[str | bytes]:
        """Covers each hidden path that is there now: a file by /dev/null, a directory by an empty one.

        Raises:
            SandboxRefusedError: a hidden path is, or is behind, a symbolic link, so that covering it would cover
                something else, or nothing.
        """
        arguments: list[str | bytes] = []
        covered: list[bytes] = []
        for path in sorted(self.hidden):
            if any(_is_below(path, folder) for folder in covered):
                continue
            try:
                kind = files.kind_of(merged, path)
            except files.UnreadableFileError as error:
                raise _can_not_hide(path, str(error)) from error
            place = os.fsencode(self.workspace) + b"/" + path
            if kind == stat.S_IFDIR:
                covered.append(path)
                arguments += ["--perms", "0555", "--tmpfs", place, "--remount-ro", place]
            elif kind is not None:
                arguments += ["--ro-bind", "/dev/null", place]
        return arguments


def init_script(limits: Limits) -> str:
    """The script of pid 1, with the limits that are the shell's own to set."""
    text = _LIMITS.format(
        files=_at_most(resource.RLIMIT_NOFILE, limits.max_open_files),
        processes=_at_most(resource.RLIMIT_NPROC, limits.max_processes),
        blocks=_at_most(resource.RLIMIT_FSIZE, limits.max_file_bytes) // _LIMIT_BLOCK,
    )
    if limits.memory_bytes is not None:
        text += f" && ulimit -v {_at_most(resource.RLIMIT_AS, limits.memory_bytes) // _KIB}"
    return _INIT.format(limits=text)


def _at_most(kind: int, wanted: int) -> int:
    hard = resource.getrlimit(kind)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


def _is_below(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


def _can_not_hide(path: bytes, why: str) -> SandboxRefusedError:
    return SandboxRefusedError(
        "UNSUPPORTED",
        f"the hidden path {shown_path(path)!r} {why}; it can not be covered safely, so no command runs",
        "replace the link by the file, or name what it points to in `hidden` instead",
        paths=(path,),
    )
