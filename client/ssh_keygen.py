"""Signing by OpenSSH's own command, for the file of a security key that no agent holds.

Such a file holds no private key, only a handle that the security key understands. ``ssh-keygen -Y sign`` talks to the
device, asks for the PIN and the file's passphrase on the terminal, and says when to touch; nothing of that is done a
second time here. Its answer is read strictly and verified before it is used.
"""

import base64
import binascii
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from client.errors import KeyFileError
from client.ssh_agent import REASON, SIGN_SECONDS, checked
from gonogo.digests import pre_authentication_encoding
from gonogo.signatures import NAMESPACE, SSHSIG, PublicKey, SignatureError, fits

COMMAND: Final = "ssh-keygen"
BEGIN: Final = "-----BEGIN SSH SIGNATURE-----"
END: Final = "-----END SSH SIGNATURE-----"
MAX_ARMOUR: Final = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class KeygenKey:
    """A key file that ssh-keygen signs with."""

    public: PublicKey
    path: Path
    command: str = COMMAND
    seconds: float = SIGN_SECONDS

    def sign(self, scheme: str, media_type: str, body: bytes) -> bytes:
        """Have ssh-keygen sign a sealed document.

        Raises:
            KeyFileError: it is not installed, did not sign, or signed something that does not hold.
            SignatureError: the scheme is none that ssh-keygen signs in.
        """
        if scheme != SSHSIG or not fits(scheme, self.public):
            raise SignatureError(f"ssh-keygen signs in the scheme {SSHSIG}, not in {scheme!r}")
        armour = self._run(pre_authentication_encoding(media_type, body))
        return checked(self.public, scheme, lambda: unarmoured(armour), media_type, body, COMMAND)

    def _run(self, message: bytes) -> bytes:
        argv = [self.command, "-Y", "sign", "-n", NAMESPACE.decode(), "-f", str(self.path)]
        try:
            # Questions go to the terminal; what it reports goes where our own messages go.
            with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
                try:
                    answer, _ = process.communicate(message, timeout=self.seconds)
                except BaseException:
                    process.kill()
                    raise
        except subprocess.TimeoutExpired:
            raise _not_signed(self.path, f"it did not answer within {self.seconds:g} s") from None
        except OSError as error:
            raise _not_signed(self.path, f"{self.command}: {error.strerror or error}") from None
        if process.returncode != 0:
            raise _not_signed(self.path, f"it ended with status {process.returncode}")
        return answer


def unarmoured(armour: bytes) -> bytes:
    """Return the blob in OpenSSH's armoured text.

    Raises:
        SignatureError: it is not such a text.
    """
    if len(armour) > MAX_ARMOUR:
        raise SignatureError("the armoured signature is too long")
    lines = armour.decode("ascii", "replace").strip().splitlines()
    if len(lines) < 3 or lines[0] != BEGIN or lines[-1] != END:  # noqa: PLR2004 - both marks and what is between
        raise SignatureError("not an armoured SSH signature")
    try:
        return base64.b64decode("".join(lines[1:-1]).encode(), validate=True)
    except (ValueError, binascii.Error):
        raise SignatureError("the armoured signature is not base64") from None


def _not_signed(path: Path, why: str) -> KeyFileError:
    remedy = "plug the security key in and touch it when it blinks; or ssh-add the file and give its .pub with --key"
    return KeyFileError(REASON, f"ssh-keygen did not sign with {path}: {why}", remedy)
