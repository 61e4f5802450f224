"""The certificates of one installation: a small authority of its own, and one leaf for each side.

A leaf carries a SPIFFE URI, by which a service knows its caller, and a DNS name, by which gRPC's client side (which
can not check URIs) knows the service.
"""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from client.errors import StateError

TRUST_DOMAIN = "gonogo.local"
CLIENTS = f"spiffe://{TRUST_DOMAIN}/client/"
LIFETIME = timedelta(days=3650)
# A machine whose clock runs behind shall not refuse a certificate made a moment ago.
BACKDATED = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


def issue_all(person: str, now: datetime | None = None) -> Mapping[str, Certificate]:
    """Make an authority ("ca") and the leaves of executor, orchestrator and client."""
    moment = now or datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gonogo installation authority")])
    authority = _authority(name, key, moment)
    leaves = {"executor": "executor", "orchestrator": "orchestrator", "client": f"client/{person}"}
    issued = {role: _leaf(role, path, authority, key, moment) for role, path in leaves.items()}
    return {"ca": Certificate(certificate=_pem(authority), key=_key_pem(key)), **issued}


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """An authority that can issue leaves."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def load_authority(tls: Path) -> Authority:
    """Read a state's authority with its key.

    Raises:
        StateError: it can not be read.
    """
    remedy = "run this where gonogo init made the state, or name it with --state"
    try:
        certificate = x509.load_pem_x509_certificate((tls / "ca.pem").read_bytes())
        key = load_pem_private_key((tls / "ca.key").read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise StateError("STATE_MISSING", f"the authority can not be read: {error}", remedy) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or certificate.public_key() != key.public_key():
        raise StateError("STATE_MISSING", "tls/ca.key is not the key of tls/ca.pem", remedy)
    return Authority(certificate=certificate, key=key)


def issue_client(authority: Authority, name: str, lifetime: timedelta, now: datetime | None = None) -> Certificate:
    """Issue the certificate of a caller of the orchestrator."""
    moment = now or datetime.now(UTC)
    return _leaf("client", f"client/{name}", authority.certificate, authority.key, moment, lifetime)


def certify_anew(authority: Authority, old: x509.Certificate, now: datetime | None = None) -> x509.Certificate:
    """Return a certificate for the same name, key and purposes that holds from now on; also the authority's own."""
    moment = now or datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(authority.certificate.subject)
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - BACKDATED)
        .not_valid_after(moment + LIFETIME)
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    return builder.sign(authority.key, hashes.SHA256())


def name_of_client(path: Path) -> str:
    """Return the name in a client's certificate.

    Raises:
        StateError: it is none.
    """
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        [identity] = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (OSError, ValueError, x509.ExtensionNotFound) as error:
        remedy = "bring it back from a backup, or give the name"
        raise StateError("STATE_MISSING", f"{path} is no client's certificate: {error}", remedy) from None
    return identity.removeprefix(CLIENTS)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    moment: datetime,
    lifetime: timedelta = LIFETIME,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - BACKDATED)
        .not_valid_after(moment + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _authority(name: x509.Name, key: ec.EllipticCurvePrivateKey, moment: datetime) -> x509.Certificate:
    return (
        _builder(name, name, key.public_key(), moment)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    role: str,
    path: str,
    authority: x509.Certificate,
    authority_key: ec.EllipticCurvePrivateKey,
    moment: datetime,
    lifetime: timedelta = LIFETIME,
) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, role)])
    names = [
        x509.UniformResourceIdentifier(f"spiffe://{TRUST_DOMAIN}/{path}"),
        x509.DNSName(role),
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")),
    ]
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        _builder(subject, authority.subject, key.public_key(), moment, lifetime)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return Certificate(certificate=_pem(certificate), key=_key_pem(key))


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
