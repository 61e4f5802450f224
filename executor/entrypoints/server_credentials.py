"""What a listener proves itself with and asks of whoever connects; new certificates hold from the next connection."""

import grpc

from executor.adapters.certificates import CertificateFiles, Certificates


def mutual_tls(files: CertificateFiles) -> grpc.ServerCredentials:
    """Return credentials for one listener that takes only peers with a certificate of the authority.

    They are for one listener: gRPC hands their first configuration out only once. It asks for a newer one at each
    handshake, from a thread of its own; None says that there is none.
    """
    known = files.current()

    def newer() -> grpc.ServerCertificateConfiguration | None:
        nonlocal known
        found = files.current()
        if found is known:
            return None
        known = found
        return _configuration(found)

    first = _configuration(known)
    return grpc.dynamic_ssl_server_credentials(first, newer, True)  # type: ignore[arg-type]  # its stub forgets the None


def _configuration(held: Certificates) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(held.key, held.certificate)], held.authority)
