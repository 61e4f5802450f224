"""How a live program is started: what it sees, who it is, what it may use.

NETWORK: in the sandbox, with the system's directories, the operator's tools and the workspace, all read-only, its own
/tmp, the system call filter, no capability, and a network that is the executor's proxy and nothing else.

HOST: the machine as the executor's user sees it. Where bubblewrap works the workspace is read-only to it all the same,
the executor's state, keys and files of secrets are covered, and it has a pid namespace, so that everything ends with
it. For an executor that is root the program is root too: it is kept from taking mounts away and from other processes'
memory, not from the machine.

A plan's variables are for its program alone: the launcher, which stands outside of the walls that it builds, starts
with none, so that it hears nothing of what loaders and libraries take for orders.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from executor.domain.plan import LiveAccess, RunLive
from executor.sandbox import gateway, launch, view
from executor.sandbox.arguments import Identity, Inside, init_script
from executor.sandbox.sandbox import Limits, ProgramLookup
from executor.sandbox.seccomp import SeccompFilter

OPEN_FILES: Final = 4096
DATA_BYTES: Final = 4 << 30
"""Of memory, for each process of a program; not of all together."""
TMP_BYTES: Final = 256 << 20
_SETPRIV: Final = "/usr/bin/setpriv"
_SHELL: Final = "/bin/sh"
# Says that the program is next, gives it an empty standard input, and runs it: as a child where the shell is the first
# process of a namespace, in its own place where it is not.
_BEGIN: Final = "umask 022 && echo >&0 && exec 0</dev/null && "
_AS_CHILD: Final = _BEGIN + '(exec "$@"); exit $?'
_IN_PLACE: Final = _BEGIN + 'exec "$@"'
_SANDBOX: Final = (
    *("--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"),
    *("--disable-userns", "--cap-drop", "ALL", "--new-session", "--die-with-parent", "--as-pid-1"),
    *("--hostname", "sandbox"),
)
_HOST: Final = ("--unshare-pid", "--die-with-parent", "--as-pid-1")
# What root would take covers away with, look into other processes with, or change the kernel with.
_NOT_FOR_ROOT: Final = (
    *("CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_BOOT", "CAP_MKNOD"),
    *("CAP_BPF", "CAP_PERFMON", "CAP_DAC_READ_SEARCH"),
)
_KEPT_VARIABLES: Final = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ")
_USUAL_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bwrap:
    """What confines live programs on this machine."""

    launcher: str
    seccomp: SeccompFilter
    covered: tuple[str, ...] = ()
    """What no program sees: the executor's state, and where changes are staged."""
    fixed: tuple[str, ...] = ()
    """What no program changes: the workspaces, its own and others."""
    tools: tuple[Path, ...] = ()
    """Further trees that programs in the sandbox may read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """Where a program runs. `hidden`: paths in the workspace that the operator's policy hides, found just now."""

    workspace: Path
    hidden: tuple[bytes, ...] = ()
    secret_files: tuple[str, ...] = ()

    def secrets_in(self, *trees: str) -> Sequence[str]:
        """Return the files of secrets that lie in some trees."""
        return [one for one in self.secret_files if any(Path(one).resolve().is_relative_to(tree) for tree in trees)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What is started: the launcher, and what comes behind its first options."""

    launcher: Sequence[str]
    argv: Sequence[str]
    env: Mapping[str, str]
    """The launcher's own variables; without one, the program's."""
    cwd: str
    descriptors: Sequence[int]
    limits: Mapping[str, int]
    waits: bool


def variables(action: RunLive) -> dict[str, str]:
    """Return the short list that every program gets, for where it runs; the plan's come on top."""
    if action.access is LiveAccess.NETWORK:
        usual = {"HOME": view.HOME, "LANG": "C.UTF-8", "TERM": "dumb"}
        return {**usual, **gateway.variables()}
    found = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    return {"PATH": _USUAL_PATH, "LANG": "C.UTF-8", **found, "TERM": "dumb"}


def in_sandbox(bwrap: Bwrap, ground: Ground, action: RunLive, env: Mapping[str, str], held: ExitStack) -> Launch:
    """Return how a program with nothing but the listed domains is started; `held` keeps what it reads open.

    Raises:
        SandboxRefusedError: a hidden path can not be covered.
    """
    identity = Identity.for_workspace(ground.workspace)
    tools = view.tool_trees(bwrap.tools, ground.workspace)
    inside = Inside(
        cellar="",
        workspace=ground.workspace,
        tools=tools,
        system=view.system_arguments(),
        hidden=ground.hidden,
        identity=identity,
        search_path=view.search_path(tools),
    )
    covers = inside.covers(ground.workspace)
    looked_at = inside.to_look_at(covers)
    options: list[str | bytes] = [*_SANDBOX, "--uid", str(identity.uid), "--gid", str(identity.gid)]
    accounts = {name: held.enter_context(passed) for name, passed in _accounts(identity)}
    options += [*inside.system, *view.machine_etc_arguments()]
    options += [word for name, fd in accounts.items() for word in ("--perms", "0644", "--file", str(fd), name)]
    options += ["--proc", "/proc", "--dev", "/dev", *_temporary("/dev/shm"), "--remount-ro", "/proc"]  # noqa: S108 - its own
    options += ["--remount-ro", "/dev", *_temporary("/tmp"), "--perms", "0700", "--dir", view.HOME]  # noqa: S108 - as above
    for tree in (*tools, str(ground.workspace)):
        options += ["--ro-bind", tree, tree]
    options += [word for cover in covers for word in cover.arguments]
    options += _covers((), ground.secrets_in(*tools, str(ground.workspace)))
    options += [*_variables({"PATH": ":".join(inside.search_path), **env})]
    options += ["--chdir", str(ground.workspace / action.cwd), "--remount-ro", "/"]
    given = held.enter_context(launch.passed(launch.packed(options)))
    seccomp = held.enter_context(launch.passed(bwrap.seccomp.program))
    # The command line is text; what is no UTF-8 in a path goes there and back as surrogates.
    seen = [os.fsdecode(path) for path in looked_at]
    first = [_SHELL, "-c", init_script(Limits(max_open_files=OPEN_FILES)), "init", str(len(seen)), *seen]
    return Launch(
        launcher=[*_as(identity), bwrap.launcher],
        argv=["--args", str(given), "--seccomp", str(seccomp), "--", *first, *action.argv],
        env={},
        cwd="/",
        descriptors=(*accounts.values(), given, seccomp),
        limits={"RLIMIT_CORE": 0, "RLIMIT_DATA": DATA_BYTES},
        waits=True,
    )


def on_host(bwrap: Bwrap | None, ground: Ground, action: RunLive, env: Mapping[str, str], held: ExitStack) -> Launch:
    """Return how a program on the machine itself is started; without bubblewrap it is an ordinary one."""
    cwd = str(ground.workspace / action.cwd)
    limits = {"RLIMIT_CORE": 0, "RLIMIT_NOFILE": OPEN_FILES, "RLIMIT_DATA": DATA_BYTES}
    if bwrap is None:
        argv = [_SHELL, "-c", _IN_PLACE, "begin", *action.argv]
        return Launch(launcher=(), argv=argv, env=env, cwd=cwd, descriptors=(), limits=limits, waits=False)
    options: list[str | bytes] = [*_HOST, "--dev-bind", "/", "/", "--proc", "/proc"]
    # The covers come last: a workspace that is bound over them would show the machine's own files again.
    options += [word for place in bwrap.fixed for word in ("--ro-bind-try", place, place)]
    options += ["--ro-bind", str(ground.workspace), str(ground.workspace)]
    options += [*_covers(bwrap.covered, ground.secret_files), "--chdir", cwd, *_variables(env)]
    if os.geteuid() == 0:
        options += [word for name in _NOT_FOR_ROOT for word in ("--cap-drop", name)]
    given = held.enter_context(launch.passed(launch.packed(options)))
    return Launch(
        launcher=[bwrap.launcher],
        argv=["--args", str(given), "--", _SHELL, "-c", _AS_CHILD, "begin", *action.argv],
        env={},
        cwd="/",
        descriptors=(given,),
        limits=limits,
        waits=False,
    )


def _variables(env: Mapping[str, str]) -> Iterator[str]:
    """Yield the launcher's options that give the program its variables, and none of the launcher's own."""
    yield "--clearenv"
    for name, value in env.items():
        yield from ("--setenv", name, value)


def _covers(places: Sequence[str], files: Sequence[str]) -> list[str]:
    """Cover directories by empty ones, files by nothing; what lies in a covered directory is gone already."""
    words: list[str] = []
    # The launcher finds no way through a link: where the file really is, is where it is covered.
    for place in (Path(one).resolve() for one in (*places, *files)):
        inside = any(place != Path(other) and place.is_relative_to(other) for other in places)
        if not inside and place.is_dir():
            words += ["--tmpfs", str(place)]
        elif not inside and place.is_file():
            words += ["--ro-bind", "/dev/null", str(place)]
    return words


def lookup_in_sandbox(bwrap: Bwrap, workspace: Path, action: RunLive) -> ProgramLookup:
    """Find what would be started in the sandbox."""
    tools = view.tool_trees(bwrap.tools, workspace)
    seen = view.View(workspace=str(workspace), merged=str(workspace), tools=tools, search_path=view.search_path(tools))
    return seen.lookup(action.argv[0], action.cwd)


def _as(identity: Identity) -> list[str]:
    """Under root a program in the sandbox is the workspace's owner, outside of its namespace too."""
    if os.geteuid() == identity.uid:
        return []
    return [_SETPRIV, f"--reuid={identity.uid}", f"--regid={identity.gid}", "--clear-groups", "--"]


def _temporary(place: str) -> list[str]:
    return ["--perms", "1777", "--size", str(TMP_BYTES), "--tmpfs", place]


def _accounts(identity: Identity) -> Iterator[tuple[str, AbstractContextManager[int]]]:
    for name, text in identity.accounts.items():
        yield f"/etc/{name}", launch.passed(text.encode("ascii"))
