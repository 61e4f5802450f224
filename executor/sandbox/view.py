"""What a command sees of the machine, and whether a program is among it."""

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from executor.sandbox.sandbox import ProgramLookup
from gonogo.safe_text import safe_line

HOME = "/tmp/home"  # noqa: S108  # inside the sandbox, where /tmp is the command's own
_SYSTEM = "/usr"
# Where these are links into /usr, as on a merged system, they are the same links inside.
_BESIDE_USR = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# Of /etc only what programs need to start, and no more: no host names, keys, mounts or users. Small files are copied
# into a made-up /etc, because each mount costs every command more than a copy costs the session; folders are bound.
_ETC_FILES = ("ld.so.cache", "localtime", "mime.types", "protocols", "services", "ssl/openssl.cnf")
_ETC_FOLDERS = ("alternatives", "ssl/certs")
_ETC_FILE_BYTES = 256 << 10
_PATH = ("/usr/local/bin", "/usr/bin", "/bin")
_MOST_LINKS = 40  # as the kernel
_SYSTEM_TREES = (_SYSTEM, *_BESIDE_USR, *(f"/etc/{name}" for name in _ETC_FOLDERS))
_PROGRAM_FOLDERS = frozenset({"bin", "sbin", "shims"})


def system_arguments() -> tuple[str, ...]:
    """The launcher's arguments for the machine's own directories, each bound by itself and read-only; never `/`."""
    arguments = ["--ro-bind", _SYSTEM, _SYSTEM]
    for place in map(Path, _BESIDE_USR):
        if place.is_symlink():
            arguments += ["--symlink", str(place.readlink()), str(place)]
        elif place.is_dir():
            arguments += ["--ro-bind", str(place), str(place)]
    return tuple(arguments)


def etc_arguments(made_up: str) -> list[str]:
    arguments = ["--ro-bind", made_up, "/etc"]
    for name in _ETC_FOLDERS:
        arguments += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    return arguments


def machine_etc_arguments() -> list[str]:
    """As `etc_arguments`, from the machine's own files one by one; names of users and hosts are not among them."""
    places = [f"/etc/{name}" for name in (*_ETC_FILES, *_ETC_FOLDERS)]
    return [word for place in places for word in ("--ro-bind-try", place, place)]


def make_etc(etc: Path, accounts: Mapping[str, str]) -> None:
    """Fills a session's own /etc, the places of the folders to bind included."""
    for name in ("", "ssl", *_ETC_FOLDERS):
        etc.joinpath(name).mkdir()
        etc.joinpath(name).chmod(0o755)
    for name, text in accounts.items():
        _write(etc / name, text.encode("ascii"))
    for name in _ETC_FILES:
        _copy(Path("/etc", name), etc / name)


def _copy(source: Path, target: Path) -> None:
    """Copies a small file, a link as a link; what is not there, or grew unlikely large, is left out."""
    if source.is_symlink():
        target.symlink_to(source.readlink())
    elif source.is_file() and source.stat().st_size <= _ETC_FILE_BYTES:
        _write(target, source.read_bytes())


def _write(target: Path, content: bytes) -> None:
    target.write_bytes(content)
    target.chmod(0o644)


def search_path(tools: Iterable[str]) -> tuple[str, ...]:
    """The value of PATH: the tools' programs come first."""
    folders = (f"{tool}/bin" if Path(tool, "bin").is_dir() else tool for tool in tools)
    return (*folders, *_PATH)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """Where following a path came to: `server` is where the server finds it, None in a directory that only leads on."""

    inside: str
    server: str | None


