"""`--key FILE`: whatever kind of file it is, the right one signs, or it is told why nobody can."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.approver_keys import find_key, read_head
from client.errors import KeyFileError, TerminalNeededError
from client.ssh_agent import VARIABLE, AgentKey, SshAgent
from client.ssh_keygen import KeygenKey, unarmoured
from gonogo import sealing, signatures
from gonogo.signatures import ED25519, SSHSIG, SignatureError, SigningKey
from tests.fakes.security_key import build_provider
from tests.unit.client.agents import add_key, needs_openssh, openssh_agent

BODY = b'{"approval_id":"a-1"}'
pytestmark = needs_openssh


@pytest.fixture(autouse=True)
def no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever runs the tests may have an agent; it is not part of them."""
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshAgent]:
    """A real agent in the environment, with nothing in it."""
    with openssh_agent(tmp_path, os.environ) as running:
        monkeypatch.setenv(VARIABLE, str(running.path))
        yield running


@pytest.fixture(scope="session")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A security key in software, as OpenSSH's programs load it."""
    made = build_provider(tmp_path_factory.mktemp("provider"))
    if made is None:
        pytest.skip("no C compiler with OpenSSL's headers")
    return made


@pytest.fixture
def device_file(tmp_path: Path, provider: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that ssh-keygen makes for a security key."""
    monkeypatch.setenv("SSH_SK_PROVIDER", str(provider))
    return made_key(tmp_path, "ed25519-sk")


def made_key(folder: Path, kind: str = "ed25519", passphrase: str = "") -> Path:
    path = folder / f"id_{kind}"
    argv = ["ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-f", str(path)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return path


def public_of(private: Path) -> signatures.PublicKey:
    return signatures.load_public_key(private.with_suffix(".pub").read_text())


def nobody_asked(prompt: str) -> str:
    pytest.fail(f"asked: {prompt}")


def check(public: signatures.PublicKey, blob: bytes) -> None:
    signatures.verify(public, scheme=SSHSIG, signature=blob, media_type=sealing.APPROVAL, body=BODY, extra=b"")


def test_a_private_key_signs_here(agent: SshAgent, tmp_path: Path) -> None:
    """Where the file has the key in the clear, no agent is asked."""
    private = made_key(tmp_path)
    add_key(agent, str(private))
    key = find_key(private, nobody_asked)
    assert isinstance(key, SigningKey)
    check(public_of(private), key.sign(SSHSIG, sealing.APPROVAL, BODY))


def test_a_public_key_file_means_the_agent(agent: SshAgent, tmp_path: Path) -> None:
    """The private half is nowhere but in the agent."""
    private = made_key(tmp_path)
    add_key(agent, str(private))
    private.unlink()
    key = find_key(private.with_suffix(".pub"))
    assert isinstance(key, AgentKey)
    check(public_of(private), key.sign(SSHSIG, sealing.APPROVAL, BODY))


def test_a_public_key_file_without_an_agent_is_told(tmp_path: Path) -> None:
    """It says what a .pub file needs, and that the private file serves as well."""
    with pytest.raises(KeyFileError, match="no ssh-agent is known") as error:
        find_key(made_key(tmp_path).with_suffix(".pub"))
    assert "--key" in error.value.remedy


def test_an_encrypted_key_is_not_asked_for_where_the_agent_holds_it(agent: SshAgent, tmp_path: Path) -> None:
    """Its passphrase was typed once, into ssh-add."""
    private = made_key(tmp_path, passphrase="open sesame")
    clear = tmp_path / "clear"
    clear.write_bytes(signatures.load_signing_key(private.read_bytes(), b"open sesame").private_bytes())
    clear.chmod(0o600)
    assert isinstance(find_key(private, lambda _prompt: "open sesame"), SigningKey)
    add_key(agent, str(clear))
    key = find_key(private, nobody_asked)
    assert isinstance(key, AgentKey)
    check(public_of(private), key.sign(SSHSIG, sealing.APPROVAL, BODY))


def test_an_encrypted_key_without_an_agent_wants_a_terminal(tmp_path: Path) -> None:
    """As before: the passphrase is asked for, and where nobody is there it says so."""
    private = made_key(tmp_path, passphrase="open sesame")
    with pytest.raises(TerminalNeededError):
        find_key(private)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello\n",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\n!\n-----END OPENSSH PRIVATE KEY-----\n",
        b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n",
        b"-----BEGIN ",
        b"\xff" * 100,
        b"x" * 100_000,
    ],
)
def test_a_file_that_is_no_key_is_told(tmp_path: Path, content: bytes) -> None:
    """One reason, and what to give instead."""
    path = tmp_path / "id"
    path.write_bytes(content)
    with pytest.raises(KeyFileError) as error:
        find_key(path)
    assert (error.value.reason, bool(error.value.remedy)) == ("KEY_UNUSABLE", True)


def test_the_head_of_a_private_key_file_is_readable_without_its_passphrase(tmp_path: Path) -> None:
    """The public half and whether the rest is encrypted stand in the clear."""
    for passphrase in ("", "open sesame"):
        folder = tmp_path / str(len(passphrase))
        folder.mkdir()
        private = made_key(folder, passphrase=passphrase)
        head = read_head(private.read_bytes())
        assert (head.public, head.encrypted) == (public_of(private), bool(passphrase))


def test_ssh_keygen_signs_for_a_file(tmp_path: Path) -> None:
    """Its signature over a document holds, in the one scheme that it knows."""
    private = made_key(tmp_path)
    key = KeygenKey(public=public_of(private), path=private)
    check(key.public, key.sign(SSHSIG, sealing.APPROVAL, BODY))
    with pytest.raises(SignatureError, match="not in 'ed25519'"):
        key.sign(ED25519, sealing.APPROVAL, BODY)


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("exit 3", "ended with status 3"),
        ("exec sleep 60", "did not answer within"),
        ("echo hello", "not an armoured SSH signature"),
        ("head -c 100000 /dev/zero", "too long"),
        ("printf '%s\\n' '-----BEGIN SSH SIGNATURE-----' 'é' '-----END SSH SIGNATURE-----'", "not base64"),
        (
            "printf '%s\\n' '-----BEGIN SSH SIGNATURE-----' 'AAAA' '-----END SSH SIGNATURE-----'",
            "not an SSHSIG signature",
        ),
    ],
)
def test_a_command_that_does_not_sign_is_told(tmp_path: Path, script: str, text: str) -> None:
    """A fault, silence and nonsense are three different things to the person who waits."""
    private = made_key(tmp_path)
    command = tmp_path / "keygen"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    key = KeygenKey(public=public_of(private), path=private, command=str(command), seconds=0.5)
    with pytest.raises(KeyFileError, match=text) as error:
        key.sign(SSHSIG, sealing.APPROVAL, BODY)
    assert (error.value.reason, bool(error.value.remedy)) == ("KEY_UNUSABLE", True)


def test_a_command_that_is_not_there_is_told(tmp_path: Path) -> None:
    """OpenSSH may not be installed where the approver is."""
    private = made_key(tmp_path)
    key = KeygenKey(public=public_of(private), path=private, command=str(tmp_path / "gone"))
    with pytest.raises(KeyFileError, match="No such file"):
        key.sign(SSHSIG, sealing.APPROVAL, BODY)


def test_armoured_text_is_read_in_its_one_form() -> None:
    """Both marks and nothing around them."""
    with pytest.raises(SignatureError):
        unarmoured(b"-----BEGIN SSH SIGNATURE-----\n-----END SSH SIGNATURE-----\n")
    with pytest.raises(SignatureError):
        unarmoured(b"x\n-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n")


def test_a_security_keys_file_signs_through_ssh_keygen(device_file: Path) -> None:
    """Without an agent OpenSSH's own command talks to the device."""
    key = find_key(device_file, nobody_asked)
    assert isinstance(key, KeygenKey)
    assert key.public.hardware
    check(public_of(device_file), key.sign(SSHSIG, sealing.APPROVAL, BODY))


def test_a_security_key_that_was_not_touched_signs_nothing(device_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenSSH hands the signature out all the same; it stops here."""
    monkeypatch.setenv("SECURITY_KEY_FLAGS", "0")
    with pytest.raises(KeyFileError, match="nobody touched"):
        find_key(device_file).sign(SSHSIG, sealing.APPROVAL, BODY)


@pytest.mark.parametrize("flags", ["1", "0"])
def test_a_security_key_in_a_real_agent_signs_when_touched(
    device_file: Path, provider: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str
) -> None:
    """By the stub file and by its .pub alike, the agent signs; an untouched signature goes nowhere."""
    monkeypatch.setenv("SECURITY_KEY_FLAGS", flags)
    with openssh_agent(tmp_path, os.environ, "-P", str(provider)) as agent:
        monkeypatch.setenv(VARIABLE, str(agent.path))
        add_key(agent, "-S", str(provider), str(device_file))
        for path in (device_file, device_file.with_suffix(".pub")):
            key = find_key(path, nobody_asked)
            assert isinstance(key, AgentKey)
            if flags == "1":
                check(public_of(device_file), key.sign(SSHSIG, sealing.APPROVAL, BODY))
            else:
                with pytest.raises(KeyFileError, match="nobody touched"):
                    key.sign(SSHSIG, sealing.APPROVAL, BODY)
