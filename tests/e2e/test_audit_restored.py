"""A service's database that was put back to an older state, with the other service as the witness."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.adapters.sqlite_driver import sqlite3
from tests.e2e.installation import Installation

pytestmark = pytest.mark.long

PLAN = """\
objective: Write a file
workspace: site
steps:
  - write_file: {path: "notes.txt", content: "hello"}
"""


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Installation]:
    """A new installation, stopped."""
    (tmp_path / "site").mkdir()
    installation = Installation(tmp_path / "state", {"site": tmp_path / "site"})
    installation.json("init")
    yield installation
    installation.stop()


def proposed(installation: Installation) -> str:
    mission_id: str = installation.json("propose", "-f", "-", text=PLAN)["mission_id"]
    return mission_id


def audit(installation: Installation, service: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a service's own audit command on the host."""
    line = [sys.executable, "-P", "-m", service, "audit", *words, "--state", str(installation.state)]
    return subprocess.run(line, capture_output=True, text=True, check=False)


def test_an_orchestrator_s_log_that_was_put_back(installed: Installation, tmp_path: Path) -> None:
    """An older copy is good by itself; the executor, which saw more of it, keeps anything from being dry run."""
    folder = installed.state / "orchestrator"
    installed.start()
    installed.json("dry-run", proposed(installed))
    installed.stop()
    shutil.copytree(folder, tmp_path / "copy")
    installed.start()
    later = proposed(installed)
    installed.json("dry-run", later)
    installed.json("export", later, "--bundle", str(tmp_path / "bundle.json"))
    installed.stop()
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "copy", folder)

    assert audit(installed, "orchestrator", "check").returncode == 0, "the copy is whole by itself"
    installed.start()
    refused = installed.run("dry-run", proposed(installed), "-o", "json")
    assert (refused.code != 0, refused.error["reason"]) == (True, "AUDIT_FORKED")
    assert "audit forget" in refused.error["remedy"]
    installed.stop()
    found = audit(installed, "orchestrator", "check", "-o", "json")
    assert found.returncode != 0
    assert "of this orchestrator's log" in json.loads(found.stdout)["faults"][0]


def test_an_edited_event_keeps_the_orchestrator_from_starting(installed: Installation) -> None:
    """A cut log does not start, and `audit check` says where it is not what was signed."""
    installed.start()
    installed.json("dry-run", proposed(installed))
    installed.stop()
    connection = sqlite3.connect(installed.state / "orchestrator" / "events.db", isolation_level=None)
    connection.execute("DROP TRIGGER events_are_never_deleted")
    connection.execute("DELETE FROM events WHERE pos > 2")
    connection.close()
    with pytest.raises(AssertionError, match="AUDIT_FORKED"):
        installed.start()
    found = json.loads(audit(installed, "orchestrator", "check", "-o", "json").stdout)
    assert found["first_bad_event"] == 3
