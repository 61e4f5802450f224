"""Signatures over sealed documents: Ed25519 and OpenSSH's SSHSIG, made with the same keys over the same bytes.

Both schemes sign the DSSE pre-authentication encoding of (media type, body), so that a signature over one kind of
document is never one over another kind. SSHSIG adds its own namespace, which is fixed here: a signature that the same
key made over a Git commit or a file does not pass.

Format: https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.sshsig
"""

import base64
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
    load_ssh_public_key,
)

from gonogo.digests import pre_authentication_encoding

ED25519 = "ed25519"
SSHSIG = "sshsig"
SCHEMES = (ED25519, SSHSIG)
NAMESPACE = b"gonogo-approval"

MAGIC = b"SSHSIG"
KEY_TYPE = b"ssh-ed25519"
HASH = b"sha512"
RAW_LENGTH = 64


class SignatureError(ValueError):
    """The signature does not prove what it claims, or the key can not be used."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 public key."""

    key: Ed25519PublicKey
    blob: bytes
    """The key in SSH's wire format."""
    key_id: str
    """``SHA256:`` and the base64 fingerprint, as OpenSSH prints it."""

    @property
    def line(self) -> str:
        """The key in OpenSSH's one-line form, without a comment."""
        return f"{KEY_TYPE.decode()} {base64.b64encode(self.blob).decode()}"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An Ed25519 private key."""

    key: Ed25519PrivateKey
    public: PublicKey

    def sign(self, scheme: str, media_type: str, body: bytes) -> bytes:
        """Sign a sealed document.

        Raises:
            SignatureError: the scheme is not known.
        """
        message = pre_authentication_encoding(media_type, body)
        if scheme == ED25519:
            return self.key.sign(message)
        if scheme == SSHSIG:
            return _sshsig_blob(self.public.blob, self.key.sign(_sshsig_data(message)))
        text = f"unknown signature scheme {scheme!r}"
        raise SignatureError(text)

    def private_bytes(self) -> bytes:
        """Return the key as an unencrypted OpenSSH private key file."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def new_signing_key() -> SigningKey:
    """Make a new key."""
    return _signing_key(Ed25519PrivateKey.generate())


def load_signing_key(data: bytes, passphrase: bytes | None = None) -> SigningKey:
    """Read an OpenSSH private key file.

    Raises:
        SignatureError: not such a file, not Ed25519, or the passphrase is missing or wrong.
    """
    try:
        key = load_ssh_private_key(data, passphrase)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        text = f"the private key can not be read: {error}"
        raise SignatureError(text) from None
    if not isinstance(key, Ed25519PrivateKey):
        text = "the private key is not an Ed25519 key"
        raise SignatureError(text)
    return _signing_key(key)


def load_public_key(line: str) -> PublicKey:
    """Read a public key in OpenSSH's one-line form.

    Raises:
        SignatureError: not such a line, or not Ed25519.
    """
    try:
        key = load_ssh_public_key(line.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        text = f"the public key can not be read: {error}"
        raise SignatureError(text) from None
    if not isinstance(key, Ed25519PublicKey):
        text = "the public key is not an Ed25519 key"
        raise SignatureError(text)
    return _public_key(key)


def verify(public: PublicKey, *, scheme: str, signature: bytes, media_type: str, body: bytes) -> None:
    """Check one signature over a sealed document.

    Raises:
        SignatureError: anything but a good signature by that key in that scheme.
    """
    message = pre_authentication_encoding(media_type, body)
    if scheme == ED25519:
        raw = signature
    elif scheme == SSHSIG:
        raw = _sshsig_raw(public.blob, signature)
        message = _sshsig_data(message)
    else:
        text = f"unknown signature scheme {scheme!r}"
        raise SignatureError(text)
    try:
        public.key.verify(raw, message)
    except InvalidSignature:
        text = f"the signature is not one by {public.key_id} over this document"
        raise SignatureError(text) from None


def _signing_key(key: Ed25519PrivateKey) -> SigningKey:
    return SigningKey(key, _public_key(key.public_key()))


def _public_key(key: Ed25519PublicKey) -> PublicKey:
    blob = _text(KEY_TYPE) + _text(key.public_bytes(Encoding.Raw, PublicFormat.Raw))
    print_ = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return PublicKey(key, blob, f"SHA256:{print_}")


def _sshsig_data(message: bytes) -> bytes:
    return MAGIC + _text(NAMESPACE) + _text(b"") + _text(HASH) + _text(hashlib.sha512(message).digest())


def _sshsig_head(key_blob: bytes) -> bytes:
    return MAGIC + (1).to_bytes(4, "big") + _text(key_blob) + _text(NAMESPACE) + _text(b"") + _text(HASH)


def _sshsig_blob(key_blob: bytes, raw: bytes) -> bytes:
    return _sshsig_head(key_blob) + _text(_text(KEY_TYPE) + _text(raw))


def _sshsig_raw(key_blob: bytes, blob: bytes) -> bytes:
    """Take the raw signature out of an SSHSIG blob.

    Only one blob can stand for a given raw signature (this key, our namespace, SHA-512), so that building it again and
    comparing is the whole parser.
    """
    raw = blob[-RAW_LENGTH:]
    if len(raw) != RAW_LENGTH or blob != _sshsig_blob(key_blob, raw):
        text = "not an SSHSIG signature of this key in the namespace gonogo-approval"
        raise SignatureError(text)
    return raw


def _text(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data
