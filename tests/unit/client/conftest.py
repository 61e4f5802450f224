from collections.abc import Iterator
from pathlib import Path

import pytest

from client.initialise import initialise
from client.state import ADDRESS_VARIABLE, VARIABLE, StateDirectory
from tests.unit.client.orchestrator_simulator import Simulator, serving


@pytest.fixture(scope="session")
def shared_state(tmp_path_factory: pytest.TempPathFactory) -> StateDirectory:
    """A state directory that tests only read."""
    state = StateDirectory(root=tmp_path_factory.mktemp("state") / "state")
    initialise(state)
    return state


@pytest.fixture
def simulator(shared_state: StateDirectory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A simulated orchestrator that the commands of this test talk to."""
    with serving(shared_state) as (running, address):
        monkeypatch.setenv(VARIABLE, str(shared_state.root))
        monkeypatch.setenv(ADDRESS_VARIABLE, address)
        yield running


@pytest.fixture
def plan_file(tmp_path: Path) -> Path:
    """A plan file of one step."""
    path = tmp_path / "plan.yaml"
    path.write_text(
        "objective: Write a file\nworkspace: site\nsteps:\n  - write_file: {path: a.txt, content: 'new\\n'}\n"
    )
    return path
