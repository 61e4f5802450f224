"""What the fault suite needs, and the table that it ends with."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.faults.crew import NOBODY, Figures

REMEDY = "strace is missing or may not trace here: install it (Debian: sudo apt-get install strace), allow ptrace"
TABLE = pytest.StashKey[list[Figures]]()


def users() -> list[int]:
    """Whom the suite runs as: root meets other calls than an ordinary user does."""
    return [0, NOBODY] if os.getuid() == 0 else [os.getuid()]


def pytest_configure(config: pytest.Config) -> None:
    config.stash[TABLE] = []


@pytest.fixture(params=users(), ids=lambda user: "root" if user == 0 else "ordinary-user")
def user(request: pytest.FixtureRequest) -> int:
    """Somebody to run as."""
    return int(request.param)


@pytest.fixture
def table(request: pytest.FixtureRequest) -> list[Figures]:
    """The rows of the table at the end."""
    return request.config.stash[TABLE]


@pytest.fixture(scope="session")
def strace() -> None:
    """Skips, by name, where nothing can be traced; on CI that is a failure."""
    if not _can_trace():
        if os.environ.get("CI") == "true":
            pytest.fail(REMEDY)
        pytest.skip(REMEDY)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = terminalreporter.config.stash.get(TABLE, [])
    if not rows:
        return
    terminalreporter.section("faults: the workspace before recovery and after it")
    width = max(len(row.title) for row in rows)
    terminalreporter.line(f"{'':{width}} {'points':>7} {'cut':>6}   {'before':<32} {'after':<32} seconds")
    for row in rows:
        before, after = _counted(row.before), _counted(row.after)
        terminalreporter.line(
            f"{row.title:{width}} {row.points:>7} {row.fired:>6}   {before:<32} {after:<32} {row.seconds:7.1f}"
        )


def _counted(states: dict[str, int]) -> str:
    return " ".join(f"{name} {count}" for name, count in sorted(states.items())) or "-"


def _can_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    command = ["strace", "-qq", "-o", os.devnull, "-e", "trace=exit_group", sys.executable, "-S", "-c", ""]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
