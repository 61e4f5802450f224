"""Levels L3 and L2: commands on a view of the workspace that is theirs to write to, confined by bubblewrap.

Two nested layers. The outer one, a session (`session.py`, `holder.py`), is made once per plan: it holds the overlay,
whose upper directory lies on a tmpfs with a cap on bytes and inodes, and every process that the plan ever starts is in
its pid namespace. The inner one is made per command, by bwrap: fresh user, mount, pid, network, ipc and uts namespaces,
no capability, no_new_privs, a system call filter (`seccomp.py`), the system's directories read-only one by one, and the
overlay at the workspace's own path.

    nsenter (user, mount and pid namespace of the session) → bwrap → sh, pid 1 → the command

Pid 1 inside is a shell that waits for the command alone. When it ends, the kernel kills what the command left in the
background, and only then does bwrap, its parent, see it as ended: so when `run` returns nothing can still write.
To end a command the server kills that pid 1, with the same certainty, and the launchers end by themselves; each of
them has asked to die with its parent, too.

All that a command can write to (workspace, /tmp, /dev/shm) lies on the capped tmpfs, or, where this kernel's can not
hold an overlay's upper directory, in one measured directory on disk (`storage.py`); the rest is mounted read-only.

Where no overlay can be mounted at all, the level is L2: the session's commands work on a private copy of the workspace
in such a directory on disk (`copy_session.py`). All else is the same.

bwrap can mount overlays itself since 0.11. That is not used: its overlay ends with the command, while what one command
writes the next one, and the typed steps between them, must see; and a second way to do the same would have to be
tested, and kept from drifting apart, on both kinds of machines. The holder's overlay works with every version.
"""

import contextlib
import shutil
from pathlib import Path
from typing import Self

from executor.domain.ladder import LadderLevel
from executor.sandbox import view
from executor.sandbox.arguments import Identity, Inside
from executor.sandbox.cgroups import Cgroups
from executor.sandbox.copy_session import CopySession, copy_of
from executor.sandbox.holder import Holder, Launchers, choose_cellar
from executor.sandbox.requests import check_session
from executor.sandbox.sandbox import (
    Limits,
    SandboxUnavailableError,
    SessionRequest,
)
from executor.sandbox.seccomp import SeccompFilter, shipped_filter
from executor.sandbox.session import BubblewrapSession, SessionParts, TakenSlot
from executor.sandbox.spare import SpareHolder
from executor.sandbox.storage import DiskPlace, Scratch, Storage

SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class Bubblewrap:
    """The L3 sandbox, or with `Storage.COPY` the L2 sandbox.

    Args:
        launchers: The programs that sessions are built with.
        seccomp: The filter; bwrap loads it last, just before the command's pid 1.
        scratch: The operator's directory for sessions on disk; made when the first one is.
        storage: On what sessions lie; on disk only with a scratch directory. The self-test tells what works here.
        cgroups: What bounds a session as a whole, where the machine has it.
    """

    def __init__(
        self,
        *,
        launchers: Launchers,
        seccomp: SeccompFilter,
        scratch: Path | None = None,
        storage: Storage = Storage.TMPFS,
        cgroups: Cgroups | None = None,
    ) -> None:
        self._launchers = launchers
        self._seccomp = seccomp
        self._scratch = None if scratch is None else Scratch(root=scratch, launchers=launchers)
        self._storage = storage
        self._cgroups = cgroups
        self._spare: SpareHolder | None = None
        self._system = view.system_arguments()

    @classmethod
    def on_this_machine(
        cls,
        *,
        seccomp: SeccompFilter | None = None,
        scratch: Path | None = None,
        storage: Storage = Storage.TMPFS,
        cgroups: Cgroups | None = None,
    ) -> Self:
        """Finds the programs it needs in the system's own directories, and the filter shipped for this machine.

        Raises:
            SandboxUnavailableError: names the first that is missing.
        """
        return cls(
            launchers=find_launchers(),
            seccomp=seccomp or shipped_filter(),
            scratch=scratch,
            storage=storage,
            cgroups=cgroups,
        )

    @property
    def level(self) -> LadderLevel:
        return self._storage.level

    def open(self, request: SessionRequest) -> BubblewrapSession:
        check_session(request)
        inside = self._inside(request)
        with contextlib.ExitStack() as on_error:
            place = self._place(request)
            if place is not None:
                on_error.callback(place.close)
            copy = copy_of(request, place) if place is not None and self._storage is Storage.COPY else None
            holder = self._holder()
            on_error.callback(holder.close)
            holder.serve(
                workspace=request.workspace,
                cellar=inside.cellar,
                limits=request.limits,
                disk=None if place is None else place.cellar,
                copied=copy is not None,
            )
            parts = SessionParts(
                request=request,
                holder=holder,
                inside=inside,
                launchers=self._launchers,
                seccomp=self._seccomp,
                place=place,
                slot=self._slot(request.limits, on_error),
                closed=self._spare.refill if self._spare else None,
            )
            session = BubblewrapSession(parts) if copy is None else CopySession(parts, copy)
            on_error.pop_all()
        return session

    def keep_ready(self) -> None:
        """From now on has a holder started ahead of the next session, each time one has ended; `close` is then owed."""
        self._spare = self._spare or SpareHolder(self._launchers)
        self._spare.refill()

    def close(self) -> None:
        """Ends what `keep_ready` started."""
        if self._spare is not None:
            self._spare.close()

    def _holder(self) -> Holder:
        spare = None if self._spare is None else self._spare.take()
        return spare or Holder.for_any_session(self._launchers)

    def _slot(self, limits: Limits, on_error: contextlib.ExitStack) -> TakenSlot | None:
        if self._cgroups is None:
            return None
        slot = self._cgroups.take(limits)
        on_error.callback(self._cgroups.give_back, slot)
        return TakenSlot(slot=slot, cgroups=self._cgroups)

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
            search_path=view.search_path(tools),
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
            "UNSUPPORTED",
            f"there is no {name} in {SYSTEM_PATH}",
            f"install the package {package}; of the images, gonogo-executor-commands has it",
        )
    return found
