"""What a listener proves itself with and asks of whoever connects; new certificates hold from the next connection."""

from collections.abc import Callable

import grpc

from gonogo.certificate_files import CertificateFiles, Certificates


def mutual_tls(files: CertificateFiles) -> grpc.ServerCredentials:
    """Return credentials of a listener that takes only peers with a certificate of the authority."""
    return _credentials(files, _with_authority, asks_for_certificate=True)


def server_tls(files: CertificateFiles) -> grpc.ServerCredentials:
    """Return credentials of a listener that proves itself and never asks for a certificate."""
    return _credentials(files, _without_authority, asks_for_certificate=False)


def _credentials(
    files: CertificateFiles,
    configuration: Callable[[Certificates], grpc.ServerCertificateConfiguration],
    *,
    asks_for_certificate: bool,
) -> grpc.ServerCredentials:
    """Return credentials for one listener: gRPC hands their first configuration out only once.

    gRPC asks for a newer configuration at each handshake, from a thread of its own; None says that there is none.
    """
    known = files.current()

    def newer() -> grpc.ServerCertificateConfiguration | None:
        nonlocal known
        found = files.current()
        if found is known:
            return None
        known = found
        return configuration(found)

    first = configuration(known)
    return grpc.dynamic_ssl_server_credentials(first, newer, asks_for_certificate)  # type: ignore[arg-type]  # its stub forgets the None


def _with_authority(held: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(held.key, held.certificate)], held.authority)


def _without_authority(held: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(held.key, held.certificate)])
