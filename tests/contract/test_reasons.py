"""The reasons that the services give are those of the contract."""

import ast
import re
from pathlib import Path

import pytest

from executor.runner.repairs import STANDING
from gonogo.v1 import errors_pb2
from orchestrator.domain.errors import Reason

pytestmark = pytest.mark.quick

ROOT = Path(__file__).resolve().parents[2]
WORD = re.compile(r"[A-Z]{2,}(?:_[A-Z]+)*")
KNOWN = {name.removeprefix("REASON_") for name in errors_pb2.Reason.DESCRIPTOR.values_by_name}


def reasons_in(path: Path) -> set[str]:
    """Return the reasons that a file gives to the errors it makes."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    made = [call for call in calls if ast.unparse(call.func).endswith(("Error", "StepFault"))]
    words = [argument.value for call in made for argument in call.args[:2] if isinstance(argument, ast.Constant)]
    return {word for word in words if isinstance(word, str) and WORD.fullmatch(word)}


def test_the_executors_reasons_are_in_the_contract() -> None:
    """Whatever the executor refuses with stands in errors.proto."""
    used = {reason for path in (ROOT / "executor").rglob("*.py") for reason in reasons_in(path)}
    used |= {reason for reason, *_ in STANDING.values()}
    assert len(used) > 20
    assert used <= KNOWN, sorted(used - KNOWN)


def test_the_orchestrators_reasons_are_in_the_contract() -> None:
    """Whatever the orchestrator refuses with stands in errors.proto."""
    assert {reason.value for reason in Reason} <= KNOWN
