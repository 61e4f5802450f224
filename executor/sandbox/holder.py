"""The process that holds a session's namespaces open, and what it mounts there.

A session is a user, mount and pid namespace of its own. Something must live in it for as long as the session does:
a shell, as pid 1 of the pid namespace, that mounts what it is told and then waits for its standard input to end. The
server holds the other end of that pipe. However the server ends, the kernel closes the pipe, the shell ends, and with
its pid 1 every process of the namespace dies and every mount goes. No signal, and no parent's thread, has to be
watched for that.

A shell and mount(8) start in a fifth of an interpreter's time and are on every machine. Between its steps the shell
waits for a line; the server then writes the id maps and makes directories through `/proc`.
"""

import contextlib
import os
import select
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from executor.sandbox.sandbox import Limits, SandboxUnavailableError

# In its own mount namespace a session covers one directory that no command ever sees. The first that stands on this
# machine, and holds nothing of what the session is to show, is taken.
_CELLARS = ("/mnt", "/media", "/srv", "/boot", "/opt", "/home")
_START_SECONDS = 20
_STOP_SECONDS = 5
_EMPTY_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_MOUNT_FLAGS = {
    "nosuid": os.ST_NOSUID,
    "nodev": os.ST_NODEV,
    "noexec": os.ST_NOEXEC,
    "noatime": os.ST_NOATIME,
    "nodiratime": os.ST_NODIRATIME,
    "relatime": os.ST_RELATIME,
}
# The tmpfs's own needs: its root, the overlay's work directories, the made-up /etc and one command's folders.
_OWN_INODES = 64
_OWN_BYTES = 2 << 20

# $1: under root the options that make /dev read-only: a command's device nodes are the machine's own, bound from there,
# and `chmod 0 /dev/null` needs no capability of root's. /proc is made anew because bwrap looks itself up there by the
# numbers of this pid namespace. Up to here every session is alike, so that a holder can be kept ready (`spare.py`).
# Then come, a line each: the cellar; the tmpfs's options; the workspace; a directory on disk that stands in for the
# tmpfs, whose overlay is `volatile`, which spares a sync of each file that is copied up; and whether a copy of the
# workspace is in there already and no overlay is wanted. A path that holds a newline comes in octal.
# The overlay's lower layer is ".", so that no workspace's name, whatever characters it has, is ever part of a mount
# option. What does not depend on each other is mounted at the same time.
_SESSION_SCRIPT = """
IFS=' ' read -r pid rest < /proc/self/stat && echo "$pid" && read -r go || exit 1
mount -n -i -c -t proc -o nosuid,nodev,noexec proc /proc & proc=$!
[ -z "$1" ] || mount -n -i -c -o "$1" /dev & dev=$!
IFS= read -r form && IFS= read -r cellar && IFS= read -r options || exit 1
IFS= read -r workspace && IFS= read -r disk && IFS= read -r copied || exit 1
if [ "$form" = octal ]; then
    workspace=$(printf '%b.' "$workspace") && disk=$(printf '%b.' "$disk") || exit 1
    workspace=${workspace%.} disk=${disk%.}
fi
if [ -n "$disk" ]; then mount -n -i -c --bind "$disk" "$cellar"
else mount -n -i -c -t tmpfs -o "$options" tmpfs "$cellar"; fi || exit 1
echo cellar; read -r go || exit 1
wait $proc && wait $dev || exit 1
layers="lowerdir=.,upperdir=$cellar/upper,workdir=$cellar/work"
[ -n "$copied" ] || {
    cd "$workspace" && mount -n -i -c -t overlay \\
        -o "$layers,userxattr,nosuid,nodev${disk:+,volatile}" overlay "$cellar/merged"
} || exit 1
cd / && echo ready; read -r go
"""

