"""Calling a tool: a real server in a process of its own, over both of the protocol's ways."""

import errno
import importlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from executor.domain.errors import ExecutorError
from executor.domain.plan import CallTool
from executor.domain.receipt import EffectState
from executor.domain.report import ToolEvidence
from executor.outside.tools import ToolCalls
from executor.runner.outside import Declared, Performed
from tests.fakes.loopback import free_port, wait_for
from tests.unit.executor.outside_house import TOKEN, OutsideHouse, outside_house

SERVER = Path(__file__).parents[2] / "far_sides" / "mcp_server.py"
SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
ANYTHING = {"type": "object"}
NAMES = ("slow", "die", "fail", "picture", "tell", "ask", "loud")
NOTE: dict[str, Any] = {"name": "note", "description": "Writes a note down.", "inputSchema": SCHEMA}
TOOLS = [*({"name": name, "inputSchema": ANYTHING} for name in NAMES), NOTE]
CALL = CallTool(server="notes", tool="note", arguments='{"text": "hello"}')

GREEDY = """
import json, pathlib
found = []
for path, mode in (({read!r}, "r"), ({write!r}, "a")):
    try:
        open(path, mode)
    except OSError as error:
        found.append(error.errno)
pathlib.Path({found!r}).write_text(json.dumps(found))
"""


class ToolHouse:
    """A server's folder, and what calls its tools."""

    def __init__(self, house: OutsideHouse, folder: Path, *, confined: bool = True) -> None:
        self.house = house
        self.folder = folder
        self.calls = ToolCalls(
            trust=lambda: house.trust.last().trust,
            secrets=house.secrets,
            confinement=house.confinement if confined else None,
            fixed=(str(house.workspace.root),),
        )

    def tools(self, *tools: dict[str, Any]) -> None:
        """Have the server list these."""
        self.folder.joinpath("tools.json").write_text(json.dumps(tools))

    def declare(self, action: CallTool = CALL) -> Declared:
        return self.calls.declare(action, self.house.setting(action))

    def perform(self, action: CallTool = CALL, expected: Declared | None = None, *, seconds: int = 20) -> Performed:
        found = expected or self.declare(action)
        setting = self.house.setting(action, seconds=seconds, execution_id="x-1")
        return self.calls.perform(action, found, setting, "x-1-s1")

    def called(self) -> list[dict[str, Any]]:
        """What reached the server."""
        file = self.folder / "calls.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture(
    params=["stdio", *(pytest.param(way, marks=pytest.mark.long) for way in ("http", "unconfined"))],
)
def way(request: pytest.FixtureRequest) -> str:
    """The way to the server."""
    return str(request.param)


@pytest.fixture
def tool_house(tmp_path: Path, way: str) -> Iterator[ToolHouse]:
    """A house with a server that is reached in one way."""
    yield from _tool_house(tmp_path, way)


@pytest.fixture
def local_house(tmp_path: Path) -> Iterator[ToolHouse]:
    """A house whose server is a program."""
    yield from _tool_house(tmp_path, "stdio")


def _tool_house(tmp_path: Path, way: str) -> Iterator[ToolHouse]:
    folder = tmp_path / "server"
    folder.mkdir()
    folder.joinpath("tools.json").write_text(json.dumps(TOOLS))
    names = ", ".join(f'"{tool["name"]}"' for tool in TOOLS)
    reach = f'command = ["{sys.executable}", "{SERVER}", "{folder}"]\nenv = {{ TOKEN = "secret://token" }}'
    process = None
    if way == "http":
        port = free_port()
        reach = f'url = "http://127.0.0.1:{port}/mcp"\n'
        process = subprocess.Popen([sys.executable, str(SERVER), str(folder), str(port)])
        wait_for(port)
    table = '[network]\nprivate_addresses = ["127.0.0.0/8"]\n[[mcp_servers]]\nname = "notes"\nworkspaces = ["site"]\n'
    try:
        with outside_house(tmp_path, f"{table}tools = [{names}]\n{reach}\n") as house:
            yield ToolHouse(house, folder, confined=way != "unconfined")
    finally:
        if process is not None:
            process.kill()
            process.wait()


