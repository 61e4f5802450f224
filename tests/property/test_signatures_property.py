"""Properties of the verifier: one way to pass, and one kind of error for everything else."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gonogo import sealing, signatures
from gonogo.signatures import ED25519, SCHEMES, SSHSIG, PublicKey, SignatureError
from gonogo.ssh_keys import public_key_of_blob
from tests.fakes.security_key import SecurityKey

PLAIN = signatures.new_signing_key()
DEVICE = SecurityKey.new()
BODIES = st.binary(max_size=200)


def sign_bare(body: bytes) -> bytes:
    return PLAIN.sign(ED25519, sealing.APPROVAL, body)


def sign_ssh(body: bytes) -> bytes:
    return PLAIN.sign(SSHSIG, sealing.APPROVAL, body)


def sign_touched(body: bytes) -> bytes:
    return DEVICE.sign(sealing.APPROVAL, body)


WAYS = [(ED25519, PLAIN.public, sign_bare), (SSHSIG, PLAIN.public, sign_ssh), (SSHSIG, DEVICE.public, sign_touched)]
Way = tuple[str, PublicKey, Callable[[bytes], bytes]]
every_way = pytest.mark.parametrize("way", WAYS, ids=["ed25519", "sshsig", "sshsig with a security key"])


def flipped(data: bytes, bit: int) -> bytes:
    at = bit % (8 * len(data))
    return data[: at // 8] + bytes([data[at // 8] ^ (1 << at % 8)]) + data[at // 8 + 1 :]


def holds(public: PublicKey, scheme: str, signature: bytes, media_type: str, body: bytes) -> bool:
    """Ask the verifier; whatever it raises but its own error ends the test."""
    try:
        signatures.verify(public, scheme=scheme, signature=signature, media_type=media_type, body=body, extra=b"")
    except SignatureError:
        return False
    return True


@every_way
@given(body=BODIES.filter(bool), bit=st.integers(min_value=0))
def test_a_flipped_bit_of_the_document_is_refused(way: Way, body: bytes, bit: int) -> None:
    """The signature is over every bit of the body and of the media type."""
    scheme, public, sign = way
    signature = sign(body)
    assert holds(public, scheme, signature, sealing.APPROVAL, body)
    assert not holds(public, scheme, signature, sealing.APPROVAL, flipped(body, bit))
    other = flipped(sealing.APPROVAL.encode(), bit).decode("latin-1")
    assert not holds(public, scheme, signature, other, body)


@every_way
def test_every_flipped_bit_of_a_signature_is_refused(way: Way) -> None:
    """No bit of it is without meaning, those of the flags and of the counter included."""
    scheme, public, sign = way
    signature = sign(b"{}")
    passed = [
        n for n in range(8 * len(signature)) if holds(public, scheme, flipped(signature, n), sealing.APPROVAL, b"{}")
    ]
    assert passed == []


@every_way
def test_every_flipped_bit_of_a_key_is_refused(way: Way) -> None:
    """A key that differs in one bit is no key, or another one."""
    scheme, public, sign = way
    signature = sign(b"{}")
    others = []
    for bit in range(8 * len(public.blob)):
        try:
            others.append(public_key_of_blob(flipped(public.blob, bit)))
        except SignatureError:
            continue
    assert others
    assert not any(holds(other, scheme, signature, sealing.APPROVAL, b"{}") for other in others)
    assert public.key_id not in {other.key_id for other in others}


@every_way
@given(data=st.data())
def test_a_piece_taken_out_put_in_or_doubled_is_refused(way: Way, data: st.DataObject) -> None:
    """Lengths, trailing bytes and missing ones: only the one form passes."""
    scheme, public, sign = way
    signature = sign(b"{}")
    start = data.draw(st.integers(0, len(signature)))
    end = data.draw(st.integers(start, len(signature)))
    changed = signature[:start] + data.draw(st.binary(max_size=12)) + signature[end:]
    assert holds(public, scheme, changed, sealing.APPROVAL, b"{}") == (changed == signature)


@given(
    scheme=st.sampled_from([*SCHEMES, "webauthn", ""]) | st.text(max_size=8),
    signature=st.binary(max_size=300),
    media_type=st.text(alphabet=st.characters(), max_size=20),
    body=BODIES,
    extra=st.binary(max_size=2),
)
def test_nothing_but_a_signature_error_comes_out(
    scheme: str, signature: bytes, media_type: str, body: bytes, extra: bytes
) -> None:
    """Whatever is handed in, no other kind of error escapes, and nothing made up passes."""
    for public in (PLAIN.public, DEVICE.public):
        with pytest.raises(SignatureError):
            signatures.verify(public, scheme=scheme, signature=signature, media_type=media_type, body=body, extra=extra)


@given(line=st.text(max_size=200) | st.binary(max_size=120).map(lambda data: "ssh-ed25519 " + data.hex()))
def test_a_line_that_is_no_key_is_one_kind_of_error(line: str) -> None:
    """Made-up lines are refused in the same way."""
    with pytest.raises(SignatureError):
        signatures.load_public_key(line)


@given(start=st.integers(0, 100), end=st.integers(0, 100), put=st.binary(max_size=8))
def test_a_key_has_one_form(start: int, end: int, put: bytes) -> None:
    """What reads as a key is written back as the very same bytes."""
    blob = DEVICE.public.blob
    changed = blob[:start] + put + blob[max(start, end) :]
    try:
        public = public_key_of_blob(changed)
    except SignatureError:
        return
    assert public.blob == changed
    assert signatures.load_public_key(public.line) == public