# $1 cellar, $2 the layer's directory, $3 tmpfs options, none on disk: a second layer, on a tmpfs of its own, over what
# the session's commands see.
_LAYER_SCRIPT = """
echo "$$" && read -r go || exit 1
options=userxattr,nosuid,nodev,volatile
if [ -n "$3" ]; then
    mount -n -i -c -t tmpfs -o "$3" tmpfs "$1/$2" && options=userxattr,nosuid,nodev || exit 1
fi
echo cellar; read -r go || exit 1
cd "$1/merged" || exit 1
mount -n -i -c -t overlay -o "lowerdir=.,upperdir=$1/$2/upper,workdir=$1/$2/work,$options" \\
    overlay "$1/merged" || exit 1
cd / && echo ready; read -r go
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launchers:
    """The programs of the machine that a sandbox is built with, by absolute path."""

    bwrap: str
    unshare: str
    nsenter: str
    shell: str
    remove: str
    measure: str


def id_map(kind: str) -> str:
    """The map that gives a new user namespace every id that this one has; only root may write it."""
    lines = Path(f"/proc/self/{kind}").read_text(encoding="ascii").splitlines()
    return "".join(f"{inside} {inside} {count}\n" for inside, _, count in (line.split() for line in lines))


def choose_cellar(shown: tuple[Path, ...]) -> str:
    """The directory to cover: one that neither holds nor is one of the trees to be shown."""
    for cellar in _CELLARS:
        below = Path(cellar)
        if below.is_dir() and not below.is_symlink() and not any(tree.is_relative_to(below) for tree in shown):
            return cellar
    raise SandboxUnavailableError(
        "UNSUPPORTED",
        f"none of {', '.join(_CELLARS)} is free to be covered in the session's own mount namespace",
        "create an empty directory /mnt or /srv, or move the workspace or the tools out of them",
    )


def capacity(limits: Limits) -> tuple[int, int]:
    """How many bytes and inodes a session may take, with its own needs."""
    return limits.upper_bytes + _OWN_BYTES, limits.upper_inodes + _OWN_INODES


def tmpfs_options(limits: Limits) -> str:
    """Size and number of inodes are both capped: a million empty files have no size."""
    size, inodes = capacity(limits)
    return f"size={size},nr_inodes={inodes},mode=0711,nosuid,nodev"


def _read_only_again(place: str) -> str:
    """Options that make a mount read-only and keep its other flags: in a user namespace none may be dropped."""
    flags = os.statvfs(place).f_flag
    kept = [name for name, bit in _MOUNT_FLAGS.items() if flags & bit]
    return ",".join(("remount", "bind", "ro", *kept))


class Holder:
    """A running holder; `pid` is its shell's, as the server sees it."""

    def __init__(self, argv: list[str], *, what: str) -> None:
        self._what = what
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd="/",
            env=_EMPTY_ENVIRONMENT,
            start_new_session=True,
        )
        self._stdin = _given(self._process.stdin)
        self._stdout = _given(self._process.stdout)
        self._stderr = _given(self._process.stderr)
        self._cellar_fd = -1
        self.pid = 0

    @classmethod
    def for_any_session(cls, launchers: Launchers) -> Self:
        """Starts a holder that has its namespaces and waits to be told for which session."""
        root = os.geteuid() == 0
        argv = [launchers.unshare, "--user", "--mount", "--pid", "--fork", "--kill-child"]
        argv += [] if root else ["--map-root-user"]
        argv += [launchers.shell, "-c", _SESSION_SCRIPT, "holder", _read_only_again("/dev") if root else ""]
        holder = cls(argv, what="the session's namespaces and mounts")
        with holder._closed_on_error():
            holder._learn_pid()
            if root:
                holder._map_all_ids()
            holder._stdin.write(b"\n")
        return holder

    def serve(
        self, *, workspace: Path, cellar: str, limits: Limits, disk: Path | None = None, copied: bool = False
    ) -> None:
        """Mounts the overlay of the workspace at `merged` in the cellar; once, or the holder is closed.

        `disk` is a directory that takes the tmpfs's place. `copied`: a copy of the workspace is at `merged` in it
        already, and nothing is laid over it.
        """
        with self._closed_on_error():
            paths = [os.fsencode(workspace), os.fsencode(disk or "")]
            octal = any(b"\n" in path for path in paths)
            shown = [_octal(path) for path in paths] if octal else paths
            form, how = (b"octal" if octal else b"plain"), (b"copied" if copied else b"")
            lines = [form, cellar.encode("ascii"), tmpfs_options(limits).encode("ascii"), *shown, how]
            self._stdin.write(b"".join(line + b"\n" for line in lines))
            self._expect("cellar")
            self._open_cellar(cellar)
            if not copied:
                self._make_layer(".", like=workspace)
                for name in ("merged", "layer"):
                    os.mkdir(name, 0o711, dir_fd=self._cellar_fd)
            self._go_on_to("ready")

    @classmethod
    def for_layer(
        cls, launchers: Launchers, below: "Holder", *, cellar: str, layer: str, limits: Limits | None
    ) -> Self:
        """Starts a holder of one more mount namespace, where a throw-away layer covers `merged`.

        `layer` is the layer's directory in the cellar; it gets a tmpfs of its own where there are limits for that.
        """
        # Each program here takes the place of the one before it, in the server's own pid namespace.
        argv = [launchers.nsenter, "-t", str(below.pid), "-U", "-m", "--preserve-credentials"]
        argv += [launchers.unshare, "--mount", launchers.shell, "-c", _LAYER_SCRIPT]
        argv += ["layer", cellar, layer, "" if limits is None else tmpfs_options(limits)]
        holder = cls(argv, what="the throw-away layer")
        with holder._closed_on_error():
            holder._learn_pid()
            holder._go_on_to("cellar")
            holder._open_cellar(cellar)
            holder._make_layer(layer, like=below.path("merged"))
            holder._go_on_to("ready")
        return holder

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def path(self, name: str) -> Path:
        """A server-side path into the cellar.

        It starts at a descriptor, not at `/proc/PID/root`: should the holder die and its number be used again, what
        is written there still can not reach the real workspace.
        """
        if self._cellar_fd < 0:
            raise self._failure("it is closed")
        return Path(f"/proc/{os.getpid()}/fd/{self._cellar_fd}/{name}")

    def close(self) -> None:
        """Ends the holder and with it whatever lives or is mounted in its namespaces."""
        fd, self._cellar_fd = self._cellar_fd, -1
        if fd >= 0:
            os.close(fd)
        self._stdin.close()
        if not self._ends_within(_STOP_SECONDS):
            self._process.kill()
        self._process.wait()
        self._stdout.close()
        self._stderr.close()

    def _ends_within(self, seconds: float) -> bool:
        """Sleeps until the end, where `Popen.wait` with a time limit would look again and again."""
        if self._process.poll() is not None:
            return True
        try:
            ended = os.pidfd_open(self._process.pid)
        except ProcessLookupError:  # another thread has just seen its end
            return True
        try:
            return _readable(ended, seconds)
        finally:
            os.close(ended)

    def kill(self) -> None:
        """Ends everything at once, from any thread; `close` is still owed."""
        self._process.kill()

    @contextlib.contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.close()
            raise self._failure(str(error)) from error
        except BaseException:
            self.close()
            raise

    def _learn_pid(self) -> None:
        line = self._read_line()
        if not line.isdigit():
            raise self._failure(self._complaint())
        self.pid = int(line)

    def _map_all_ids(self) -> None:
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{self.pid}/{name}").write_text(id_map(name), encoding="ascii")

    def _go_on_to(self, expected: str) -> None:
        """Lets the shell go on, and waits until it says that it came to `expected`."""
        self._stdin.write(b"\n")
        self._expect(expected)

    def _expect(self, expected: str) -> None:
        if self._read_line() != expected:
            raise self._failure(self._complaint())

    def _read_line(self) -> str:
        """The shell's next answer: it never says more than one line before it is let on."""
        stdout = self._stdout.fileno()
        return os.read(stdout, 100).decode("ascii", "replace").strip() if _readable(stdout, _START_SECONDS) else ""

    def _complaint(self) -> str:
        """What the failed start said on standard error."""
        self._process.kill()
        stderr = self._stderr.fileno()
        said = os.read(stderr, 2000) if _readable(stderr, _STOP_SECONDS) else b""
        return said.decode("utf-8", "replace").strip() or "no answer"

    def _failure(self, said: str) -> SandboxUnavailableError:
        return SandboxUnavailableError(
            "UNSUPPORTED", f"{self._what} could not be made: {said}", "run gonogo doctor on the executor's host"
        )

    def _open_cellar(self, cellar: str) -> None:
        self._cellar_fd = os.open(f"/proc/{self.pid}/root{cellar}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def _make_layer(self, name: str, *, like: Path) -> None:
        """Makes an overlay's two directories. What `upper` is the merged root is too: it takes after the root below."""
        for part in ("upper", "work"):
            (self.path(name) / part).mkdir(mode=0o700)
        upper, below = self.path(name) / "upper", like.stat()
        # An ordinary user's namespace knows one group; a root of another group shows as the user's own.
        with contextlib.suppress(OSError):
            os.chown(upper, below.st_uid, below.st_gid)
        upper.chmod(stat.S_IMODE(below.st_mode))
        for xattr in os.listxattr(like):
            if xattr.startswith("user.") and not xattr.startswith("user.overlay."):
                os.setxattr(upper, xattr, os.getxattr(like, xattr))


def _readable(fd: int, seconds: float) -> bool:
    """Whether there is something to read, or an end, by then; of any number of descriptor, unlike select(2)."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _octal(path: bytes) -> bytes:
    """A path as printf's `%b` reads it, without a byte that a line could end with."""
    return b"".join(b"\\0%03o" % byte for byte in path)


def _given(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ValueError("the process was started without a pipe")
    return stream
