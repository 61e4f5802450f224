"""Sandboxes in a process of their own: one that is killed, or one of an ordinary user."""

import os
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from executor.sandbox.storage import Storage

REPOSITORY = Path(__file__).parents[3]
NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@contextmanager
def a_place_for_all() -> Iterator[Path]:
    """A folder that every user can reach, which pytest's own are not."""
    place = Path(f"/tmp/gonogo-test-{os.getpid()}")
    place.mkdir()
    place.chmod(0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place)


def an_ordinary_users(place: Path) -> None:
    place.mkdir(exist_ok=True)
    os.chown(place, NOBODY, NOBODY)


def scratch_of(workspace: Path) -> Path:
    return workspace.with_name("scratch")


def script(body: str, workspace: Path, storage: Storage = Storage.TMPFS) -> str:
    head = f"""
        import sys
        sys.path[:0] = [{str(REPOSITORY)!r}, {str(REPOSITORY / "protos")!r}]
        from pathlib import Path
        from executor.sandbox.bubblewrap import Bubblewrap
        from executor.sandbox.sandbox import CommandSpec, Limits, SessionRequest
        from executor.sandbox.storage import Storage
        scratch, storage = Path({str(scratch_of(workspace))!r}), Storage({storage.value!r})
        sandbox = Bubblewrap.on_this_machine(scratch=scratch, storage=storage)
        request = SessionRequest(workspace=Path({str(workspace)!r}), workspace_id="w", limits=Limits())
        def sh(text, **more):
            return CommandSpec(argv=("/bin/sh", "-c", text), timeout_seconds=30, **more)
    """
    return textwrap.dedent(head) + textwrap.dedent(body)


def as_nobody(body: str, workspace: Path, storage: Storage) -> str:
    """Runs a script as an ordinary user and returns what it printed."""
    command = (*AS_NOBODY, system_python(), "-B", "-c", script(body, workspace, storage))
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={})
    assert done.stderr == ""
    return done.stdout


def system_python() -> str:
    found = shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin")
    if (
        found is None
        or subprocess.run([found, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"], check=False).returncode
    ):
        pytest.skip("no Python 3.11 that other users can reach")
    return found
