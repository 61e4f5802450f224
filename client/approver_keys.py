"""Which key an approver means with ``--key FILE``, and where it signs.

======================  ================================================================================================
FILE                    who signs
======================  ================================================================================================
an Ed25519 private key  this process; with a passphrase, the agent where it holds the key, else the passphrase is asked
a security key's file   the agent where it holds the key, else ``ssh-keygen``, which talks to the device
a public key (.pub)     the agent
======================  ================================================================================================
"""

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from client.errors import KeyFileError
from client.signing import ApproverKey, parse_public_key, parse_signing_key, read_key_file
from client.ssh_agent import AgentKey, key_in_agent
from client.ssh_keygen import KeygenKey
from gonogo.signatures import PublicKey, SignatureError
from gonogo.ssh_keys import WireReader, public_key_of_blob

PRIVATE: Final = b"-----BEGIN "
ARMOUR: Final = re.compile(
    rb"\s*-----BEGIN OPENSSH PRIVATE KEY-----\s(.{1,65536}?)-----END OPENSSH PRIVATE KEY-----\s*", re.DOTALL
)
MAGIC: Final = b"openssh-key-v1\0"
UNENCRYPTED: Final = b"none"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateKeyFile:
    """What a private key file says in the clear, even with a passphrase."""

    public: PublicKey
    encrypted: bool


def find_key(path: Path, ask: Callable[[str], str] | None = None) -> ApproverKey:
    """Return the key that a file means.

    Raises:
        KeyFileError: the file is missing, of no kind that is known, or nobody at hand can sign with it.
        TerminalNeededError: a passphrase is needed and there is no terminal.
    """
    data = read_key_file(path)
    if not data.lstrip().startswith(PRIVATE):
        return key_in_agent(parse_public_key(path, data))
    head = _head(data)
    if head is not None and (head.public.hardware or head.encrypted):
        held = _in_agent(head.public)
        if held is not None:
            return held
        if head.public.hardware:
            return KeygenKey(public=head.public, path=path)
    return parse_signing_key(path, data, ask)


def read_head(data: bytes) -> PrivateKeyFile:
    """Read what stands in the clear in an OpenSSH private key file.

    Raises:
        SignatureError: not such a file, or not one key of a type that is known.
    """
    found = ARMOUR.fullmatch(data)
    if found is None:
        raise SignatureError("not an OpenSSH private key file")
    try:
        body = base64.b64decode(b"".join(found[1].split()), validate=True)
    except binascii.Error:
        raise SignatureError("the private key file is not base64") from None
    reader = WireReader(body)
    if reader.take(len(MAGIC)) != MAGIC:
        raise SignatureError("not an OpenSSH private key file")
    cipher, _derivation, _options = reader.text(), reader.text(), reader.text()
    if reader.number() != 1:
        raise SignatureError("the private key file does not hold one key")
    return PrivateKeyFile(public=public_key_of_blob(reader.text()), encrypted=cipher != UNENCRYPTED)


def _head(data: bytes) -> PrivateKeyFile | None:
    """Return the head, or None where the reader of private keys says better what is wrong with the file."""
    try:
        return read_head(data)
    except SignatureError:
        return None


def _in_agent(public: PublicKey) -> AgentKey | None:
    """Return the key if an agent holds it; none that can be asked is no fault where there is another way."""
    try:
        return key_in_agent(public)
    except KeyFileError:
        return None
