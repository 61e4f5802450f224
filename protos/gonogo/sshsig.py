"""OpenSSH's SSHSIG: what is signed, and the blob that carries the signature.

A blob is only taken where it is one that ``ssh-keygen -Y sign -n gonogo-approval`` can make with the key at hand. The
list is closed:

====================  =======================================================================================
version, reserved     1, empty
namespace             ``gonogo-approval``; a signature over a Git commit or a file has another one
hash                  ``sha512`` (OpenSSH's default) or ``sha256`` (``-O hashalg=sha256``)
public key            the very key that is being checked against
signature             ``ssh-ed25519``: 64 bytes. ``sk-ssh-ed25519@openssh.com``: 64 bytes, flags, counter
flags                 user present (touch), with or without user verified (PIN, finger); nothing else
====================  =======================================================================================

Why the flags are a closed list too: without *user present* whoever controls the approver's machine could sign while the
key is plugged in (OpenSSH itself lets that pass). *Extension data* and *attested data* announce bytes that are not part
of what SSH signs. *Backup eligible* and *backed up* say that the private half can leave the device, and then it is no
hardware key in the policy's sense. WebAuthn's signature types (``webauthn-sk-…``) are none of this scheme.

The counter is signed and carried, and not compared with earlier ones: what makes an approval count once is the
executor's ledger, and many security keys keep no counter.

Formats: OpenSSH's PROTOCOL.sshsig and PROTOCOL.u2f.
"""

import hashlib
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from gonogo.ssh_keys import PublicKey, SignatureError, WireReader, check_point, wire_text

NAMESPACE: Final = b"gonogo-approval"
MAGIC: Final = b"SSHSIG"
VERSION: Final = 1
DEFAULT_HASH: Final = "sha512"
HASHES: Final[Mapping[str, Callable[[bytes], bytes]]] = MappingProxyType(
    {
        "sha512": lambda message: hashlib.sha512(message).digest(),
        "sha256": lambda message: hashlib.sha256(message).digest(),
    }
)

RAW_LENGTH: Final = 64
USER_PRESENT: Final = 0x01
USER_VERIFIED: Final = 0x04
FLAGS: Final = frozenset({USER_PRESENT, USER_PRESENT | USER_VERIFIED})
# One byte of flags and four of the counter follow a security key's signature.
TOUCH_LENGTH: Final = 5


def signed_data(message: bytes, hash_name: str = DEFAULT_HASH) -> bytes:
    """Return what a key is asked to sign, so that the message is signed in the fixed namespace."""
    digest = HASHES[hash_name](message)
    return MAGIC + wire_text(NAMESPACE) + wire_text(b"") + wire_text(hash_name.encode()) + wire_text(digest)


def join(public: PublicKey, signature: bytes, hash_name: str = DEFAULT_HASH) -> bytes:
    """Return the blob for a signature that is in SSH's own form (its type, its bytes)."""
    return (
        MAGIC
        + VERSION.to_bytes(4, "big")
        + wire_text(public.blob)
        + wire_text(NAMESPACE)
        + wire_text(b"")
        + wire_text(hash_name.encode())
        + wire_text(signature)
    )


def check(public: PublicKey, blob: bytes, message: bytes) -> None:
    """Check a blob.

    Raises:
        SignatureError: it is not a good signature by that key over that message in our namespace, or nobody touched
            the security key.
    """
    raw, touch, hash_name = _split(public, blob)
    data = signed_data(message, hash_name)
    if public.hardware:
        _check_flags(touch[0])
        data = hashlib.sha256(public.application).digest() + touch + hashlib.sha256(data).digest()
    check_point(public, raw, data)


def ssh_signature(public: PublicKey, raw: bytes, touch: bytes = b"") -> bytes:
    """Return a signature in SSH's own form: the type, the bytes, and a security key's flags and counter."""
    return wire_text(public.key_type.encode()) + wire_text(raw) + touch


def raw_of(public: PublicKey, signature: bytes) -> bytes:
    """Take a plain key's 64 bytes out of SSH's own form.

    Raises:
        SignatureError: it is not of the key's type, or not of that length.
    """
    reader = WireReader(signature)
    key_type, raw = reader.text(), reader.text()
    reader.end()
    if public.hardware or key_type != public.key_type.encode() or len(raw) != RAW_LENGTH:
        raise SignatureError(f"not a plain {public.key_type} signature")
    return raw


def _split(public: PublicKey, blob: bytes) -> tuple[bytes, bytes, str]:
    """Take a blob apart into the raw signature, a security key's flags and counter, and the hash.

    For each hash only one blob can stand for given last bytes, so that building it again and comparing is the whole
    parser: nothing is left that two readers could read differently.
    """
    end = len(blob) - (TOUCH_LENGTH if public.hardware else 0)
    raw, touch = blob[max(end - RAW_LENGTH, 0) : max(end, 0)], blob[max(end, 0) :]
    signature = ssh_signature(public, raw, touch)
    for hash_name in HASHES:
        if len(raw) == RAW_LENGTH and blob == join(public, signature, hash_name):
            return raw, touch, hash_name
    raise SignatureError("not an SSHSIG signature of this key in the namespace gonogo-approval")


def _check_flags(flags: int) -> None:
    if not flags & USER_PRESENT:
        raise SignatureError("nobody touched the security key: its signature was made without a person being there")
    if flags not in FLAGS:
        raise SignatureError(f"the security key's flags are {flags:#04x}; a touch, with or without a PIN, is accepted")
