"""A stop inside a running program: the whole of it dies, and the step is undone."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.domain.cancel import Cancel
from executor.domain.control import ControlAction
from executor.domain.events import StepOutput
from executor.sandbox.bubblewrap import Bubblewrap
from executor.sandbox.sandbox import CommandSpec, Limits, SessionRequest
from gonogo.v1 import evidence_pb2, plan_pb2
from tests.unit.executor.control_house import ControlHouse
from tests.unit.executor.undo_house import write

pytestmark = pytest.mark.sandbox


@pytest.fixture
def house(tmp_path: Path) -> Iterator[ControlHouse]:
    """An executor on real files, with a sandbox."""
    house = ControlHouse(tmp_path, sandbox=Bubblewrap.on_this_machine())
    yield house
    house.close()


def waiting(marker: str) -> plan_pb2.Step:
    """A test run that passes at once in the dry run, and in the execution, where its file is there, takes an hour."""
    script = f"test -e one || exit 0; (setsid sleep {marker} & setsid setsid sleep {marker} &) ; echo begun; sleep 3600"
    return plan_pb2.Step(run_tests=plan_pb2.RunTests(argv=["sh", "-c", script], expect=plan_pb2.TEST_EXPECTATION_ANY))


def running(marker: str) -> int:
    """How many processes of the machine have a word among their arguments."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += marker.encode() in path.read_bytes().split(b"\0")
        except OSError:
            continue
    return found


def is_gone(marker: str) -> bool:
    """Whether such processes are gone: the kernel takes a moment to end a namespace that was killed."""
    deadline = time.monotonic() + 5
    while running(marker) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not running(marker)


@pytest.mark.parametrize("roll_back", [False, True])
def test_a_stop_kills_the_whole_tree_of_processes(house: ControlHouse, *, roll_back: bool) -> None:
    """Also those that went into sessions of their own; then the policy of the stop decides about the steps before."""
    marker = "3601.5" if roll_back else "3602.5"
    request = house.mission(write("two", "2\n"), waiting(marker))
    house.during = lambda: (house.site / "one").write_text("1\n")
    house.begin(request)
    house.until(lambda progress: any(isinstance(one.payload, StepOutput) for one in progress.events) or progress.ended)
    assert running(marker) >= 1
    began = time.monotonic()
    house.control(ControlAction.STOP, roll_back=roll_back, reason="enough")
    receipt = house.ended()
    assert time.monotonic() - began < 5
    assert is_gone(marker)
    assert receipt.abort_reason == "STOPPED"
    assert (house.site / "two").exists() is not roll_back
    expected = evidence_pb2.OUTCOME_ROLLED_BACK if roll_back else evidence_pb2.OUTCOME_PARTIAL
    assert receipt.execution_status == expected
    assert receipt.steps[1].success is False


def test_a_wish_that_came_before_lets_no_command_run(tmp_path: Path) -> None:
    """The sandbox ends it as soon as it is there, and says why."""
    cancel = Cancel()
    cancel.request()
    workspace = tmp_path / "site"
    workspace.mkdir()
    request = SessionRequest(workspace=workspace, workspace_id="site", limits=Limits())
    with Bubblewrap.on_this_machine().open(request) as session:
        result = session.run(CommandSpec(argv=("sleep", "3603.5"), timeout_seconds=20, cancel=cancel))
    assert (result.killed_reason, result.exit_code) == ("stopped", None)
    assert is_gone("3603.5")
