"""Signatures over sealed documents: one verifier, and a closed table of the schemes that it knows.

Every scheme signs the DSSE pre-authentication encoding of (media type, body), so that a signature over one kind of
document is never one over another kind. A scheme that is not in the table, a key type that the scheme does not name and
`extra` bytes that the scheme has no use for are refused; a new scheme is a new row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_ssh_private_key

from gonogo import sshsig
from gonogo.digests import pre_authentication_encoding
from gonogo.ssh_keys import (
    KEY_TYPES,
    PLAIN,
    SECURITY_KEY,
    PublicKey,
    SignatureError,
    check_point,
    load_public_key,
    public_key_of,
)
from gonogo.sshsig import NAMESPACE

__all__ = [
    "ED25519",
    "KEY_TYPES",
    "NAMESPACE",
    "SCHEMES",
    "SSHSIG",
    "PublicKey",
    "SignatureError",
    "SigningKey",
    "fits",
    "from_ssh_signature",
    "load_public_key",
    "load_signing_key",
    "new_signing_key",
    "to_be_signed",
    "verify",
    "verify_raw",
]

ED25519 = "ed25519"
SSHSIG = "sshsig"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How one scheme signs and checks."""

    key_types: frozenset[str]
    max_extra: int
    """How many bytes a signature may carry beside itself."""
    to_be_signed: Callable[[bytes], bytes]
    """From the message to what the key signs."""
    from_ssh_signature: Callable[[PublicKey, bytes], bytes]
    """From the key's answer, in SSH's own form, to the signature's bytes."""
    check: Callable[[PublicKey, bytes, bytes], None]
    """Checks (key, signature, message)."""


TABLE: Final[Mapping[str, Scheme]] = MappingProxyType(
    {
        ED25519: Scheme(
            key_types=frozenset({PLAIN}),
            max_extra=0,
            to_be_signed=lambda message: message,
            from_ssh_signature=sshsig.raw_of,
            check=check_point,
        ),
        SSHSIG: Scheme(
            key_types=frozenset({PLAIN, SECURITY_KEY}),
            max_extra=0,
            to_be_signed=sshsig.signed_data,
            from_ssh_signature=sshsig.join,
            check=sshsig.check,
        ),
    }
)
SCHEMES = tuple(TABLE)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A plain Ed25519 private key."""

    key: Ed25519PrivateKey
    public: PublicKey

    def sign(self, scheme: str, media_type: str, body: bytes) -> bytes:
        """Sign a sealed document.

        Raises:
            SignatureError: the scheme is not known.
        """
        raw = self.key.sign(to_be_signed(scheme, self.public, media_type, body))
        return from_ssh_signature(scheme, self.public, sshsig.ssh_signature(self.public, raw))

    def sign_raw(self, message: bytes) -> bytes:
        """Sign bytes as they are, for formats that keep their own signatures apart, such as signed notes.

        Never for a sealed document: nothing here says what kind of bytes they are.
        """
        return self.key.sign(message)

    def private_bytes(self) -> bytes:
        """Return the key as an unencrypted OpenSSH private key file."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def new_signing_key() -> SigningKey:
    """Make a new key."""
    return _signing_key(Ed25519PrivateKey.generate())


def load_signing_key(data: bytes, passphrase: bytes | None = None) -> SigningKey:
    """Read an OpenSSH private key file.

    Raises:
        SignatureError: not such a file, not plain Ed25519, or the passphrase is missing or wrong.
    """
    try:
        key = load_ssh_private_key(data, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SignatureError(f"the private key can not be read: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError("the private key is not an Ed25519 key")
    return _signing_key(key)


def fits(scheme: str, public: PublicKey) -> bool:
    """Tell whether a key of this type can sign in a scheme; false for a scheme that is not known."""
    row = TABLE.get(scheme)
    return row is not None and public.key_type in row.key_types


def to_be_signed(scheme: str, public: PublicKey, media_type: str, body: bytes) -> bytes:
    """Return what a key must sign, for keys that are somewhere else, such as in an agent.

    Raises:
        SignatureError: the scheme is not known, or the key can not sign in it.
    """
    return _row(scheme, public).to_be_signed(_message(media_type, body))


def from_ssh_signature(scheme: str, public: PublicKey, signature: bytes) -> bytes:
    """Return a document's signature from what the key answered, in SSH's own form.

    Raises:
        SignatureError: the scheme is not known, or the answer is not of the key's type.
    """
    return _row(scheme, public).from_ssh_signature(public, signature)


def verify(public: PublicKey, *, scheme: str, signature: bytes, media_type: str, body: bytes, extra: bytes) -> None:
    """Check one signature over a sealed document.

    Raises:
        SignatureError: anything but a good signature by that key in that scheme.
    """
    row = _row(scheme, public)
    if len(extra) > row.max_extra:
        raise SignatureError(f"a signature of scheme {scheme} carries {len(extra)} bytes too many beside it")
    row.check(public, signature, _message(media_type, body))


def verify_raw(public: PublicKey, signature: bytes, message: bytes) -> None:
    """Check a plain key's signature over bytes as they are (see `SigningKey.sign_raw`).

    Raises:
        SignatureError: the key lives in a security key, or the signature is not good.
    """
    _row(ED25519, public)
    check_point(public, signature, message)


def _row(scheme: str, public: PublicKey) -> Scheme:
    row = TABLE.get(scheme)
    if row is None:
        raise SignatureError(f"unknown signature scheme {scheme!r}")
    if public.key_type not in row.key_types:
        raise SignatureError(f"a key of type {public.key_type} can not sign in the scheme {scheme}")
    return row


def _message(media_type: str, body: bytes) -> bytes:
    try:
        return pre_authentication_encoding(media_type, body)
    except UnicodeEncodeError:
        raise SignatureError("the media type is no text that can be signed") from None


def _signing_key(key: Ed25519PrivateKey) -> SigningKey:
    return SigningKey(key, public_key_of(key.public_key()))
