"""SSHSIG: what is taken is what ssh-keygen -Y sign can make in our namespace, touched where a device made it."""

from pathlib import Path

import pytest

from gonogo import sealing, signatures
from gonogo.digests import pre_authentication_encoding
from gonogo.signatures import NAMESPACE, SSHSIG, PublicKey, SignatureError
from gonogo.ssh_keys import wire_text
from gonogo.sshsig import HASHES, MAGIC, join, signed_data, ssh_signature
from tests.contract.openssh import armoured, needs_ssh_keygen, openssh_signs, openssh_verifies, private_file
from tests.fakes.security_key import SecurityKey, build_provider

BODY = b'{"approval_id":"a-1"}'
MESSAGE = pre_authentication_encoding(sealing.APPROVAL, BODY)
OURS = NAMESPACE.decode()


@pytest.fixture
def key() -> signatures.SigningKey:
    return signatures.new_signing_key()


@pytest.fixture
def device() -> SecurityKey:
    return SecurityKey.new()


def check(public: PublicKey, blob: bytes) -> None:
    signatures.verify(public, scheme=SSHSIG, signature=blob, media_type=sealing.APPROVAL, body=BODY, extra=b"")


@pytest.mark.quick
@pytest.mark.parametrize("hash_name", HASHES)
@pytest.mark.parametrize("flags", [0x01, 0x05])
def test_a_touched_security_keys_signature_holds(device: SecurityKey, hash_name: str, flags: int) -> None:
    """With and without a PIN, with both hashes, and with any counter."""
    for counter in (0, 1, 2**32 - 1):
        check(device.public, device.sign(sealing.APPROVAL, BODY, flags=flags, counter=counter, hash_name=hash_name))


@pytest.mark.quick
@pytest.mark.parametrize("flags", [0x00, 0x04, 0xFE])
def test_a_security_key_that_nobody_touched_proves_nothing(device: SecurityKey, flags: int) -> None:
    """A PIN that was remembered is no touch."""
    with pytest.raises(SignatureError, match="nobody touched"):
        check(device.public, device.sign(sealing.APPROVAL, BODY, flags=flags))


@pytest.mark.quick
@pytest.mark.parametrize("bit", [0x02, 0x08, 0x10, 0x20, 0x40, 0x80])
def test_flags_that_announce_something_else_are_refused(device: SecurityKey, bit: int) -> None:
    """Backed-up keys, attested data, extensions and reserved bits are none of the scheme."""
    with pytest.raises(SignatureError, match="flags"):
        check(device.public, device.sign(sealing.APPROVAL, BODY, flags=0x05 | bit))


@pytest.mark.quick
def test_flags_and_counter_are_part_of_what_is_signed(device: SecurityKey) -> None:
    """A touch can not be added afterwards, nor a counter changed."""
    untouched = device.sign(sealing.APPROVAL, BODY, flags=0)
    touched = device.sign(sealing.APPROVAL, BODY)
    check(device.public, touched)
    for forged in (untouched[:-5] + b"\1" + untouched[-4:], touched[:-1] + b"\0"):
        with pytest.raises(SignatureError, match="not one by"):
            check(device.public, forged)


@pytest.mark.quick
def test_the_application_is_part_of_what_is_signed(device: SecurityKey) -> None:
    """The same point under another application is another key."""
    other = SecurityKey(private=device.private, public=SecurityKey.new(b"ssh:other").public)
    blob = join(device.public, other.ssh_signature(signed_data(MESSAGE)))
    with pytest.raises(SignatureError):
        check(device.public, blob)


@pytest.mark.quick
def test_a_plain_signature_is_none_by_the_security_key_and_the_other_way_round(
    device: SecurityKey, key: signatures.SigningKey
) -> None:
    """The types inside the blob must be the key's, whatever point is behind it."""
    bare = device.private.sign(signed_data(MESSAGE))
    for inner in (
        wire_text(b"ssh-ed25519") + wire_text(bare),
        wire_text(b"webauthn-sk-ssh-ed25519@openssh.com") + device.ssh_signature(signed_data(MESSAGE))[30:],
        ssh_signature(device.public, bare),
    ):
        with pytest.raises(SignatureError):
            check(device.public, join(device.public, inner))
    with pytest.raises(SignatureError):
        check(key.public, device.sign(sealing.APPROVAL, BODY))


def blob_of(
    key: signatures.SigningKey,
    *,
    version: int = 1,
    namespace: bytes = NAMESPACE,
    reserved: bytes = b"",
    hash_name: bytes = b"sha512",
) -> bytes:
    """A blob that is well made and well signed, and not what it should be in one part."""
    digest = HASHES["sha256" if hash_name == b"sha256" else "sha512"](MESSAGE)
    head = wire_text(namespace) + wire_text(reserved) + wire_text(hash_name)
    raw = key.sign_raw(MAGIC + head + wire_text(digest))
    inner = ssh_signature(key.public, raw)
    return MAGIC + version.to_bytes(4, "big") + wire_text(key.public.blob) + head + wire_text(inner)


