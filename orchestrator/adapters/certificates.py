"""The orchestrator's certificate and key, read again when their files change."""

from pathlib import Path

from gonogo import certificate_files
from gonogo.certificate_files import Certificates
from orchestrator.domain.errors import OrchestratorError, Reason

__all__ = ["CertificateError", "CertificateFiles", "Certificates"]


class CertificateError(OrchestratorError):
    """Certificate, key or authority can not be used; the operator must replace them."""

    def __init__(self, message: str) -> None:
        super().__init__(Reason.MALFORMED, message, "Make them with: gonogo init, or bring them back from a backup.")


class CertificateFiles(certificate_files.CertificateFiles):
    """See the shared class; what can not be used at the start is the orchestrator's own error."""

    def __init__(self, folder: Path, name: str) -> None:
        try:
            super().__init__(folder, name)
        except certificate_files.CertificateFileError as error:
            raise CertificateError(str(error)) from None
