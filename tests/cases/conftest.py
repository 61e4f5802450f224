"""Every test here is about a listed case, and runs on an executor of its own in a folder of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from executor import machines
from executor.sandbox import self_test
from executor.sandbox.self_test import Probe
from tests.cases.case_house import CaseHouse, Step, case_house


@pytest.fixture(autouse=True)
def case_ids(request: pytest.FixtureRequest) -> str:
    """The ids of the cases that the test holds, from its `case` mark."""
    return str(getattr(request, "param", ""))


@pytest.fixture(autouse=True, scope="session")
def one_probe() -> Iterator[None]:
    """Let all executors of this process share one self-test, which is real and takes a third of a second."""
    found: dict[str, Probe] = {}
    real = self_test.probe

    def remembered(*places: Path, **more: object) -> Probe:
        asked = str(more.get("highest"))
        if asked not in found:
            found[asked] = real(*places, **more)  # type: ignore[arg-type]  # handed on as they came
        return found[asked]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machines, "probe", remembered)
        yield


@pytest.fixture
def house(tmp_path: Path) -> Iterator[CaseHouse]:
    """An executor with an empty workspace."""
    with case_house(tmp_path) as opened:
        yield opened


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name a step by its kind, a command by what it runs."""
    if not isinstance(val, Step):
        return None
    kind = val.WhichOneof("action") or "none"
    action = getattr(val, kind)
    return " ".join(action.argv[-1:]) if kind == "run_command" else f"{kind} {action.path}"
