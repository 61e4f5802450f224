"""Commands for sandboxes under test, and looks at what they did."""

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from executor.sandbox.sandbox import CommandResult, CommandSpec, Limits, SandboxSession

LIMITS = Limits(
    max_duration_seconds=20,
    upper_bytes=32 << 20,
    upper_inodes=1000,
    output_bytes=64 << 10,
    output_hard_bytes=24 << 20,
    max_processes=100,
    max_open_files=256,
    max_file_bytes=16 << 20,
)


def a_command(*argv: str, seconds: float = 15, **fields: object) -> CommandSpec:
    return CommandSpec(argv=argv, timeout_seconds=seconds, **fields)  # type: ignore[arg-type]  # tests name real fields


def shell(session: SandboxSession, script: str, seconds: float = 15, **fields: object) -> CommandResult:
    return session.run(a_command("/bin/sh", "-c", script, seconds=seconds, **fields))


def said(result: CommandResult) -> str:
    return (result.stdout.head + result.stderr.head).decode("utf-8", "replace")


def snapshot(root: Path) -> dict[bytes, object]:
    """Everything about a tree that a command could change."""
    found: dict[bytes, object] = {}
    for place in (root, *root.rglob("*")):
        status = place.lstat()
        content = place.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[os.fsencode(place)] = (status.st_mode, status.st_mtime_ns, status.st_uid, status.st_ino, content)
    return found


def alive(mark: str) -> list[str]:
    """Processes of this machine with a mark in their command line or environment, other than this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                text = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in text:
                found.append(f"{entry.name}: {text.decode('utf-8', 'replace')}")
    return found


def eventually(condition: Callable[[], bool], seconds: float = 1.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return condition()
