"""A security key in software: signs as OpenSSH's sk keys do, with whatever flags a test wants."""

import hashlib
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gonogo.digests import pre_authentication_encoding
from gonogo.signatures import PublicKey
from gonogo.ssh_keys import SECURITY_KEY, public_key_of_blob, wire_text
from gonogo.sshsig import DEFAULT_HASH, join, signed_data, ssh_signature

TOUCHED = 0x01
APPLICATION = b"ssh:"
PROVIDER_SOURCE = Path(__file__).with_name("security_key.c")


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityKey:
    """A key that a person would carry in the pocket."""

    private: Ed25519PrivateKey
    public: PublicKey

    @classmethod
    def new(cls, application: bytes = APPLICATION) -> "SecurityKey":
        """Make a new one."""
        private = Ed25519PrivateKey.generate()
        blob = sk_blob(private.public_key().public_bytes_raw(), application)
        return cls(private=private, public=public_key_of_blob(blob))

    def ssh_signature(self, data: bytes, *, flags: int = TOUCHED, counter: int = 7) -> bytes:
        """Sign as the device and ssh-agent do, in SSH's own form."""
        touch = bytes([flags]) + counter.to_bytes(4, "big")
        application = hashlib.sha256(self.public.application).digest()
        raw = self.private.sign(application + touch + hashlib.sha256(data).digest())
        return ssh_signature(self.public, raw, touch)

    def sign(
        self, media_type: str, body: bytes, *, flags: int = TOUCHED, counter: int = 7, hash_name: str = DEFAULT_HASH
    ) -> bytes:
        """Sign a sealed document in the scheme sshsig."""
        data = signed_data(pre_authentication_encoding(media_type, body), hash_name)
        return join(self.public, self.ssh_signature(data, flags=flags, counter=counter), hash_name)


def sk_blob(point: bytes, application: bytes) -> bytes:
    """Return a security key's public half in SSH's wire format."""
    return wire_text(SECURITY_KEY.encode()) + wire_text(point) + wire_text(application)


def build_provider(folder: Path) -> Path | None:
    """Compile the same for OpenSSH's own programs; None where there is no compiler or no header."""
    made = folder / "security_key.so"
    if shutil.which("cc") is None:
        return None
    argv = ["cc", "-shared", "-fPIC", "-o", str(made), str(PROVIDER_SOURCE), "-lcrypto"]
    return made if subprocess.run(argv, capture_output=True, check=False).returncode == 0 else None
