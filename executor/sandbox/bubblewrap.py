"""Level L3: commands on a copy-on-write view of the workspace, confined by bubblewrap.

Two nested layers. The outer one, a session (`session.py`, `holder.py`), is made once per plan: it holds the overlay,
whose upper directory lies on a tmpfs with a cap on bytes and inodes, and every process that the plan ever starts is in
its pid namespace. The inner one is made per command, by bwrap: fresh user, mount, pid, network, ipc and uts namespaces,
no capability, no_new_privs, the system's directories read-only one by one, and the overlay at the workspace's own path.

    nsenter (user, mount and pid namespace of the session) → bwrap → sh, pid 1 → the command

Pid 1 inside is a shell that waits for the command alone. When it ends, the kernel kills what the command left in the
background, and only then does bwrap, its parent, see it as ended: so when `run` returns nothing can still write.
To end a command the server kills that pid 1, with the same certainty, and the launchers end by themselves; each of
them has asked to die with its parent, too.

All that a command can write to (workspace, /tmp, /dev/shm) lies on the capped tmpfs, or, where this kernel's can not
hold an overlay's upper directory, in one measured directory on disk (`storage.py`); the rest is mounted read-only.
"""

import contextlib
import shutil
from pathlib import Path
from typing import Self

from executor.domain.ladder import LadderLevel
from executor.sandbox import view
from executor.sandbox.arguments import Identity, Inside
from executor.sandbox.holder import Holder, Launchers, choose_cellar
from executor.sandbox.requests import check_session
from executor.sandbox.sandbox import (
    SandboxUnavailableError,
    SessionRequest,
)
from executor.sandbox.session import BubblewrapSession
from executor.sandbox.storage import DiskPlace, Scratch, Storage

SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class Bubblewrap:
    """The L3 sandbox.

    Args:
        launchers: The programs that sessions are built with.
        seccomp: A compiled filter program; bwrap loads it last, just before the command's pid 1.
        scratch: The operator's directory for sessions on disk; made when the first one is.
        storage: On what sessions lie; on disk only with a scratch directory. The self-test tells what works here.
    """

    def __init__(
        self,
        *,
        launchers: Launchers,
        seccomp: bytes | None = None,
        scratch: Path | None = None,
        storage: Storage = Storage.TMPFS,
    ) -> None:
        self._launchers = launchers
        self._seccomp = seccomp
        self._scratch = None if scratch is None else Scratch(root=scratch, launchers=launchers)
        self._storage = storage
        self._system = view.system_arguments()

    @classmethod
    def on_this_machine(
        cls, *, seccomp: bytes | None = None, scratch: Path | None = None, storage: Storage = Storage.TMPFS
    ) -> Self:
        """Finds the programs it needs in the system's own directories.

        Raises:
            SandboxUnavailableError: names the first that is missing.
        """
        return cls(launchers=find_launchers(), seccomp=seccomp, scratch=scratch, storage=storage)

    @property
    def level(self) -> LadderLevel:
        return LadderLevel.L3

    def open(self, request: SessionRequest) -> BubblewrapSession:
        check_session(request)
        inside = self._inside(request)
        with contextlib.ExitStack() as on_error:
            place = self._place(request)
            if place is not None:
                on_error.callback(place.close)
            holder = Holder.for_session(
                self._launchers,
                workspace=request.workspace,
                cellar=inside.cellar,
                limits=request.limits,
                disk=None if place is None else place.cellar,
            )
            on_error.callback(holder.close)
            session = BubblewrapSession(
                request=request,
                holder=holder,
                inside=inside,
                launchers=self._launchers,
                seccomp=self._seccomp,
                place=place,
            )
            on_error.pop_all()
        return session

    def clean_scratch(self) -> None:
        """Removes what sessions on disk of an executor that died left; only before this one opens any.

        Raises:
            SandboxUnavailableError: the scratch directory is not the executor's own.
        """
        if self._scratch is not None:
            self._scratch.clean()

    def _place(self, request: SessionRequest) -> DiskPlace | None:
        if self._storage is Storage.TMPFS:
            return None
        if self._scratch is None:
            raise SandboxUnavailableError(
                "UNSUPPORTED",
                "there is no scratch directory for sessions on disk",
                "name one in the executor's settings",
            )
        return self._scratch.new(request.limits)

    def _inside(self, request: SessionRequest) -> Inside:
        tools = view.tool_trees(request.tools, request.workspace)
        return Inside(
            cellar=choose_cellar((request.workspace, *map(Path, tools))),
            workspace=request.workspace,
            tools=tools,
            system=self._system,
            hidden=request.hidden,
            identity=Identity.for_workspace(request.workspace),
        )


def find_launchers() -> Launchers:
    """The programs that sessions are built with.

    Raises:
        SandboxUnavailableError: names the first that is missing.
    """
    return Launchers(
        bwrap=_program("bwrap", package="bubblewrap"),
        unshare=_program("unshare", package="util-linux"),
        nsenter=_program("nsenter", package="util-linux"),
        shell=_program("sh", package="dash"),
        remove=_program("rm", package="coreutils"),
        measure=_program("du", package="coreutils"),
    )


def _program(name: str, *, package: str) -> str:
    found = shutil.which(name, path=SYSTEM_PATH)
    if found is None:
        raise SandboxUnavailableError(
            "UNSUPPORTED", f"there is no {name} in {SYSTEM_PATH}", f"install the package {package}"
        )
    return found
