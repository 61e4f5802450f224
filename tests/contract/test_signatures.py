"""Signatures: Ed25519 and SSHSIG over sealed documents, cross-checked with OpenSSH."""

import shutil
import subprocess
from pathlib import Path

import pytest

from gonogo import sealing, signatures
from gonogo.digests import pre_authentication_encoding
from gonogo.signatures import ED25519, NAMESPACE, SCHEMES, SSHSIG, SignatureError

BODY = b'{"approval_id":"a-1"}'
needs_ssh_keygen = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="ssh-keygen is not installed")


@pytest.fixture
def key() -> signatures.SigningKey:
    return signatures.new_signing_key()


def check(key: signatures.SigningKey, scheme: str, signature: bytes, media_type: str = sealing.APPROVAL) -> None:
    signatures.verify(key.public, scheme=scheme, signature=signature, media_type=media_type, body=BODY)


@pytest.mark.quick
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_signature_holds_for_its_own_document_only(key: signatures.SigningKey, scheme: str) -> None:
    """The same bytes under another media type, other bytes, or another key do not pass."""
    signature = key.sign(scheme, sealing.APPROVAL, BODY)
    check(key, scheme, signature)
    with pytest.raises(SignatureError):
        check(key, scheme, signature, sealing.REPORT)
    with pytest.raises(SignatureError):
        signatures.verify(key.public, scheme=scheme, signature=signature, media_type=sealing.APPROVAL, body=BODY + b" ")
    with pytest.raises(SignatureError):
        check(signatures.new_signing_key(), scheme, signature)


@pytest.mark.quick
@pytest.mark.parametrize("scheme", SCHEMES)
def test_any_changed_or_cut_signature_is_refused(key: signatures.SigningKey, scheme: str) -> None:
    """Every single flipped bit position's byte, a cut and an added byte are refused."""
    signature = key.sign(scheme, sealing.APPROVAL, BODY)
    broken = [signature[:-1], signature + b"\0", b""]
    broken += [signature[:i] + bytes([signature[i] ^ 1]) + signature[i + 1 :] for i in range(len(signature))]
    for candidate in broken:
        with pytest.raises(SignatureError):
            check(key, scheme, candidate)


@pytest.mark.quick
def test_a_scheme_is_not_taken_for_another(key: signatures.SigningKey) -> None:
    """A raw signature is no SSHSIG blob, nor the other way round, and unknown schemes are refused."""
    with pytest.raises(SignatureError):
        check(key, SSHSIG, key.sign(ED25519, sealing.APPROVAL, BODY))
    with pytest.raises(SignatureError):
        check(key, ED25519, key.sign(SSHSIG, sealing.APPROVAL, BODY))
    with pytest.raises(SignatureError, match="unknown signature scheme"):
        check(key, "none", key.sign(ED25519, sealing.APPROVAL, BODY))


@pytest.mark.quick
def test_keys_survive_their_file_form(key: signatures.SigningKey) -> None:
    """A key written as an OpenSSH file and line reads back as the same key."""
    assert signatures.load_signing_key(key.private_bytes()).public.key_id == key.public.key_id
    assert signatures.load_public_key(f"{key.public.line} a comment").key_id == key.public.key_id


@pytest.mark.quick
@pytest.mark.parametrize("line", ["", "ssh-ed25519", "ssh-ed25519 AAAA", "ssh-rsa AAAAB3NzaC1yc2E", "\0"])
def test_a_broken_public_key_is_refused(line: str) -> None:
    """A line that is no Ed25519 public key is one kind of error."""
    with pytest.raises(SignatureError):
        signatures.load_public_key(line)


def ssh_keygen_verifies(folder: Path, key: signatures.SigningKey, blob: bytes, namespace: str) -> bool:
    allowed = folder / "allowed"
    allowed.write_text(f"owner {key.public.line}\n")
    armoured = subprocess.run(["base64", "-w", "70"], input=blob, capture_output=True, check=True).stdout
    signature = folder / "document.sig"
    signature.write_bytes(b"-----BEGIN SSH SIGNATURE-----\n" + armoured + b"-----END SSH SIGNATURE-----\n")
    command = ["ssh-keygen", "-Y", "verify", "-f", str(allowed), "-I", "owner", "-n", namespace, "-s", str(signature)]
    message = pre_authentication_encoding(sealing.APPROVAL, BODY)
    return subprocess.run(command, input=message, capture_output=True, check=False).returncode == 0


@needs_ssh_keygen
def test_openssh_accepts_our_signatures_in_our_namespace_only(key: signatures.SigningKey, tmp_path: Path) -> None:
    """ssh-keygen -Y verify takes what we sign, and refuses it under another namespace."""
    blob = key.sign(SSHSIG, sealing.APPROVAL, BODY)
    assert ssh_keygen_verifies(tmp_path, key, blob, NAMESPACE.decode())
    assert not ssh_keygen_verifies(tmp_path, key, blob, "git")


@needs_ssh_keygen
@pytest.mark.parametrize(("namespace", "passes"), [(NAMESPACE.decode(), True), ("git", False), ("file", False)])
def test_we_accept_openssh_signatures_in_our_namespace_only(
    key: signatures.SigningKey, tmp_path: Path, namespace: str, *, passes: bool
) -> None:
    """A signature that ssh-keygen made for a Git commit or a file is no approval."""
    private = tmp_path / "key"
    private.write_bytes(key.private_bytes())
    private.chmod(0o600)
    document = tmp_path / "document"
    document.write_bytes(pre_authentication_encoding(sealing.APPROVAL, BODY))
    command = ["ssh-keygen", "-Y", "sign", "-f", str(private), "-n", namespace, str(document)]
    subprocess.run(command, check=True, capture_output=True)
    armoured = (tmp_path / "document.sig").read_text().splitlines()[1:-1]
    blob = subprocess.run(["base64", "-d"], input="".join(armoured).encode(), capture_output=True, check=True).stdout
    if passes:
        check(key, SSHSIG, blob)
        assert blob == key.sign(SSHSIG, sealing.APPROVAL, BODY)
    else:
        with pytest.raises(SignatureError):
            check(key, SSHSIG, blob)