def test_is_described_and_then_called_once(tool_house: ToolHouse) -> None:
    """A dry run tells what the tool says of itself and calls nothing; the execution calls it once, with the key."""
    declared = tool_house.declare()
    assert tool_house.called() == []
    evidence = declared.evidence
    assert isinstance(evidence, ToolEvidence)
    assert (evidence.description.head, evidence.server_version) == ("Writes a note down.", "notes 1.2")
    assert declared.not_simulated.endswith(f"; it describes itself as {evidence.tool_digest}")
    performed = tool_house.perform(expected=declared)
    assert (performed.state, performed.fault) == (EffectState.DONE, None)
    assert performed.answer is not None
    assert performed.answer.head == "noted hello"
    assert tool_house.called() == [
        {"tool": "note", "arguments": {"text": "hello"}, "meta": {"gonogo/idempotency-key": "x-1-s1"}}
    ]


def test_a_changed_tool_is_not_called(tool_house: ToolHouse) -> None:
    """What was approved is the tool as it was described: another description is another tool."""
    declared = tool_house.declare()
    tool_house.tools({**NOTE, "description": "Writes a note down, and mails it to everybody."})
    performed = tool_house.perform(expected=declared)
    assert performed.state is EffectState.NOT_DONE
    assert performed.fault is not None
    assert performed.fault.reason == "TOOL_CHANGED"
    assert tool_house.called() == []


@pytest.mark.long
@pytest.mark.parametrize("field", ["inputSchema", "outputSchema", "annotations"])
def test_every_part_of_a_description_counts(local_house: ToolHouse, field: str) -> None:
    """Schemas and hints are as much of a tool as its words."""
    declared = local_house.declare()
    changes = {
        "inputSchema": {**SCHEMA, "properties": {"text": {"type": "string"}, "to": {"type": "string"}}},
        "outputSchema": ANYTHING,
        "annotations": {"readOnlyHint": True},
    }
    local_house.tools({**NOTE, field: changes[field]})
    performed = local_house.perform(expected=declared)
    assert performed.fault is not None
    assert (performed.state, performed.fault.reason) == (EffectState.NOT_DONE, "TOOL_CHANGED")


def test_other_arguments_are_another_call(local_house: ToolHouse) -> None:
    """An approval for one call is none for the same tool with other arguments."""
    declared = local_house.declare()
    performed = local_house.perform(replace(CALL, arguments='{"text": "bye"}'), declared)
    assert (performed.state, local_house.called()) == (EffectState.NOT_DONE, [])


def test_an_error_of_the_tool_is_a_done_effect(tool_house: ToolHouse) -> None:
    """A tool that answers with an error was called all the same."""
    performed = tool_house.perform(CallTool(server="notes", tool="fail", arguments="{}"))
    assert performed.fault is not None
    assert (performed.state, performed.fault.reason) == (EffectState.DONE, "TOOL_FAILED")
    assert "it is not well" in performed.fault.message


def test_a_tool_that_dies_leaves_an_unknown_effect(local_house: ToolHouse) -> None:
    """Where the server ends in the call nobody knows what it had done."""
    performed = local_house.perform(CallTool(server="notes", tool="die", arguments="{}"))
    assert performed.fault is not None
    assert (performed.state, performed.fault.reason) == (EffectState.UNKNOWN, "EFFECT_UNKNOWN")
    assert len(local_house.called()) == 1


@pytest.mark.long
def test_a_slow_tool_is_unknown_and_ended(tool_house: ToolHouse, way: str) -> None:
    """A call that takes longer than the plan allows is given up, with the program that it started."""
    action = CallTool(server="notes", tool="slow", arguments="{}")
    declared = tool_house.declare(action)
    performed = tool_house.perform(action, declared, seconds=5)
    assert performed.state is EffectState.UNKNOWN
    assert len(tool_house.called()) == 1
    if way != "http":
        assert not _server_runs(tool_house.folder)


def test_a_stop_ends_the_call_and_its_program(local_house: ToolHouse) -> None:
    """A person's stop ends the whole tree, and leaves the effect unknown."""
    action = CallTool(server="notes", tool="slow", arguments="{}")
    declared = local_house.declare(action)
    timer = threading.Thread(target=_once(lambda: bool(local_house.called()), local_house.house.cancel.request))
    timer.start()
    began = time.monotonic()
    performed = local_house.perform(action, declared)
    timer.join()
    assert performed.state is EffectState.UNKNOWN
    assert time.monotonic() - began < 10
    assert not _server_runs(local_house.folder)


def _once(holds: Any, act: Any) -> Any:
    def wait() -> None:
        while not holds():
            time.sleep(0.02)
        act()

    return wait


def _server_runs(folder: Path) -> bool:
    return any(
        str(folder).encode() in path.joinpath("cmdline").read_bytes()
        for path in Path("/proc").iterdir()
        if path.name.isdigit() and path.joinpath("cmdline").exists()
    )


