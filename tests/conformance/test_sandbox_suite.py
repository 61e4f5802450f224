"""The conformance suite on each sandbox."""

import pytest

from executor.domain.ladder import LadderLevel
from executor.sandbox.bubblewrap import Bubblewrap
from executor.sandbox.sandbox import Sandbox
from tests.conformance.sandbox_suite import SandboxSuite


class TestBubblewrap(SandboxSuite):
    @pytest.fixture
    def sandbox(self) -> Sandbox:
        return Bubblewrap.on_this_machine()

    def test_its_level(self, sandbox: Sandbox) -> None:
        """It is what the ladder calls L3."""
        assert sandbox.level is LadderLevel.L3
