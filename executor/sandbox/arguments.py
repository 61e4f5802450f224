"""The launcher's arguments: what is where inside, what is covered, and what pid 1 does first.

Every path and value is an argument of its own behind a fixed option, and the command stands behind `--`, so that
nothing of a plan can be read as an option.
"""

import os
import resource
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from executor.sandbox import files, gateway, view
from executor.sandbox.sandbox import CommandSpec, Limits, SandboxRefusedError
from gonogo.safe_text import shown_path

# Pid 1 inside: keeps its own remarks to itself, looks at what was covered, sets the limits, says that the sandbox
# stands, makes /dev/null the standard input, and runs the command as a child: as pid 1 that would be deaf to most
# signals. The number of paths to look at, and these, come before the command. Should somebody have put a link where
# something was to be covered since the server looked, then something else was covered, and nothing runs.
_INIT = (
    "exec 3>&2 2>/dev/null; left=$1; shift; "
    'while [ "$left" -gt 0 ]; do '
    'if [ -L "$1" ] || ! {{ [ -d "$1" ] || [ -c "$1" ]; }}; then echo "a hidden path was replaced" >&3; exit 1; fi; '
    "shift; left=$((left - 1)); done; "
    'umask 022 && {limits} && echo >&0 && exec 0</dev/null && (exec "$@" 2>&3 3>&-); exit $?'
)
# bash and dash name the number of processes differently; each refuses the other's letter.
_LIMITS = (
    "ulimit -c 0 && ulimit -n {files} && {{ ulimit -u {processes} || ulimit -p {processes}; }} && ulimit -f {blocks}"
)
_LIMIT_BLOCK = 512
_ENV = "/usr/bin/env"
_RUN = ("/bin/sh", "-c", 'exec "$@"', "init")
_TEMPORARY = {"/tmp": "tmp", "/dev/shm": "shm"}  # noqa: S108  # inside, where they are the command's own
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
    search_path: tuple[str, ...]

    def environment(self, spec: CommandSpec) -> dict[str, str]:
        """The variables that pid 1 starts with: what every program expects. The plan's own come later (`words`)."""
        usual = {"PATH": ":".join(self.search_path), "HOME": view.HOME, "LANG": "C.UTF-8", "TERM": "dumb"}
        proxy = {} if spec.gateway is None else gateway.variables()
        return {**usual, **proxy}

    def arguments(
        self, *, bound: str, cwd: str, covers: Sequence["Cover"], environment: Mapping[str, str]
    ) -> list[str | bytes]:
        """All of a launcher's options for one command.

        `bound` is where in the cellar the workspace's view is.
        """
        variables = [word for name, value in environment.items() for word in ("--setenv", name, value)]
        start = ["--chdir", str(self.workspace / cwd)]
        masks = [word for cover in covers for word in cover.arguments]
        return [*_CONFINE, *self._trees(bound), *masks, *variables, *start, "--remount-ro", "/"]

    @property
    def mount_points(self) -> list[str]:
        """What the launcher itself makes in the temporary folders for trees to be bound there, deepest first."""
        found: dict[str, None] = {}
        for tree in (self.workspace, *(Path(tool) for tool in self.tools)):
            for place, name in _TEMPORARY.items():
                if tree.is_relative_to(place):
                    below = tree.relative_to(place)
                    found.update({f"{name}/{one}": None for one in (below, *below.parents[:-1])})
        return sorted(found, reverse=True)

    def hides(self, path: bytes) -> bool:
        return any(_is_below(path, hidden) for hidden in self.hidden)

    def _trees(self, bound: str) -> list[str]:
        """Later mounts lie over earlier ones: the workspace comes last, whatever holds it."""
        arguments = ["--uid", str(self.identity.uid), "--gid", str(self.identity.gid), *self.system]
        arguments += view.etc_arguments(f"{self.cellar}/etc")
        arguments += ["--proc", "/proc", "--dev", "/dev"]
        arguments += ["--bind", f"{self.cellar}/scratch/shm", "/dev/shm"]  # noqa: S108  # the command's own
        arguments += [*_READ_ONLY, "--bind", f"{self.cellar}/scratch/tmp", "/tmp"]  # noqa: S108  # the command's own
        for tool in self.tools:
            arguments += ["--ro-bind", tool, tool]
        return [*arguments, "--bind", f"{self.cellar}/{bound}", str(self.workspace)]

    def covers(self, merged: Path) -> list["Cover"]:
        """Covers each hidden path that is there now: a file by /dev/null, a directory by an empty one.

        Raises:
            SandboxRefusedError: a hidden path is, or is behind, a symbolic link, so that covering it would cover
                something else, or nothing.
        """
        covers: list[Cover] = []
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
                covers.append(
                    Cover(place=place, arguments=("--perms", "0555", "--tmpfs", place, "--remount-ro", place))
                )
            elif kind is not None:
                covers.append(Cover(place=place, arguments=("--ro-bind", "/dev/null", place)))
        return covers

    def to_look_at(self, covers: Sequence["Cover"]) -> list[bytes]:
        """The covered paths, with the directories on the way to them: none may be a link once the sandbox stands."""
        top = os.fsencode(self.workspace)
        found = dict.fromkeys(cover.place for cover in covers)
        for place in list(found):
            while (place := place.rpartition(b"/")[0]) != top:
                found[place] = None
        return list(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover:
    """One hidden path, as commands name it, and the launcher's options that cover it."""

    place: bytes
    arguments: tuple[str | bytes, ...]


def words(spec: CommandSpec) -> list[str]:
    """What pid 1 runs: the command, with the plan's variables given to it there and not to pid 1 itself.

    The dynamic loader would follow LD_PRELOAD and its like before pid 1 has set any limit, and so into code of the
    workspace that sets none. The program comes behind a second shell, since env takes a name with '=' for a variable.
    """
    if not spec.env:
        return list(spec.argv)
    return [_ENV, *(f"{name}={value}" for name, value in spec.env.items()), *_RUN, *spec.argv]


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
