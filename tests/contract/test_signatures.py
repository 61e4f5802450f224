"""Signatures over sealed documents: the closed table of schemes, and the keys that they take."""

import pytest

from gonogo import sealing, signatures
from gonogo.signatures import ED25519, KEY_TYPES, SCHEMES, SSHSIG, SignatureError
from gonogo.ssh_keys import FIELD, PLAIN, WEAK_Y, public_key_of_blob, wire_text
from tests.fakes.security_key import SecurityKey, sk_blob

BODY = b'{"approval_id":"a-1"}'


@pytest.fixture
def key() -> signatures.SigningKey:
    return signatures.new_signing_key()


def check(key: signatures.SigningKey, scheme: str, signature: bytes, media_type: str = sealing.APPROVAL) -> None:
    signatures.verify(key.public, scheme=scheme, signature=signature, media_type=media_type, body=BODY, extra=b"")


@pytest.mark.quick
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_signature_holds_for_its_own_document_only(key: signatures.SigningKey, scheme: str) -> None:
    """The same bytes under another media type, other bytes, or another key do not pass."""
    signature = key.sign(scheme, sealing.APPROVAL, BODY)
    check(key, scheme, signature)
    with pytest.raises(SignatureError):
        check(key, scheme, signature, sealing.REPORT)
    with pytest.raises(SignatureError):
        signatures.verify(
            key.public, scheme=scheme, signature=signature, media_type=sealing.APPROVAL, body=BODY + b" ", extra=b""
        )
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
@pytest.mark.parametrize(
    "line",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "ssh-rsa AAAAB3NzaC1yc2E",
        "\0",
        "ssh-ed25519 é",
        "\ud800 \ud800",
        "x" * 9000,
    ],
)
def test_a_broken_public_key_is_refused(line: str) -> None:
    """A line that is no Ed25519 public key is one kind of error."""
    with pytest.raises(SignatureError):
        signatures.load_public_key(line)


@pytest.mark.quick
def test_a_public_key_has_one_line_only(key: signatures.SigningKey) -> None:
    """A second line, a type that is not the blob's, bytes after the key and loose base64 are refused."""
    kind, text = key.public.line.split()
    longer = signatures.load_public_key(key.public.line).blob + b"\0"
    with pytest.raises(SignatureError, match="more data"):
        public_key_of_blob(longer)
    for line in (
        f"{kind} {text}\n{kind} {text}",
        f"sk-ssh-ed25519@openssh.com {text}",
        f"{kind} {text}=",
        f"{kind} {text[:8]}\u200b{text[8:]}",
        f"no-touch-required {kind} {text}",
    ):
        with pytest.raises(SignatureError):
            signatures.load_public_key(line)


@pytest.mark.quick
def test_a_security_key_is_told_from_a_plain_one(key: signatures.SigningKey) -> None:
    """The type is the key's own word; the application is part of the key and of its fingerprint."""
    hardware = SecurityKey.new(b"ssh:work").public
    assert (key.public.key_type, key.public.hardware, key.public.application) == ("ssh-ed25519", False, b"")
    read = signatures.load_public_key(f"{hardware.line} ann's key")
    assert (read.key_type, read.hardware, read.application) == ("sk-ssh-ed25519@openssh.com", True, b"ssh:work")
    assert read.key_id == hardware.key_id
    assert (key.public.key_type, hardware.key_type) == KEY_TYPES


@pytest.mark.quick
@pytest.mark.parametrize("application", [b"", b"https://example.org", b"webauthn", b"ssh:" + b"x" * 400, b"ssh:\xff"])
def test_a_key_that_a_web_site_enrolled_is_refused(key: signatures.SigningKey, application: bytes) -> None:
    """Only applications that ssh-keygen gives out are taken."""
    with pytest.raises(SignatureError, match="application"):
        public_key_of_blob(sk_blob(key.public.key.public_bytes_raw(), application))


@pytest.mark.quick
@pytest.mark.parametrize("y", sorted(WEAK_Y | {FIELD, FIELD + 1}))
def test_a_key_that_anybody_can_sign_with_is_refused(y: int) -> None:
    """The points of small order, and the second forms of them, are no keys."""
    for sign in (0, 1 << 255):
        point = (y | sign).to_bytes(32, "little")
        with pytest.raises(SignatureError, match="anybody"):
            public_key_of_blob(wire_text(PLAIN.encode()) + wire_text(point))


@pytest.mark.quick
@pytest.mark.parametrize("scheme", SCHEMES)
def test_bytes_beside_a_signature_are_refused(key: signatures.SigningKey, scheme: str) -> None:
    """No scheme of today has a use for them."""
    signature = key.sign(scheme, sealing.APPROVAL, BODY)
    with pytest.raises(SignatureError, match="beside"):
        signatures.verify(
            key.public, scheme=scheme, signature=signature, media_type=sealing.APPROVAL, body=BODY, extra=b"x"
        )


@pytest.mark.quick
def test_the_table_says_which_keys_sign_in_which_scheme(key: signatures.SigningKey) -> None:
    """A security key can not make bare signatures, so that none is ever looked for."""
    hardware = SecurityKey.new()
    assert [(scheme, signatures.fits(scheme, key.public)) for scheme in SCHEMES] == [(ED25519, True), (SSHSIG, True)]
    assert [(scheme, signatures.fits(scheme, hardware.public)) for scheme in SCHEMES] == [
        (ED25519, False),
        (SSHSIG, True),
    ]
    assert not signatures.fits("webauthn", hardware.public)
    bare = hardware.private.sign(signatures.to_be_signed(ED25519, key.public, sealing.APPROVAL, BODY))
    with pytest.raises(SignatureError, match="can not sign in the scheme ed25519"):
        signatures.verify(
            hardware.public, scheme=ED25519, signature=bare, media_type=sealing.APPROVAL, body=BODY, extra=b""
        )
    with pytest.raises(SignatureError, match="can not sign in the scheme ed25519"):
        signatures.verify_raw(hardware.public, hardware.private.sign(b"note"), b"note")


@pytest.mark.quick
def test_bare_signatures_are_over_the_bytes_as_they_are(key: signatures.SigningKey) -> None:
    """Signed notes keep their own form; a note's signature is none over a sealed document."""
    raw = key.sign_raw(b"note")
    signatures.verify_raw(key.public, raw, b"note")
    for public, signature, message in (
        (key.public, raw, b"nota"),
        (signatures.new_signing_key().public, raw, b"note"),
        (key.public, raw[:-1], b"note"),
        (key.public, key.sign(ED25519, sealing.APPROVAL, b"note"), b"note"),
    ):
        with pytest.raises(SignatureError):
            signatures.verify_raw(public, signature, message)


@pytest.mark.quick
def test_a_media_type_that_is_no_text_is_refused(key: signatures.SigningKey) -> None:
    """Half a surrogate pair can not be signed, and says so like anything else that does not hold."""
    with pytest.raises(SignatureError, match="media type"):
        check(key, ED25519, b"", "\ud800")


@pytest.mark.quick
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_signature_has_no_second_form(key: signatures.SigningKey, scheme: str) -> None:
    """Adding the group's order to its second half, which the bare equation would let pass, is refused."""
    order = 2**252 + 27742317777372353535851937790883648493
    signature = key.sign(scheme, sealing.APPROVAL, BODY)
    second = int.from_bytes(signature[-32:], "little") + order
    with pytest.raises(SignatureError, match="not one by"):
        check(key, scheme, signature[:-32] + second.to_bytes(32, "little"))
