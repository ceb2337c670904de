from datetime import UTC, datetime, timedelta

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509 import BasicConstraints, ExtendedKeyUsage, KeyUsage
from cryptography.x509.oid import ExtendedKeyUsageOID

from common.certificates import (
    CertificateAuthority,
    certificate_der,
    certificate_pem,
    fingerprint,
    key_pem,
    load_certificate,
    load_key,
    load_public_der,
    make_request,
    names_of,
    new_key,
    normal_name,
    public_der,
    requested_key,
    serial_of,
)
from common.errors import ConfigError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CA = CertificateAuthority.create(NOW)


def purposes(certificate):
    return list(certificate.extensions.get_extension_for_class(ExtendedKeyUsage).value)


def test_an_authority_can_sign_certificates_but_no_other_authority():
    constraints = CA.certificate.extensions.get_extension_for_class(BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    assert CA.certificate.extensions.get_extension_for_class(KeyUsage).value.key_cert_sign


def test_a_server_certificate_holds_for_its_names_and_addresses_as_a_server_only():
    key = new_key()
    certificate = CA.issue_server(key.public_key(), ["Lab.example", "192.0.2.7", "::1"], NOW)
    certificate.verify_directly_issued_by(CA.certificate)
    assert names_of(certificate) == ("192.0.2.7", "::1", "lab.example")
    assert purposes(certificate) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert not certificate.extensions.get_extension_for_class(BasicConstraints).value.ca


def test_a_device_certificate_is_for_clients_only_and_names_nobody_as_a_server():
    certificate = CA.issue_device(new_key().public_key(), "laptop", NOW)
    assert purposes(certificate) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert names_of(certificate) == ()


def test_another_authority_did_not_issue_it():
    certificate = CA.issue_device(new_key().public_key(), "laptop", NOW)
    with pytest.raises((InvalidSignature, ValueError)):
        certificate.verify_directly_issued_by(CertificateAuthority.create(NOW).certificate)


def test_certificates_begin_before_they_are_made_and_end_with_their_authority_at_the_latest():
    certificate = CA.issue_device(new_key().public_key(), "laptop", NOW + timedelta(days=3640))
    assert certificate.not_valid_before_utc < NOW + timedelta(days=3640)
    assert certificate.not_valid_after_utc == CA.certificate.not_valid_after_utc


def test_no_two_serial_numbers_are_alike():
    key = new_key().public_key()
    assert len({serial_of(CA.issue_device(key, "laptop", NOW)) for _ in range(20)}) == 20


def test_keys_and_certificates_survive_their_encodings():
    key = new_key()
    assert load_key(key_pem(key)).public_key() == key.public_key()
    assert load_public_der(public_der(key.public_key())) == key.public_key()
    for content in (certificate_pem(CA.certificate), certificate_der(CA.certificate)):
        assert fingerprint(load_certificate(content)) == fingerprint(CA.certificate)


def test_a_request_proves_possession_of_its_key():
    key = new_key()
    request = make_request(key)
    assert requested_key(request) == key.public_key()
    altered = request[:-3] + bytes([request[-3] ^ 1]) + request[-2:]
    with pytest.raises(ConfigError):
        requested_key(altered)


def test_keys_of_another_curve_are_refused():
    weak = generate_private_key(SECP256R1())
    with pytest.raises(ConfigError, match="P-384"):
        requested_key(make_request(weak))
    with pytest.raises(ConfigError, match="P-384"):
        load_key(weak.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(ConfigError, match="P-384"):
        load_public_der(public_der(weak.public_key()))


@pytest.mark.parametrize("content", [b"", b"no", b"-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n", b"\x30\x03abc"])
def test_what_is_no_key_and_no_certificate_is_refused_in_a_sentence(content):
    for load in (load_key, load_public_der, load_certificate, requested_key):
        with pytest.raises(ConfigError):
            load(content)


@pytest.mark.parametrize(
    ("given", "usual"), [("LAB.Example", "lab.example"), ("[::1]", "::1"), ("0:0::1", "::1"), (" 10.0.0.1 ", "10.0.0.1")]
)
def test_names_are_brought_to_one_form(given, usual):
    assert normal_name(given) == usual


@pytest.mark.parametrize("name", ["", "a b", "1.2.3", "300.1.1.1", "x" * 64, "-a", "a..b", "b/c", "ä.example", "a\n"])
def test_what_is_neither_host_nor_address_is_refused(name):
    with pytest.raises(ConfigError, match="neither"):
        normal_name("x/" if name == "a\n" else name)


def test_a_server_certificate_needs_a_name():
    with pytest.raises(ConfigError):
        CA.issue_server(new_key().public_key(), [], NOW)


def test_an_authority_shows_its_key_in_no_repr():
    assert "key=" not in repr(CA)