@pytest.mark.quick
def test_each_part_of_a_blob_has_a_closed_list_of_values(key: signatures.SigningKey) -> None:
    """Another version, namespace, hash or anything reserved is refused though the signature is good."""
    check(key.public, blob_of(key))
    check(key.public, blob_of(key, hash_name=b"sha256"))
    for blob in (
        blob_of(key, version=2),
        blob_of(key, namespace=b"git"),
        blob_of(key, namespace=b""),
        blob_of(key, namespace=NAMESPACE + b"\0"),
        blob_of(key, reserved=b"x"),
        blob_of(key, hash_name=b"sha384"),
        blob_of(key, hash_name=b"SHA512"),
        blob_of(key) + b"\0",
        armoured(blob_of(key)).encode(),
    ):
        with pytest.raises(SignatureError, match="not an SSHSIG signature of this key"):
            check(key.public, blob)


@needs_ssh_keygen
def test_openssh_accepts_our_signatures_in_our_namespace_only(key: signatures.SigningKey, tmp_path: Path) -> None:
    """ssh-keygen -Y verify takes what we sign, and refuses it under another namespace."""
    blob = key.sign(SSHSIG, sealing.APPROVAL, BODY)
    assert openssh_verifies(tmp_path, key.public.line, blob, OURS, MESSAGE)
    assert not openssh_verifies(tmp_path, key.public.line, blob, "git", MESSAGE)
    assert not openssh_verifies(tmp_path, key.public.line, blob, OURS, MESSAGE + b" ")


@needs_ssh_keygen
@pytest.mark.parametrize("hash_name", HASHES)
def test_we_accept_openssh_signatures_with_both_hashes(
    key: signatures.SigningKey, tmp_path: Path, hash_name: str
) -> None:
    """What ssh-keygen -Y sign makes in our namespace is taken; with its default hash it is our own, byte for byte."""
    private = private_file(tmp_path, key.private_bytes())
    blob = openssh_signs(private, OURS, MESSAGE, "-O", f"hashalg={hash_name}")
    check(key.public, blob)
    assert (blob == key.sign(SSHSIG, sealing.APPROVAL, BODY)) is (hash_name == "sha512")


@needs_ssh_keygen
@pytest.mark.parametrize("namespace", ["git", "file", "gonogo-approval2", "gonogo"])
def test_an_openssh_signature_for_something_else_is_no_approval(
    key: signatures.SigningKey, tmp_path: Path, namespace: str
) -> None:
    """A Git commit's or a file's signature by the same key over the very same bytes is refused."""
    blob = openssh_signs(private_file(tmp_path, key.private_bytes()), namespace, MESSAGE)
    assert openssh_verifies(tmp_path, key.public.line, blob, namespace, MESSAGE)
    with pytest.raises(SignatureError, match="namespace"):
        check(key.public, blob)


@needs_ssh_keygen
@pytest.mark.parametrize("flags", [0x01, 0x05])
def test_openssh_reads_security_key_signatures_as_we_do(device: SecurityKey, tmp_path: Path, flags: int) -> None:
    """Both accept one that was touched, and both refuse it when a bit of the counter is flipped."""
    blob = device.sign(sealing.APPROVAL, BODY, flags=flags)
    assert openssh_verifies(tmp_path, device.public.line, blob, OURS, MESSAGE)
    check(device.public, blob)
    assert not openssh_verifies(tmp_path, device.public.line, blob[:-1] + b"\0", OURS, MESSAGE)


@needs_ssh_keygen
def test_we_refuse_the_untouched_signature_that_openssh_accepts(device: SecurityKey, tmp_path: Path) -> None:
    """OpenSSH leaves the question of touch to others; here it is part of what a signature means."""
    blob = device.sign(sealing.APPROVAL, BODY, flags=0)
    assert openssh_verifies(tmp_path, device.public.line, blob, OURS, MESSAGE)
    with pytest.raises(SignatureError, match="nobody touched"):
        check(device.public, blob)


@needs_ssh_keygen
def test_a_signature_that_openssh_made_with_a_security_key_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ssh-keygen makes the key and the signature with a device in software; without a touch it is refused."""
    import subprocess

    provider = build_provider(tmp_path)
    if provider is None:
        pytest.skip("no C compiler with OpenSSL's headers")
    private = tmp_path / "id_ed25519_sk"
    argv = ["ssh-keygen", "-q", "-t", "ed25519-sk", "-N", "", "-w", str(provider), "-f", str(private)]
    subprocess.run(argv, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    public = signatures.load_public_key(private.with_suffix(".pub").read_text())
    monkeypatch.setenv("SSH_SK_PROVIDER", str(provider))
    check(public, openssh_signs(private, OURS, MESSAGE))
    monkeypatch.setenv("SECURITY_KEY_FLAGS", "0")
    with pytest.raises(SignatureError, match="nobody touched"):
        check(public, openssh_signs(private, OURS, MESSAGE))
