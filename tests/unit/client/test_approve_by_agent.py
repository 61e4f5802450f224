"""`gonogo approve --key FILE` with keys that are not in a file: in an agent, and in a security key."""

import json
import os
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest

from client.__main__ import run_command
from client.initialise import initialise
from client.signing import KeyOwner, owner_of_key
from client.ssh_agent import VARIABLE
from client.ssh_keygen import KeygenKey
from client.state import StateDirectory
from gonogo import signatures
from gonogo.signatures import SSHSIG
from tests.fakes.security_key import SecurityKey
from tests.unit.client.agents import add_key, needs_openssh, openssh_agent
from tests.unit.client.orchestrator_simulator import Simulator

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def gonogo(simulator: Simulator, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run a command in this process, with no terminal and no agent but the test's."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(sys, "stdin", StringIO())

    def command(*arguments: str) -> tuple[int, str, str]:
        code = run_command(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


@pytest.fixture
def mission(gonogo: Command, plan_file: Path) -> str:
    """A mission that waits for an approval."""
    mission_id = str(json.loads(gonogo("propose", "-f", str(plan_file), "-o", "json")[1])["mission_id"])
    assert gonogo("dry-run", mission_id)[0] == 0
    return mission_id


@needs_openssh
def test_a_key_in_the_agent_approves(
    gonogo: Command,
    mission: str,
    simulator: Simulator,
    shared_state: StateDirectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The .pub file names the key, the agent signs, and what is handed in holds under that key."""
    public_file = shared_state.keys / "approver.pub"
    with openssh_agent(tmp_path, os.environ) as agent:
        add_key(agent, str(shared_state.approver_key))
        monkeypatch.setenv(VARIABLE, str(agent.path))
        code, out, err = gonogo("approve", mission, "--key", str(public_file), "--yes", "-o", "json")
    assert (code, json.loads(out)["approver"], err) == (0, "owner", "")
    (sealed,) = simulator.missions[mission].approvals
    (signature,) = sealed.signatures
    public = signatures.load_public_key(public_file.read_text())
    assert (signature.key_id, signature.scheme, signature.extra) == (public.key_id, SSHSIG, b"")
    signatures.verify(
        public, scheme=SSHSIG, signature=signature.signature, media_type=sealed.media_type, body=sealed.body, extra=b""
    )


@needs_openssh
def test_ssh_keygen_signs_while_the_connection_is_open(
    gonogo: Command,
    mission: str,
    simulator: Simulator,
    shared_state: StateDirectory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Starting a process beside gRPC's threads disturbs neither."""
    public = signatures.load_public_key((shared_state.keys / "approver.pub").read_text())
    key = KeygenKey(public=public, path=shared_state.approver_key)
    monkeypatch.setattr("client.approving.find_key", lambda _path: key)
    assert gonogo("approve", mission, "--yes", "-o", "json")[0] == 0
    assert [one.signatures[0].key_id for one in simulator.missions[mission].approvals] == [public.key_id]


def test_without_an_agent_nothing_is_handed_in(
    gonogo: Command, mission: str, simulator: Simulator, shared_state: StateDirectory
) -> None:
    """The error names the reason and the way on."""
    code, _, err = gonogo("approve", mission, "--key", str(shared_state.keys / "approver.pub"), "--yes", "-o", "json")
    error = json.loads(err)
    assert (code, error["reason"]) == (1, "KEY_UNUSABLE")
    assert "ssh-add" in error["remedy"]
    assert not simulator.missions[mission].approvals


def test_a_security_key_can_be_the_first_approver(tmp_path: Path) -> None:
    """`gonogo init` takes its .pub file, and the trust file then names it for sshsig."""
    device = SecurityKey.new()
    public_file = tmp_path / "id_ed25519_sk.pub"
    public_file.write_text(f"{device.public.line} ann@desk\n")
    made = initialise(StateDirectory(root=tmp_path / "state"), approver_public=public_file, person="ann")
    owner = owner_of_key(made.state, device.public.key_id)
    assert owner == KeyOwner(person="ann", scheme=SSHSIG, approves=True)
