"""Another implementation of DSSE reads our plain signatures, and we read its."""

import base64

import pytest
from securesystemslib import signer
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError

from gonogo import sealing, signatures
from gonogo.signatures import ED25519, SignatureError

BODIES = [b"", b"{}", b'{"approval_id":"a-1"}', bytes(range(256)), "ünï".encode() * 1000]


def theirs(key: signatures.SigningKey) -> signer.CryptoSigner:  # type: ignore[name-defined]  # re-exported without saying so
    """Return the other implementation's signer for the same key."""
    return signer.CryptoSigner(key.key, signer.SSlibKey.from_crypto(key.public.key))  # type: ignore[attr-defined]  # as above


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize("body", BODIES)
def test_the_other_implementation_verifies_our_signatures(body: bytes) -> None:
    """An envelope with our signature passes there, and one over another media type does not."""
    key = signatures.new_signing_key()
    public = theirs(key).public_key
    record = {"keyid": public.keyid, "sig": base64_of(key.sign(ED25519, sealing.APPROVAL, body))}
    document = {"payload": base64_of(body), "payloadType": sealing.APPROVAL, "signatures": [record]}
    envelope = Envelope.from_dict(document)
    assert list(envelope.verify([public], 1)) == [public.keyid]
    envelope.payload_type = sealing.REPORT
    with pytest.raises(VerificationError):
        envelope.verify([public], 1)


@pytest.mark.parametrize("body", BODIES)
def test_we_verify_the_other_implementations_signatures(body: bytes) -> None:
    """Its signature is, byte for byte, ours."""
    key = signatures.new_signing_key()
    envelope = Envelope(body, sealing.APPROVAL, {})
    signature = bytes.fromhex(envelope.sign(theirs(key)).signature)
    signatures.verify(
        key.public, scheme=ED25519, signature=signature, media_type=sealing.APPROVAL, body=body, extra=b""
    )
    assert signature == key.sign(ED25519, sealing.APPROVAL, body)
    with pytest.raises(SignatureError):
        signatures.verify(
            key.public, scheme=ED25519, signature=signature, media_type=sealing.REPORT, body=body, extra=b""
        )
