"""One installation for the tests of a module; each test uses files of its own in its workspace."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.installation import Installation, installed


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Both services, running on a fresh state directory with the workspace `site`."""
    with installed(tmp_path_factory.mktemp("house")) as installation:
        yield installation


@pytest.fixture
def site(house: Installation) -> Path:
    """The workspace's folder."""
    return house.workspaces["site"]
