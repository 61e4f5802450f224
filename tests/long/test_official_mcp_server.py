"""Calling tools of a server that others wrote, in another language: the one that shows all of the protocol."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.domain.errors import ExecutorError
from executor.domain.plan import CallTool
from executor.domain.receipt import EffectState
from executor.domain.report import ToolEvidence
from executor.outside.tools import ToolCalls
from executor.runner.outside import Performed
from tests.fakes.loopback import free_port, wait_for
from tests.unit.executor.outside_house import OutsideHouse, outside_house

PROGRAM = (
    Path(__file__)
    .parents[2]
    .joinpath("build", "far-sides", "node_modules", "@modelcontextprotocol", "server-everything", "dist", "index.js")
)
NODE = shutil.which("node")
TOOLS = ("echo", "get-sum", "get-tiny-image", "get-structured-content", "get-env", "not-there")

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        not PROGRAM.exists() or NODE is None,
        reason="the npm package is not installed: make far-sides",
    ),
]


@pytest.fixture(params=["stdio", "streamableHttp"])
def house(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OutsideHouse]:
    """A house whose trust file names the server, reached in one of its ways."""
    names = ", ".join(f'"{name}"' for name in TOOLS)
    head = f'[[mcp_servers]]\nname = "everything"\nworkspaces = ["site"]\ntools = [{names}]\n'
    network = '[network]\nprivate_addresses = ["127.0.0.0/8"]\n'
    if request.param == "stdio":
        with outside_house(tmp_path, f'{network}{head}command = ["{NODE}", "{PROGRAM}", "stdio"]\n') as found:
            yield found
        return
    port = free_port()
    process = subprocess.Popen([str(NODE), str(PROGRAM), "streamableHttp"], env={**os.environ, "PORT": str(port)})
    try:
        wait_for(port)
        with outside_house(tmp_path, f'{network}{head}url = "http://127.0.0.1:{port}/mcp"\n') as found:
            yield found
    finally:
        process.kill()
        process.wait()


def _calls(house: OutsideHouse) -> ToolCalls:
    return ToolCalls(trust=lambda: house.trust.last().trust, secrets=house.secrets, confinement=house.confinement)


def _performed(house: OutsideHouse, tool: str, **arguments: object) -> Performed:
    action = CallTool(server="everything", tool=tool, arguments=json.dumps(arguments))
    calls = _calls(house)
    declared = calls.declare(action, house.setting(action))
    return calls.perform(action, declared, house.setting(action, execution_id="x-1"), "x-1-s1")


def test_tools_are_described_and_called(house: OutsideHouse) -> None:
    """A dry run says what the server says of a tool, and the call comes back with its answer."""
    action = CallTool(server="everything", tool="echo", arguments='{"message": "hello"}')
    evidence = _calls(house).declare(action, house.setting(action)).evidence
    assert isinstance(evidence, ToolEvidence)
    assert evidence.description.head
    assert "everything" in evidence.server_version
    performed = _performed(house, "echo", message="hello")
    assert performed.answer is not None
    assert (performed.state, performed.fault) == (EffectState.DONE, None)
    assert "hello" in performed.answer.head
    added = _performed(house, "get-sum", a=2, b=3)
    assert added.answer is not None
    assert "5" in added.answer.head


def test_what_is_no_text_is_counted(house: OutsideHouse) -> None:
    """A picture is counted; structured content is kept."""
    assert "1 image" in _performed(house, "get-tiny-image").summary
    weather = _performed(house, "get-structured-content", location="New York")
    assert weather.answer is not None
    assert (weather.state, "temperature" in weather.answer.head) == (EffectState.DONE, True)


def test_arguments_that_do_not_fit(house: OutsideHouse) -> None:
    """The server's own schema is what arguments are checked against, before any call."""
    for tool, arguments in (("get-sum", {"a": "two", "b": 3}), ("echo", {}), ("not-there", {})):
        with pytest.raises(ExecutorError) as caught:
            _performed(house, tool, **arguments)
        assert caught.value.fault.reason == "PLAN_INVALID"


@pytest.mark.parametrize("house", ["stdio"], indirect=True)
def test_a_program_gets_no_variables_of_the_executors(house: OutsideHouse) -> None:
    """A server that shows its variables shows those of its own and nothing else."""
    answer = _performed(house, "get-env").answer
    assert answer is not None
    assert set(json.loads(answer.head)) <= {"PATH", "HOME", "LANG"}
