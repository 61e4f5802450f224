"""Signing by an ssh-agent: a real one signs what the executor takes, and a bad one is refused in plain words."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.errors import KeyFileError
from client.ssh_agent import MAX_MESSAGE, VARIABLE, AgentKey, SshAgent, key_in_agent
from gonogo import sealing, signatures
from gonogo.signatures import ED25519, SCHEMES, SSHSIG
from gonogo.ssh_keys import wire_text
from gonogo.sshsig import ssh_signature
from tests.fakes.security_key import SecurityKey
from tests.unit.client.agents import add_key, needs_openssh, openssh_agent, scripted_agent

BODY = b'{"approval_id":"a-1"}'


@pytest.fixture
def key() -> signatures.SigningKey:
    return signatures.new_signing_key()


@pytest.fixture
def private(key: signatures.SigningKey, tmp_path: Path) -> Path:
    """The key's private file."""
    path = tmp_path / "id"
    path.write_bytes(key.private_bytes())
    path.chmod(0o600)
    return path


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[SshAgent]:
    """A real agent that holds nothing."""
    with openssh_agent(tmp_path, os.environ) as running:
        yield running


def refused(agent: SshAgent, key: signatures.PublicKey, scheme: str = SSHSIG) -> KeyFileError:
    """Return why an agent's key did not sign; what to do is always said."""
    with pytest.raises(KeyFileError) as error:
        AgentKey(public=key, agent=agent).sign(scheme, sealing.APPROVAL, BODY)
    assert (error.value.reason, bool(error.value.remedy)) == ("KEY_UNUSABLE", True)
    return error.value


def message(kind: int, payload: bytes = b"") -> bytes:
    return wire_text(bytes([kind]) + payload)


@needs_openssh
@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_agents_signature_is_the_files(
    agent: SshAgent, key: signatures.SigningKey, private: Path, scheme: str
) -> None:
    """In both schemes the agent's signature is, byte for byte, the one that the file would have made."""
    add_key(agent, str(private))
    assert agent.blobs() == (key.public.blob,)
    held = key_in_agent(key.public, agent)
    assert held.public == key.public
    assert held.sign(scheme, sealing.APPROVAL, BODY) == key.sign(scheme, sealing.APPROVAL, BODY)


@needs_openssh
def test_a_key_that_the_agent_does_not_hold_is_told(agent: SshAgent, key: signatures.SigningKey) -> None:
    """Nothing is asked of the agent, and the way to add the key is named."""
    with pytest.raises(KeyFileError, match="does not hold the key SHA256:") as error:
        key_in_agent(key.public, agent)
    assert "ssh-add" in error.value.remedy


@needs_openssh
def test_an_agent_that_refuses_is_told(agent: SshAgent, key: signatures.SigningKey, private: Path) -> None:
    """A key that was removed between listing and signing is one way for an agent to refuse."""
    add_key(agent, str(private))
    held = key_in_agent(key.public, agent)
    add_key(agent, "-D")
    assert agent.blobs() == ()
    assert "refused to sign" in refused(held.agent, held.public).message


@needs_openssh
def test_a_document_that_is_too_large_for_an_agent_is_told(agent: SshAgent, key: signatures.SigningKey) -> None:
    """SSHSIG signs a digest, whatever the size; a bare signature needs the agent to see it all."""
    with pytest.raises(KeyFileError, match="too large"):
        AgentKey(public=key.public, agent=agent).sign(ED25519, sealing.APPROVAL, bytes(MAX_MESSAGE))


@pytest.mark.parametrize("value", [None, ""])
def test_without_an_agent_the_variable_is_named(
    key: signatures.SigningKey, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    """Not set and empty are the same."""
    monkeypatch.delenv(VARIABLE, raising=False)
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(KeyFileError, match="SSH_AUTH_SOCK is not set") as error:
        key_in_agent(key.public)
    assert "ssh-agent" in error.value.remedy


def test_an_agent_that_is_gone_is_told(key: signatures.SigningKey, tmp_path: Path) -> None:
    """A socket that nobody listens on, none at all, and a path that no socket can have."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "gone", tmp_path / "file", tmp_path / ("x" * 200)):
        assert "can not be reached" in refused(SshAgent(path=path), key.public).message


LISTED = (1).to_bytes(4, "big") + wire_text(b"blob") + wire_text(b"comment")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "hung up"),
        (b"\0\0\0", "hung up"),
        (b"\0\0\0\5\x0c", "hung up"),
        (b"\0\0\0\0", "does not speak"),
        (message(6), "does not speak"),
        (message(5), "refused"),
        (message(14, wire_text(b"")), "does not speak"),
        ((MAX_MESSAGE + 1).to_bytes(4, "big") + b"\x0c", "does not speak"),
        (b"\xff\xff\xff\xff\x0c", "does not speak"),
        (message(12), "can not be read"),
        (message(12, LISTED + b"\0"), "can not be read"),
        (message(12, b"\xff\xff\xff\xff" + LISTED[4:]), "can not be read"),
        (message(12, LISTED[:-1]), "can not be read"),
        (message(12, (1).to_bytes(4, "big") + b"\xff\xff\xff\xff"), "can not be read"),
    ],
)
def test_an_answer_that_is_no_list_of_keys_is_refused(tmp_path: Path, answer: bytes, text: str) -> None:
    """Cut, oversized, of another type, with bytes too many: never more is read than a message may have."""
    with scripted_agent(tmp_path, answer) as agent, pytest.raises(KeyFileError, match=text):
        agent.blobs()


def test_an_agent_that_never_answers_is_not_waited_for(key: signatures.SigningKey, tmp_path: Path) -> None:
    """Listing and signing each have their time."""
    with scripted_agent(tmp_path, None) as agent:
        with pytest.raises(KeyFileError, match="did not answer within"):
            agent.blobs()
        assert "did not answer within" in refused(agent, key.public).message


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_signature_that_does_not_hold_is_not_handed_in(
    key: signatures.SigningKey, tmp_path: Path, scheme: str
) -> None:
    """Another key's, one over something else, one of another type, and none at all."""
    other = signatures.new_signing_key()
    data = signatures.to_be_signed(scheme, key.public, sealing.APPROVAL, BODY)
    for number, inner in enumerate(
        [
            ssh_signature(other.public, other.sign_raw(data)),
            ssh_signature(key.public, key.sign_raw(data + b"\0")),
            wire_text(b"rsa-sha2-512") + wire_text(key.sign_raw(data)),
            ssh_signature(key.public, key.sign_raw(data)) + b"\0",
            b"",
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        with scripted_agent(folder, message(14, wire_text(inner))) as agent:
            assert "can not be used" in refused(agent, key.public, scheme).message


def test_a_security_key_in_an_agent_must_have_been_touched(tmp_path: Path) -> None:
    """Touched it signs; untouched, the approver is told before the executor would refuse."""
    device = SecurityKey.new()
    data = signatures.to_be_signed(SSHSIG, device.public, sealing.APPROVAL, BODY)
    with scripted_agent(tmp_path, message(14, wire_text(device.ssh_signature(data)))) as agent:
        blob = AgentKey(public=device.public, agent=agent).sign(SSHSIG, sealing.APPROVAL, BODY)
        assert blob == device.sign(sealing.APPROVAL, BODY)
    (tmp_path / "scripted").unlink()
    with scripted_agent(tmp_path, message(14, wire_text(device.ssh_signature(data, flags=0)))) as agent:
        error = refused(agent, device.public)
    assert "nobody touched" in error.message
    assert "no-touch-required" in error.remedy
