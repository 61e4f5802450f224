"""What a session or a command may ask for. Whatever does not fit is refused before anything starts."""

import os
import re
from pathlib import Path

from executor.sandbox.sandbox import CommandSpec, SandboxRefusedError, SessionRequest
from gonogo.safe_text import safe_line, shown_path

_OCTAL = re.compile(rb"\\([0-7]{3})")
# A workspace here would hide, or be, what commands need of the machine.
_SYSTEM_PLACES = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev", "/boot", "/run")
_MOUNT_TABLE = Path("/proc/self/mountinfo")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_session(request: SessionRequest) -> None:
    """Refuses a workspace, tools or hidden paths that can not be shown as asked.

    Raises:
        SandboxRefusedError: says which, and what to do.
    """
    _check_workspace(request.workspace)
    for tool in request.tools:
        _check_tool(tool)
    for hidden in request.hidden:
        check_relative(hidden, what="hidden path")


def check_command(spec: CommandSpec) -> None:
    """Refuses a command that could not mean inside what it says.

    Raises:
        SandboxRefusedError: an empty or NUL-holding argument, a bad variable, a path that leads out, no time at all.
    """
    words = (*spec.argv, *spec.env.keys(), *spec.env.values())
    if any("\0" in word for word in words):
        raise _refused("an argument or variable holds a NUL byte", "leave the NUL byte out")
    if not spec.argv or not spec.argv[0]:
        raise _refused("the command is empty", "name a program")
    if spec.argv[0].startswith("-"):
        raise _refused(f"the program {safe_line(spec.argv[0])!r} begins with '-'", "name it by its path, as in ./-name")
    for name in spec.env:
        if not _VARIABLE.fullmatch(name):
            raise _refused(f"{safe_line(name)!r} is no name of a variable", "use letters, digits and '_'")
    if spec.timeout_seconds <= 0:
        raise _refused("no time is left for the command", "raise max_duration_seconds")
    check_relative(os.fsencode(spec.cwd), what="working directory")
    for path in spec.collect:
        check_relative(path, what="file to collect")


def check_relative(path: bytes, *, what: str) -> None:
    """Refuses a path that is absolute, climbs or holds a NUL; empty is the workspace itself.

    Raises:
        SandboxRefusedError: says which path.
    """
    if path.startswith(b"/") or b"\0" in path or b".." in path.split(b"/"):
        raise SandboxRefusedError(
            "PATH_INVALID",
            f"the {what} {shown_path(path)!r} is not a path inside the workspace",
            "give it relative to the workspace, without '..'",
        )


def _check_workspace(workspace: Path) -> None:
    if not workspace.is_absolute() or not workspace.is_dir() or os.path.realpath(workspace) != str(workspace):
        raise _refused(
            f"the workspace {safe_line(str(workspace))!r} is not the real, absolute path of a directory",
            "give the path that `realpath` prints",
        )
    if workspace == Path("/") or any(workspace.is_relative_to(place) for place in _SYSTEM_PLACES):
        raise _refused(
            f"the workspace {safe_line(str(workspace))!r} is one of the system's own directories",
            "keep workspaces elsewhere, such as /home or /srv",
        )
    nested = _mounts_below(workspace)
    if nested:
        # An overlay's lower layer ends at mount points: a command would see empty directories there.
        raise _refused(
            f"another filesystem is mounted inside the workspace, at {safe_line(nested[0])!r}",
            "unmount it, or make the mounted folder a workspace of its own",
        )


def _mounts_below(workspace: Path) -> list[str]:
    found = []
    for line in _MOUNT_TABLE.read_bytes().splitlines():
        escaped = line.split(b" ", 5)[4]
        point = os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), escaped))
        if point != str(workspace) and Path(point).is_relative_to(workspace):
            found.append(point)
    return found


def _check_tool(tool: Path) -> None:
    if not tool.is_absolute() or tool == Path("/") or not tool.is_dir() or ".." in tool.parts:
        raise SandboxRefusedError(
            "UNSUPPORTED",
            f"the tools folder {safe_line(str(tool))!r} is not an existing absolute directory below /",
            "correct `tools` in the executor's settings",
        )


def _refused(detail: str, remedy: str) -> SandboxRefusedError:
    return SandboxRefusedError("PLAN_INVALID", detail, remedy)
