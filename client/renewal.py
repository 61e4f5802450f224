"""`gonogo init --renew-certificates`: the same names and keys with certificates that hold for longer.

Nothing has to stop for it. Key and name of the authority stay, so that old and new certificates prove each other at
every moment, in any order in which the files are replaced; and each certificate stays with the key it was made for, so
that no pair is ever half replaced. It needs no private key but the authority's: it can be done where nothing else is.
A key that somebody may have stolen is not mended by it.
"""

import os
import stat
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from client.certificates import Authority, certify_anew, load_authority
from client.errors import StateError
from client.state import StateDirectory

LEAVES = ("executor", "orchestrator", "client")


def renew_certificates(state: StateDirectory, now: datetime | None = None) -> Mapping[str, datetime]:
    """Replace the certificates of a state's `tls` directory; return until when each holds.

    Of the services' and the client's those are renewed that are there; all are read before one is written.

    Raises:
        StateError: one can not be read, is not this authority's, or can not be written; what was replaced holds.
    """
    authority = load_authority(state.tls)
    _check_alone(state.tls / "ca.pem")
    held = {"ca": authority.certificate}
    held |= {role: _read(path, authority) for role in LEAVES if (path := state.tls / f"{role}.pem").exists()}
    renewed = {role: certify_anew(authority, one, now) for role, one in held.items()}
    try:
        for role, one in renewed.items():
            _replace(state.tls / f"{role}.pem", one.public_bytes(Encoding.PEM))
        _sync(state.tls)
    except OSError as error:
        remedy = "correct that and renew again; the certificates that are there hold"
        raise StateError("STATE_MISSING", f"{error.filename} can not be written: {error.strerror}", remedy) from None
    return {role: one.not_valid_after_utc for role, one in renewed.items()}


def _check_alone(path: Path) -> None:
    """Refuse a file with several authorities: one of them is about to go, and only a person knows which."""
    if len(x509.load_pem_x509_certificates(path.read_bytes())) > 1:
        remedy = "leave the one of tls/ca.key in it, once nobody needs the others any more"
        raise StateError("STATE_EXISTS", f"{path} holds several authorities", remedy)


def _read(path: Path, authority: Authority) -> x509.Certificate:
    remedy = "bring it back from a backup, or move it away to leave it out"
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        certificate.verify_directly_issued_by(authority.certificate)
    except OSError as error:
        raise StateError("STATE_MISSING", f"{path} can not be read: {error.strerror}", remedy) from None
    except Exception as error:  # noqa: BLE001 - cryptography names several; each means the same here
        message = f"{path} is no certificate of this authority: {str(error) or type(error).__name__}"
        raise StateError("STATE_MISSING", message, remedy) from None
    return certificate


def _replace(path: Path, data: bytes) -> None:
    """Put a new file in a file's place, as whole as the old one, and readable for the same."""
    old, new = path.stat(), path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        if (old.st_uid, old.st_gid) != (os.geteuid(), os.getegid()):
            os.fchown(file.fileno(), old.st_uid, old.st_gid)
        os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