class HiddenPathError(Exception):
    """Following a path inside led to something that commands do not see; the argument is that something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What one session's commands see: system directories, the operator's tools, the workspace.

    All paths are absolute and tidy (one slash between names, none at the end). `search_path` is the value of PATH.
    """

    workspace: str
    merged: str
    tools: tuple[str, ...]
    search_path: tuple[str, ...]

    def lookup(self, argv0: str, cwd: str) -> ProgramLookup:
        """Finds what exec would start, following links and the `#!` line as inside."""
        hidden: str | None = None
        for candidate in self._candidates(argv0, cwd):
            try:
                step = self.follow(candidate)
                if step is None or not _is_program(step.server):
                    continue
                self._follow_interpreter(step)
            except HiddenPathError as error:
                hidden = hidden or str(error)
                continue
            return ProgramLookup(found=True, inside=step.inside, detail="", remedy="")
        return _not_found(argv0, hidden or (None if "/" in argv0 else shutil.which(argv0)))

    def is_directory(self, cwd: str) -> bool:
        """Whether a command can start in this directory of the workspace."""
        try:
            step = self.follow(f"{self.workspace}/{cwd}")
        except HiddenPathError:
            return False
        return step is not None and (step.server is None or Path(step.server).is_dir())

    def follow(self, path: str) -> _Step | None:
        """Follows a path as inside, link by link; None where nothing is there.

        Raises:
            HiddenPathError: it leads to what commands do not see.
        """
        todo = _parts(path)
        at, links = "/", 0
        while todo:
            name = todo.pop()
            if name == "..":
                at = at.rpartition("/")[0] or "/"
                continue
            step = self._locate(f"{at.rstrip('/')}/{name}", todo)
            target = None if step.server is None else _look(step.server)
            if target is _ABSENT:
                return None
            if isinstance(target, str):
                links += 1
                if links > _MOST_LINKS:
                    return None
                at = "/" if target.startswith("/") else at
                todo += _parts(target)
            else:
                at = step.inside
        return self._locate(at, [])

    def _locate(self, inside: str, rest: list[str]) -> _Step:
        # By the text alone: paths have many names, and each asks this of every tree.
        if _is_below(inside, self.workspace):
            return _Step(inside=inside, server=self.merged + inside[len(self.workspace) :])
        trees = (*_SYSTEM_TREES, *self.tools)
        if any(_is_below(inside, tree) for tree in trees):
            return _Step(inside=inside, server=inside)
        if any(_is_below(tree, inside) for tree in (self.workspace, *trees)):
            return _Step(inside=inside, server=None)
        raise HiddenPathError(str(PurePosixPath(inside, *reversed(rest))))

    def _candidates(self, argv0: str, cwd: str) -> Iterator[str]:
        if "/" in argv0:
            yield str(PurePosixPath(self.workspace, cwd, argv0))
        else:
            yield from (f"{folder}/{argv0}" for folder in self.search_path)

    def _follow_interpreter(self, step: _Step) -> None:
        """A script is only as visible as what its first line names.

        Raises:
            HiddenPathError: the interpreter is hidden.
        """
        interpreter = _interpreter(step.server)
        if interpreter and self.follow(interpreter) is None:
            raise HiddenPathError(interpreter)


_ABSENT = object()


def _look(server: str) -> object:
    """A link's target, or None where it is no link, or `_ABSENT`."""
    try:
        if stat.S_ISLNK(os.lstat(server).st_mode):
            return os.readlink(server)  # noqa: PTH115  # a Path would tidy the text up
    except (OSError, ValueError):
        return _ABSENT
    return None


def _is_below(path: str, folder: str) -> bool:
    """Whether a path is a folder, or in it; both absolute and tidy."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _parts(path: str) -> list[str]:
    """A path's names, last first."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def _is_program(server: str | None) -> bool:
    if server is None:
        return False
    try:
        mode = os.lstat(server).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & 0o111)


def _interpreter(server: str | None) -> str | None:
    """The absolute path after `#!`, if the program is a script and can be read."""
    if server is None:
        return None
    try:
        fd = os.open(server, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        start = os.read(fd, 256)
    finally:
        os.close(fd)
    words = start.split(b"\n", 1)[0][2:].split() if start.startswith(b"#!") else []
    return os.fsdecode(words[0]) if words and words[0].startswith(b"/") else None


def _not_found(argv0: str, hidden: str | None) -> ProgramLookup:
    shown = safe_line(argv0)
    if hidden is None:
        return ProgramLookup(
            found=False,
            inside=None,
            detail=f"there is no program {shown!r} inside the sandbox",
            remedy="install it in the system's directories, or name a program that is there",
        )
    folders = dict.fromkeys((_folder_to_add(hidden), _folder_to_add(os.path.realpath(hidden))))
    return ProgramLookup(
        found=False,
        inside=None,
        detail=f"{shown!r} needs {safe_line(hidden)}, which commands in the sandbox can not see",
        remedy=f"add {' and '.join(map(safe_line, folders))} to the executor's `tools`",
    )


def _folder_to_add(hidden: str) -> str:
    """A program in `X/bin` needs X: its libraries are beside its folder."""
    folder = Path(hidden).parent
    return str(folder.parent if folder.name in _PROGRAM_FOLDERS else folder)


def tool_trees(tools: Iterable[Path], workspace: Path) -> tuple[str, ...]:
    """The tools that must be bound: what is under /usr or in the workspace is there already."""
    there = (_SYSTEM, workspace)
    return tuple(str(tool) for tool in tools if not any(tool.is_relative_to(tree) for tree in there))
