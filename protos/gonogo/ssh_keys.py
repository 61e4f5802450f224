"""Public keys in OpenSSH's form, read strictly: plain Ed25519 keys, and Ed25519 keys that live in a security key.

Formats: RFC 4251 section 5 (the wire), RFC 8709 (ssh-ed25519), and OpenSSH's PROTOCOL.u2f
(sk-ssh-ed25519@openssh.com: the point, then the application that the security key binds its signatures to).
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

PLAIN = "ssh-ed25519"
SECURITY_KEY = "sk-ssh-ed25519@openssh.com"
KEY_TYPES = (PLAIN, SECURITY_KEY)

POINT_LENGTH = 32
MAX_LINE = 8 * 1024
MAX_APPLICATION = 256

FIELD = 2**255 - 19
SIGN_BIT = 1 << 255
# A key on one of these points has at most eight values, so that signatures exist which hold for any message: whoever
# lists such a key has proven nothing. The last two are the points of order eight.
WEAK_Y = frozenset(
    {
        0,
        1,
        FIELD - 1,
        2707385501144840649318225287225658788936804267575313519463743609750303402022,
        55188659117513257062467267217118295137698188065244968500265048394206261417927,
    }
)


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
    key_type: str = PLAIN
    """One of `KEY_TYPES`."""
    application: bytes = b""
    """What a security key binds its signatures to; empty for a plain key."""

    @property
    def line(self) -> str:
        """The key in OpenSSH's one-line form, without a comment."""
        return f"{self.key_type} {base64.b64encode(self.blob).decode()}"

    @property
    def hardware(self) -> bool:
        """Tell whether the private half lives in a security key."""
        return self.key_type == SECURITY_KEY


class WireReader:
    """Reads SSH's wire format from the front; whoever is done says so with `end`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        """Read so many bytes.

        Raises:
            SignatureError: there are not as many.
        """
        piece = self._data[self._at : self._at + count]
        if len(piece) != count:
            raise SignatureError("the data ends too early")
        self._at += count
        return piece

    def byte(self) -> int:
        """Read one byte."""
        return self.take(1)[0]

    def number(self) -> int:
        """Read 32 bits."""
        return int.from_bytes(self.take(4), "big")

    def text(self) -> bytes:
        """Read a string, which its length comes before."""
        return self.take(self.number())

    def end(self) -> None:
        """Check that nothing is left.

        Raises:
            SignatureError: something is.
        """
        if self._at != len(self._data):
            raise SignatureError("more data follows than belongs there")


def wire_text(data: bytes) -> bytes:
    """Return a string in SSH's wire format."""
    return len(data).to_bytes(4, "big") + data


def load_public_key(line: str) -> PublicKey:
    """Read a public key in OpenSSH's one-line form.

    Raises:
        SignatureError: not such a line, not a key type of `KEY_TYPES`, or a point that can prove nothing.
    """
    words = line.strip(" \t\r\n").split(None, 2) if len(line) <= MAX_LINE else []
    if len(words) < 2 or not line.strip(" \t\r\n").replace("\t", " ").isprintable():  # noqa: PLR2004 - type and key
        raise SignatureError("the public key can not be read: it is not one line of OpenSSH's form")
    named, encoded = words[0], words[1]
    if named not in KEY_TYPES:
        raise _unknown_type(named)
    public = public_key_of_blob(_strict_base64(encoded))
    if public.key_type != named:
        raise SignatureError(f"the public key says {named}, and is {public.key_type}")
    return public


def public_key_of_blob(blob: bytes) -> PublicKey:
    """Read a public key in SSH's wire format.

    Raises:
        SignatureError: not such a key, or a point that can prove nothing.
    """
    reader = WireReader(blob)
    key_type = reader.text().decode("ascii", "replace")
    if key_type not in KEY_TYPES:
        raise _unknown_type(key_type)
    point = _checked_point(reader.text())
    application = _checked_application(reader.text()) if key_type == SECURITY_KEY else b""
    reader.end()
    return _public_key(point, blob, key_type, application)


def public_key_of(key: Ed25519PublicKey) -> PublicKey:
    """Return a plain key in the form that is used here."""
    point = key.public_bytes_raw()
    return _public_key(point, wire_text(PLAIN.encode()) + wire_text(point), PLAIN, b"")


def check_point(public: PublicKey, raw: bytes, message: bytes) -> None:
    """Check a bare Ed25519 signature.

    Raises:
        SignatureError: it is not one by that key over that message.
    """
    try:
        public.key.verify(raw, message)
    except InvalidSignature:
        raise SignatureError(f"the signature is not one by {public.key_id} over this document") from None


def _public_key(point: bytes, blob: bytes, key_type: str, application: bytes) -> PublicKey:
    fingerprint = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return PublicKey(Ed25519PublicKey.from_public_bytes(point), blob, f"SHA256:{fingerprint}", key_type, application)


def _unknown_type(key_type: str) -> SignatureError:
    known = " and ".join(KEY_TYPES)
    return SignatureError(f"the public key is not an Ed25519 key: it is {key_type[:64]!r}, and known are {known}")


def _strict_base64(text: str) -> bytes:
    """Decode base64 of which no two forms say the same."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise SignatureError("the public key can not be read: it is not base64") from None
    if base64.b64encode(data).decode() != text:
        raise SignatureError("the public key can not be read: its base64 is not in the usual form")
    return data


def _checked_point(point: bytes) -> bytes:
    if len(point) != POINT_LENGTH:
        raise SignatureError(f"the public key holds {len(point)} bytes instead of {POINT_LENGTH}")
    y = int.from_bytes(point, "little") & ~SIGN_BIT
    if y >= FIELD or y in WEAK_Y:
        raise SignatureError("the public key is a point for which anybody can make signatures, or no proper point")
    return point


def _checked_application(application: bytes) -> bytes:
    """Take what ssh-keygen makes and nothing else: a key that a web site enrolled is none that signs approvals."""
    if not application.startswith(b"ssh:") or len(application) > MAX_APPLICATION or not application.isascii():
        raise SignatureError("the security key's application does not begin with ssh:")
    return application
