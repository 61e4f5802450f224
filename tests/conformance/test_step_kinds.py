"""The suite of step kinds on each ladder level."""

from pathlib import Path
from typing import get_args

import pytest

from executor.domain import plan
from executor.domain.ladder import LadderLevel
from executor.sandbox.bubblewrap import Bubblewrap
from executor.sandbox.sandbox import Sandbox
from executor.sandbox.storage import Storage
from tests.conformance.step_kinds import KINDS, StepKindSuite


class TestL3(StepKindSuite):
    level = LadderLevel.L3

    @pytest.fixture
    def sandbox(self) -> Sandbox:
        return Bubblewrap.on_this_machine()


class TestL2(StepKindSuite):
    level = LadderLevel.L2

    @pytest.fixture
    def sandbox(self, tmp_path: Path) -> Sandbox:
        return Bubblewrap.on_this_machine(scratch=tmp_path / "scratch", storage=Storage.COPY)


class TestL1(StepKindSuite):
    level = LadderLevel.L1


class TestL0(StepKindSuite):
    level = LadderLevel.L0
    staged = False


def test_the_suite_knows_every_kind() -> None:
    """None is left out but those with tests of their own: they need an ended mission, or a far side."""
    outside = {plan.KINDS[kind] for kind in (*get_args(plan.Outside), plan.SearchBodies)}
    assert set(KINDS) == set(plan.KINDS.values()) - {"undo_step"} - outside
