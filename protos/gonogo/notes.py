"""Checkpoints: the size and the root of an audit log, signed by the log.

The text is C2SP's tlog-checkpoint (origin, size, root in base64, a line each), the signature C2SP's signed note:
standard tools and foreign witnesses read it. Reading is strict: one text stands for a checkpoint, without extension
lines, under exactly one signature line, whose name is the log's origin.

Formats: https://c2sp.org/tlog-checkpoint and https://c2sp.org/signed-note
"""

import base64
import binascii
import functools
import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gonogo.merkle import HASH_BYTES
from gonogo.signatures import PublicKey, SigningKey

MAX_NOTE_BYTES: Final = 2048
MAX_SIZE: Final = 2**63 - 1
EXECUTOR: Final = "executor"
ORCHESTRATOR: Final = "orchestrator"

_ALGORITHM: Final = b"\x01"  # Ed25519 in a signed note
_KEY_HASH_BYTES: Final = 4
_SIGNATURE_BYTES: Final = 64
_LEAD: Final = "— "
_LINES: Final = 5


class NoteError(ValueError):
    """The text is not a checkpoint of that log, signed by that key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a log said about itself."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """The text that is signed."""
        return checkpoint_text(self.origin, self.size, self.root)


def log_origin(service: str, service_id: str) -> str:
    """Return the name of a service's log: the first line of its checkpoints, and the name of its key."""
    return f"gonogo.local/{service}/{service_id}"


def checkpoint_text(origin: str, size: int, root: bytes) -> str:
    """Return the text of a checkpoint.

    Raises:
        NoteError: no checkpoint can say that.
    """
    if not _is_name(origin) or not 0 <= size <= MAX_SIZE or len(root) != HASH_BYTES:
        message = f"origin {origin!r}, size {size} and a root of {len(root)} bytes make no checkpoint"
        raise NoteError(message)
    return f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"


def sign_note(text: str, key: SigningKey, name: str) -> str:
    """Sign a checkpoint's text under a name and return the note."""
    signed = _key_hash(name, _raw(key.public)) + key.key.sign(text.encode())
    return f"{text}\n{_LEAD}{name} {base64.b64encode(signed).decode()}\n"


def open_note(note: str, public: PublicKey, name: str) -> Checkpoint:
    """Verify a note, then read the checkpoint that it carries.

    Raises:
        NoteError: it is not strictly one checkpoint of the log of that name, under that key's signature alone.
    """
    checkpoint, signed = _parsed(note, name)
    head, signature = signed[:_KEY_HASH_BYTES], signed[_KEY_HASH_BYTES:]
    raw = _raw(public)
    if head != _key_hash(name, raw):
        message = f"the checkpoint is not signed by the key of {name}"
        raise NoteError(message)
    try:
        Ed25519PublicKey.from_public_bytes(raw).verify(signature, checkpoint.text.encode())
    except InvalidSignature:
        message = f"the signature is not one by the key of {name} over this checkpoint"
        raise NoteError(message) from None
    return checkpoint


def unverified_checkpoint(note: str, name: str) -> Checkpoint:
    """Read a note whose signature was verified before: one that this side signed or checked, and kept.

    Raises:
        NoteError: it is not strictly one checkpoint of the log of that name.
    """
    return _parsed(note, name)[0]


def _parsed(note: str, name: str) -> tuple[Checkpoint, bytes]:
    lines = note.split("\n")
    if len(note) > MAX_NOTE_BYTES or len(lines) != _LINES + 1 or lines[3] or lines[5]:
        message = "not a checkpoint with one signature line"
        raise NoteError(message)
    origin, size, root, _, signature, _ = lines
    lead = f"{_LEAD}{name} "
    if origin != name or not signature.startswith(lead):
        message = f"not a checkpoint of the log {name}"
        raise NoteError(message)
    checkpoint = Checkpoint(origin=origin, size=_size(size), root=_bytes(root, HASH_BYTES))
    return checkpoint, _bytes(signature.removeprefix(lead), _KEY_HASH_BYTES + _SIGNATURE_BYTES)


def _size(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_SIZE)) else -1
    if str(number) != text or number > MAX_SIZE:
        message = f"{text[:30]!r} is not the size of a log"
        raise NoteError(message)
    return number


def _bytes(text: str, length: int) -> bytes:
    """Decode base64 of which no other text stands for the same bytes."""
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        value = b""
    if len(value) != length or base64.b64encode(value).decode() != text:
        message = f"{text[:100]!r} is not {length} bytes in base64"
        raise NoteError(message)
    return value


@functools.lru_cache(maxsize=64)
def _key_hash(name: str, raw: bytes) -> bytes:
    if not _is_name(name):
        message = f"{name!r} can not be the name of a log"
        raise NoteError(message)
    return hashlib.sha256(name.encode() + b"\n" + _ALGORITHM + raw).digest()[:_KEY_HASH_BYTES]


def _raw(public: PublicKey) -> bytes:
    return public.key.public_bytes(Encoding.Raw, PublicFormat.Raw)


@functools.lru_cache(maxsize=64)
def _is_name(text: str) -> bool:
    """Tell whether a text can be a log's name: no white space, nothing unprintable, no plus sign."""
    return bool(text) and text.isprintable() and "+" not in text and not any(char.isspace() for char in text)
