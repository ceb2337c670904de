"""X.509 certificates: an authority, its server, its devices. Pure: no file, no clock; `fl_server.authority` keeps them.

All keys are EC P-384. The authority signs servers (serverAuth) and devices (clientAuth), and no other authority.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP384R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.errors import ConfigError

AUTHORITY_DAYS, SERVER_DAYS, DEVICE_DAYS = 3650, 397, 1825
"""How long certificates hold; a device's ends earlier by revocation, and none outlives its authority."""

BACKDATED = timedelta(minutes=10)
"""Certificates begin this much before they are made, for devices whose clocks are behind."""

HOST_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?([.][A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?)*"
)

DIGEST = hashes.SHA384()


def new_key() -> EllipticCurvePrivateKey:
    """A new EC P-384 key."""
    return generate_private_key(SECP384R1())


def key_pem(key: EllipticCurvePrivateKey) -> bytes:
    """Unencrypted PKCS8 PEM, as Flower and gRPC read it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def load_key(pem: bytes) -> EllipticCurvePrivateKey:
    """The EC P-384 key in PEM.

    Raises:
        ConfigError: it is something else.
    """
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError("It is not an unencrypted private key in PEM format.") from error
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP384R1):
        raise ConfigError("It is not an EC P-384 key.")
    return key


def public_pem(key: EllipticCurvePublicKey) -> bytes:
    """SubjectPublicKeyInfo PEM, the same bytes as Flower's `public_key_to_bytes`."""
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def public_der(key: EllipticCurvePublicKey) -> bytes:
    """SubjectPublicKeyInfo DER."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def load_public_der(der: bytes) -> EllipticCurvePublicKey:
    """The EC P-384 public key in DER.

    Raises:
        ConfigError: it is something else.
    """
    try:
        key = load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError("It is not a public key in DER format.") from error
    return _p384(key)


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """PEM."""
    return certificate.public_bytes(Encoding.PEM)


def certificate_der(certificate: x509.Certificate) -> bytes:
    """DER."""
    return certificate.public_bytes(Encoding.DER)


def load_certificate(content: bytes) -> x509.Certificate:
    """The first certificate in PEM, or the one in DER.

    Raises:
        ConfigError: it is none.
    """
    try:
        if content.lstrip().startswith(b"-----"):
            return x509.load_pem_x509_certificate(content)
        return x509.load_der_x509_certificate(content)
    except ValueError as error:
        raise ConfigError("It is not a certificate.") from error


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of the certificate's DER, 64 lower-case hexadecimal digits."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def serial_of(certificate: x509.Certificate) -> str:
    """The serial number, in lower-case hexadecimal."""
    return f"{certificate.serial_number:x}"


def names_of(certificate: x509.Certificate) -> tuple[str, ...]:
    """The host names and addresses it is for, sorted."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    hosts = names.get_values_for_type(x509.DNSName)
    return tuple(sorted([*hosts, *(str(address) for address in names.get_values_for_type(x509.IPAddress))]))


def normal_name(name: str) -> str:
    """A host name in lower case, or an address in its usual form.

    Raises:
        ConfigError: it is neither.
    """
    text = name.strip().removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    if not HOST_NAME.fullmatch(text) or text.replace(".", "").isdigit():
        raise ConfigError(f"{name!r} is neither a host name nor an IP address.")
    return text.lower()


def make_request(key: EllipticCurvePrivateKey) -> bytes:
    """A PKCS10 certificate request in DER that proves possession of `key`; it names nobody."""
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, DIGEST)
    return request.public_bytes(Encoding.DER)


def requested_key(request: bytes) -> EllipticCurvePublicKey:
    """The EC P-384 key that made the request.

    Raises:
        ConfigError: it is no certificate request, or its signature does not hold.
    """
    try:
        parsed = x509.load_der_x509_csr(request)
        key = parsed.public_key()
        holds = parsed.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise ConfigError("It is not a certificate request.") from error
    if not holds:
        raise ConfigError("The certificate request was not signed by its own key.")
    return _p384(key)


@dataclass(frozen=True)
class CertificateAuthority:
    """A self-signed certificate and its key, which appears in no repr."""

    certificate: x509.Certificate
    key: EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def create(cls, now: datetime) -> Self:
        """A new authority, good for ten years from `now`."""
        key = new_key()
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"emofl authority {identifier.digest.hex()[:8]}")])
        certificate = (
            _builder(name, name, key.public_key(), now, now + timedelta(days=AUTHORITY_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(identifier, critical=False)
            .sign(key, DIGEST)
        )
        return cls(certificate, key)

    def issue_server(self, key: EllipticCurvePublicKey, names: Sequence[str], now: datetime) -> x509.Certificate:
        """A server certificate for host names and IP addresses, the first one its subject.

        Raises:
            ConfigError: there is no name, or one is neither.
        """
        if not names:
            raise ConfigError("A server certificate needs at least one host name or IP address.")
        alternatives = [_general_name(normal_name(name)) for name in names]
        return self._issue(
            key, names[0], SERVER_DAYS, ExtendedKeyUsageOID.SERVER_AUTH, now, x509.SubjectAlternativeName(alternatives)
        )

    def issue_device(self, key: EllipticCurvePublicKey, name: str, now: datetime) -> x509.Certificate:
        """A device certificate, `name` its subject; it holds for clients only."""
        return self._issue(key, name, DEVICE_DAYS, ExtendedKeyUsageOID.CLIENT_AUTH, now)

    def _issue(
        self,
        key: EllipticCurvePublicKey,
        name: str,
        days: int,
        purpose: x509.ObjectIdentifier,
        now: datetime,
        alternatives: x509.SubjectAlternativeName | None = None,
    ) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
        until = min(now + timedelta(days=days), self.certificate.not_valid_after_utc)
        builder = (
            _builder(subject, self.certificate.subject, key, now, until)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )
        if alternatives is not None:
            builder = builder.add_extension(alternatives, critical=False)
        return builder.sign(self.key, DIGEST)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePublicKey, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - BACKDATED)
        .not_valid_after(until.astimezone(UTC))
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _p384(key: object) -> EllipticCurvePublicKey:
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP384R1):
        raise ConfigError("It is not an EC P-384 key.")
    return key
