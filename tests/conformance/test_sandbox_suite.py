"""The conformance suite on each sandbox."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.domain.ladder import LadderLevel
from executor.sandbox.bubblewrap import Bubblewrap
from executor.sandbox.sandbox import Sandbox
from executor.sandbox.storage import Storage
from tests.conformance.sandbox_suite import SandboxSuite


class TestBubblewrap(SandboxSuite):
    @pytest.fixture
    def sandbox(self) -> Sandbox:
        return Bubblewrap.on_this_machine()

    def test_its_level(self, sandbox: Sandbox) -> None:
        """It is what the ladder calls L3."""
        assert sandbox.level is LadderLevel.L3


class TestBubblewrapOnDisk(SandboxSuite):
    """As on a kernel whose tmpfs can not hold an overlay's upper directory."""

    measured = True

    @pytest.fixture
    def sandbox(self, tmp_path: Path) -> Sandbox:
        return Bubblewrap.on_this_machine(scratch=tmp_path / "scratch", storage=Storage.DISK)

    @pytest.fixture(autouse=True)
    def _nothing_stays(self, tmp_path: Path) -> Iterator[None]:
        """Every closed session has removed its directory."""
        yield
        scratch = tmp_path / "scratch"
        assert not scratch.exists() or list(scratch.iterdir()) == []


class TestPrivateCopy(SandboxSuite):
    """Level L2, as where no overlay can be mounted: on a copy of the workspace."""

    measured = True
    copies_hidden = False

    @pytest.fixture
    def sandbox(self, tmp_path: Path) -> Sandbox:
        return Bubblewrap.on_this_machine(scratch=tmp_path / "scratch", storage=Storage.COPY)

    @pytest.fixture(autouse=True)
    def _nothing_stays(self, tmp_path: Path) -> Iterator[None]:
        """Every closed session has removed its copy."""
        yield
        scratch = tmp_path / "scratch"
        assert not scratch.exists() or list(scratch.iterdir()) == []

    def test_its_level(self, sandbox: Sandbox) -> None:
        """It is what the ladder calls L2."""
        assert sandbox.level is LadderLevel.L2
