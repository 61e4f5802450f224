"""The key that this service signs the checkpoints of its audit log with.

It is the only signing key that the service has, and nothing that the executor does follows from a signature of it.
"""

import hashlib
from pathlib import Path

from gonogo.notes import ORCHESTRATOR, checkpoint_text, log_origin, sign_note
from gonogo.signatures import PublicKey, SignatureError, SigningKey, load_public_key, load_signing_key
from orchestrator.domain.errors import OrchestratorError, Reason

_REMEDY = (
    "Make one with `ssh-keygen -t ed25519 -N '' -f {path}`, and list its public half in the executor's trust file as "
    "the orchestrator's log_key."
)


class LogName:
    """`LogIdentity` of a key.

    The log is named after its key: a log under another key is another log, and can not be taken for this one.
    """

    def __init__(self, public: PublicKey) -> None:
        self.public_key = public.line
        self.origin = log_origin(ORCHESTRATOR, hashlib.sha256(public.blob).hexdigest()[:16])


class LogKey(LogName):
    """`CheckpointSigner` with a key in memory."""

    def __init__(self, key: SigningKey) -> None:
        super().__init__(key.public)
        self._key = key

    def sign(self, size: int, root: bytes) -> str:
        return sign_note(checkpoint_text(self.origin, size, root), self._key, self.origin)


def load_log_key(path: Path) -> LogKey:
    """Read the key.

    Raises:
        OrchestratorError: it is missing or can not be used; nothing may be accepted then.
    """
    try:
        return LogKey(load_signing_key(path.read_bytes()))
    except (OSError, SignatureError) as error:
        text = error.strerror if isinstance(error, OSError) else error
        message = f"the key for the audit log's checkpoints can not be read: {path}: {text}"
        raise OrchestratorError(Reason.INTERNAL, message, _REMEDY.format(path=path)) from None


def load_log_name(path: Path) -> LogName:
    """Read the public half of the key, for those who only check.

    Raises:
        OrchestratorError: it is missing or can not be used.
    """
    try:
        return LogName(load_public_key(path.read_text().strip()))
    except (OSError, ValueError) as error:
        message = f"the public key of the audit log can not be read: {path}: {error}"
        raise OrchestratorError(
            Reason.INTERNAL, message, f"Make it with `ssh-keygen -y -f {path.with_suffix('')}`."
        ) from None


def load_executor_key(path: Path) -> str:
    """Return the executor's public key in one line where the operator put it on this host; nothing otherwise.

    Raises:
        OrchestratorError: there is a file, and it is no public key.
    """
    try:
        return load_public_key(path.read_text().strip()).line
    except FileNotFoundError:
        return ""
    except (OSError, ValueError) as error:
        message = f"the executor's public key can not be read: {path}: {error}"
        raise OrchestratorError(
            Reason.INTERNAL, message, "Copy keys/executor.pub from the executor's host, or remove the file."
        ) from None