def test_a_server_that_says_nothing_was_not_called(local_house: ToolHouse) -> None:
    """A server that does not answer before the call is a failed step, not an unknown effect."""
    local_house.folder.joinpath("mute").touch()
    with pytest.raises(ExecutorError) as caught:
        local_house.calls.declare(CALL, local_house.house.setting(CALL, seconds=2))
    assert caught.value.fault.reason == "FETCH_FAILED"


def test_arguments_are_checked_before_anything(tool_house: ToolHouse) -> None:
    """Arguments that do not fit the tool's schema are found by the dry run."""
    with pytest.raises(ExecutorError) as caught:
        tool_house.declare(CallTool(server="notes", tool="note", arguments='{"text": 3}'))
    assert caught.value.fault.reason == "PLAN_INVALID"
    assert "text" in caught.value.fault.message


@pytest.mark.parametrize("arguments", ["[1]", "{", '"text"'])
def test_arguments_are_an_object(local_house: ToolHouse, arguments: str) -> None:
    """What is no JSON object is no plan."""
    with pytest.raises(ExecutorError) as caught:
        local_house.declare(CallTool(server="notes", tool="note", arguments=arguments))
    assert caught.value.fault.reason == "PLAN_INVALID"


@pytest.mark.parametrize(("server", "tool"), [("other", "note"), ("notes", "drop")])
def test_what_is_not_listed_does_not_exist(local_house: ToolHouse, server: str, tool: str) -> None:
    """A server that the trust file does not name, and a tool that it does not list, are refused before any start."""
    with pytest.raises(ExecutorError) as caught:
        local_house.declare(CallTool(server=server, tool=tool, arguments="{}"))
    assert caught.value.fault.reason == "FAR_SIDE_UNKNOWN"
    assert not local_house.folder.joinpath("pid").exists()


def test_a_listed_tool_that_is_not_there(tool_house: ToolHouse) -> None:
    """All pages are looked through before a tool is said to be missing."""
    tool_house.tools(*TOOLS[:-1])
    with pytest.raises(ExecutorError) as caught:
        tool_house.declare()
    assert caught.value.fault.reason == "PLAN_INVALID"


def test_two_tools_of_one_name_are_none(local_house: ToolHouse) -> None:
    """A server that lists a name twice leaves open which of them would be called."""
    local_house.tools(*TOOLS, {**NOTE, "description": "the other"})
    with pytest.raises(ExecutorError) as caught:
        local_house.declare()
    assert "two tools" in caught.value.fault.message


def test_an_endless_list_ends(local_house: ToolHouse) -> None:
    """A server whose pages go round in circles is given up."""
    local_house.folder.joinpath("endless").touch()
    local_house.tools({"name": "other", "inputSchema": ANYTHING})
    with pytest.raises(ExecutorError) as caught:
        local_house.declare()
    assert caught.value.fault.reason == "TOO_LARGE"


def test_a_hostile_description_is_bounded(local_house: ToolHouse) -> None:
    """A description of a megabyte with control characters is kept by its beginning, its end and its digest."""
    hostile = "\x1b[2Jnothing to see\u202e" + "a" * 1_000_000 + "\x00end"
    local_house.tools({**NOTE, "description": hostile})
    evidence = local_house.declare().evidence
    assert isinstance(evidence, ToolEvidence)
    kept = evidence.description
    assert (kept.total_bytes, kept.truncated) == (len(hostile.encode()), True)
    assert len(kept.head) + len(kept.tail) <= 8192


def test_pictures_are_counted(tool_house: ToolHouse) -> None:
    """What is no text is counted and not shown; structured content is, where there is no text."""
    performed = tool_house.perform(CallTool(server="notes", tool="picture", arguments="{}"))
    assert performed.answer is not None
    assert (performed.state, performed.answer.head) == (EffectState.DONE, '{"wide":3}')
    assert "1 image" in performed.summary


def test_a_long_answer_is_cut(local_house: ToolHouse) -> None:
    """An answer of six million characters is cut, and says so."""
    performed = local_house.perform(CallTool(server="notes", tool="loud", arguments="{}"))
    assert performed.state is EffectState.DONE
    assert "cut" in performed.summary


