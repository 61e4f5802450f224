"""Each part runs with what its own lock file installs, and what is generated is up to date."""

import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from orchestrator.domain.states import states_page

ROOT = Path(__file__).resolve().parents[2]
ENTRY_POINTS = {
    "executor": "executor.entrypoints.grpc_server",
    "orchestrator": "orchestrator.bootstrap",
    "client": "client.app",
}
# Runs with every third-party module refused that the part's lock file does not bring.
PROGRAM = """
import importlib, sys
refused = set(sys.argv[2].split(","))
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"{name} is not in the lock file", name=name)
sys.meta_path.insert(0, Refuse())
importlib.import_module(sys.argv[1])
"""


def locked(part: str) -> set[str]:
    text = (ROOT / "requirements" / f"{part}.lock").read_text()
    return {name.lower().replace("_", "-") for name in re.findall(r"(?m)^([A-Za-z0-9_.-]+)==", text)}


def foreign_modules(part: str) -> set[str]:
    """Return the top-level modules of this environment that the part's lock file does not bring."""
    own = locked(part) | {"gonogo"}
    installed = packages_distributions().items()
    return {module for module, names in installed if not {name.lower().replace("_", "-") for name in names} & own}


@pytest.mark.parametrize("part", ENTRY_POINTS)
def test_each_part_starts_with_its_own_lock_file_only(part: str) -> None:
    """A service's image needs nothing of another part's dependencies."""
    refused = foreign_modules(part)
    assert "hypothesis" in refused
    arguments = [sys.executable, "-c", PROGRAM, ENTRY_POINTS[part], ",".join(sorted(refused))]
    ran = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("part", [*ENTRY_POINTS, "protoc", "dev"])
def test_lock_files_are_hashed_and_name_no_index(part: str) -> None:
    """What is installed is what was resolved, from whatever index the reader uses."""
    text = (ROOT / "requirements" / f"{part}.lock").read_text()
    assert text.count("--hash=sha256:") >= len(re.findall(r"(?m)^\S+==", text))
    assert "://" not in text
    assert "index-url" not in text


@pytest.mark.parametrize("part", ENTRY_POINTS)
def test_each_lock_file_is_a_subset_of_the_development_one(part: str) -> None:
    """What is tested is what is installed."""
    pins = {
        line.split()[0] for line in (ROOT / "requirements" / f"{part}.lock").read_text().splitlines() if "==" in line
    }
    tested = {line.split()[0] for line in (ROOT / "requirements/dev.lock").read_text().splitlines() if "==" in line}
    assert pins <= tested


def test_the_state_diagram_in_the_docs_is_the_tables() -> None:
    """docs/mission-states.md is what the transition table says."""
    assert (ROOT / "docs/mission-states.md").read_text().strip() == states_page().strip()
