"""A service's certificate, its key and the authority of its peers', as the files of its state have them now.

Files are replaced while the service runs, one after the other and perhaps in place. What can not be used, a file that
is half written or a key that is not the certificate's, leaves what was in use before, and the log says so once.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

_Stamp: TypeAlias = Sequence[tuple[int, int, int]]

log = logging.getLogger(__name__)


class CertificateFileError(ValueError):
    """Certificate, key or authority can not be used; the operator must replace them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """PEM texts that go together."""

    authority: bytes
    """One certificate or several: while an authority is replaced, the old and the new one."""
    certificate: bytes
    key: bytes


class CertificateFiles:
    """Reads the files again when one of them has changed. Safe to use from any thread.

    Args:
        folder: where `ca.pem` and the two files of the service are.
        name: the service's name, which its files begin with.

    Raises:
        CertificateFileError: the files can not be used.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._paths = (folder / "ca.pem", folder / f"{name}.pem", folder / f"{name}.key")
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self._held = self._read()

    def current(self) -> Certificates:
        """Return what the files hold, or the last that could be used; the same object until something changes.

        Costs three calls of stat where nothing has changed.
        """
        with self._lock:
            stamp = self._stamp()
            if stamp == self._seen:
                return self._held
            try:
                read = self._read()
            except CertificateFileError as error:
                log.error("the certificates changed and stay as they were: %s", error)  # noqa: TRY400 - no trace is needed
            else:
                self._held = read
                log.info("the certificates were read again")
            self._seen = stamp  # taken before reading: what is written meanwhile is read the next time
            return self._held

    def _stamp(self) -> _Stamp:
        found = []
        for path in self._paths:
            try:
                status = path.stat()
                found.append((status.st_ino, status.st_mtime_ns, status.st_size))
            except OSError:
                found.append((0, 0, 0))
        return found

    def _read(self) -> Certificates:
        try:
            authority, certificate, key = (path.read_bytes() for path in self._paths)
        except OSError as error:
            message = f"a certificate or key can not be read: {error.filename}: {error.strerror}"
            raise CertificateFileError(message) from None
        _check(authority, certificate, key)
        return Certificates(authority=authority, certificate=certificate, key=key)


def _check(authority: bytes, certificate: bytes, key: bytes) -> None:
    """Refuse what is not whole, does not go together, or does not hold now."""
    try:
        x509.load_pem_x509_certificates(authority)
        leaf = x509.load_pem_x509_certificates(certificate)[0]
        public = load_pem_private_key(key, password=None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CertificateFileError(f"a certificate or key is not whole: {error}") from None
    if leaf.public_key() != public:
        raise CertificateFileError("the key is not the certificate's")
    if not leaf.not_valid_before_utc <= datetime.now(UTC) < leaf.not_valid_after_utc:
        raise CertificateFileError(f"the certificate is valid until {leaf.not_valid_after_utc:%Y-%m-%d} only")