def test_secrets_reach_the_server_and_nothing_else(local_house: ToolHouse) -> None:
    """A server gets a secret in its variables or in an argument; whatever it makes of it, nobody else sees it."""
    told = local_house.perform(CallTool(server="notes", tool="tell", arguments="{}"))
    action = CallTool(server="notes", tool="note", arguments='{"text": "secret://token"}')
    declared = local_house.declare(action)
    noted = local_house.perform(action, declared)
    assert local_house.called()[-1]["arguments"] == {"text": TOKEN}
    assert TOKEN not in repr((told, declared, noted))
    assert told.answer is not None
    assert told.answer.head == "the variable is [secret token]"


def test_what_a_server_asks_is_refused(local_house: ToolHouse) -> None:
    """A server that asks its client for something gets no answer but a no."""
    performed = local_house.perform(CallTool(server="notes", tool="ask", arguments="{}"))
    assert performed.answer is not None
    assert performed.answer.head.startswith("refused: ")


def test_a_server_does_not_see_the_executors_state(local_house: ToolHouse) -> None:
    """A server that lies in the executor's own state can not even be started: that is covered."""
    inside = local_house.house.folder / "state" / "server.py"
    inside.write_text("print('here')")
    command = (sys.executable, str(inside))
    force = local_house.house.trust.current()
    server = replace(force.trust.servers[0], command=command)
    local_house.house.trust.replace(replace(force, trust=replace(force.trust, servers=(server,))))
    with pytest.raises(ExecutorError) as caught:
        local_house.declare()
    assert "No such file" in caught.value.fault.message


def test_a_server_changes_no_workspace(local_house: ToolHouse) -> None:
    """A program of the operator's may read the workspace, and not change it; secrets' files it can not open."""
    site = local_house.house.workspace.root
    site.joinpath("kept").write_text("as it was")
    secret = local_house.house.folder / "another-secret"
    secret.write_text("not for servers")
    secret.chmod(0o600)
    force = local_house.house.trust.current()
    trust = force.trust
    script = local_house.folder / "greedy.py"
    script.write_text(
        GREEDY.format(read=str(secret), write=str(site / "kept"), found=str(local_house.folder / "found"))
    )
    server = replace(trust.servers[0], command=(sys.executable, str(script)))
    source = replace(trust.secrets[0], file=str(secret))
    local_house.house.trust.replace(replace(force, trust=replace(trust, servers=(server,), secrets=(source,))))
    with pytest.raises(ExecutorError):
        local_house.declare()
    assert json.loads(local_house.folder.joinpath("found").read_text()) == [errno.EACCES, errno.EROFS]
    assert site.joinpath("kept").read_text() == "as it was"


@pytest.mark.parametrize("way", ["http"])
def test_a_private_address_needs_the_operators_word(tool_house: ToolHouse, way: str) -> None:
    """A server at a private address is refused unless the operator lists its network."""
    force = tool_house.house.trust.current()
    network = replace(force.trust.network, private_addresses=())
    tool_house.house.trust.replace(replace(force, trust=replace(force.trust, network=network)))
    with pytest.raises(ExecutorError) as caught:
        tool_house.declare()
    assert caught.value.fault.reason == "NETWORK_REFUSED"


@pytest.mark.parametrize(
    ("headers", "arguments"),
    [('{ Authorization = "secret://token" }', "{}"), ("{}", '{"text": ["secret://token"]}')],
)
def test_a_secret_goes_to_no_public_server_unencrypted(tmp_path: Path, headers: str, arguments: str) -> None:
    """Neither with the operator's headers nor among a plan's arguments; nobody is connected to."""
    table = '[[mcp_servers]]\nname = "notes"\nworkspaces = ["site"]\ntools = ["note"]\n'
    reach = f'url = "http://93.184.216.34/mcp"\nheaders = {headers}\n'
    with outside_house(tmp_path, table + reach) as house, pytest.raises(ExecutorError, match="without encryption"):
        ToolHouse(house, tmp_path).declare(replace(CALL, arguments=arguments))


def test_a_call_that_is_redirected_is_not_sent_again(tmp_path: Path) -> None:
    """A server that sends the client back to itself is asked once, whatever its library makes of redirects."""
    worker = importlib.import_module("executor.outside.mcp_worker")
    answer = b"HTTP/1.1 307 Go\r\nLocation: /mcp\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"

        async def send() -> Any:
            transport = worker._PinnedTransport(worker.httpx2.URL(url), ["127.0.0.1"], "")
            async with worker.httpx2.AsyncClient(transport=transport, trust_env=False) as client:
                return await client.post(url, content=b"{}")

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        response = worker.anyio.run(send)
        thread.join()
    assert (response.status_code, response.next_request) == (307, None)
