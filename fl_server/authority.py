"""The server's certificate authority on disk, and the server's own certificate. `fl-server start` opens it.

The folder is 0700, every file in it 0600. Who reads `ca.key` can impersonate the server to its devices.
"""

import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from common.certificates import (
    CertificateAuthority,
    certificate_pem,
    fingerprint,
    key_pem,
    load_certificate,
    load_key,
    names_of,
    new_key,
    normal_name,
    requested_key,
)
from common.device_api.refusals import RequestMalformed
from common.errors import ConfigError, IntegrityError, RunError
from common.files import locked, read_plain, write_atomic

RENEWED_BEFORE, TOLD_BEFORE = timedelta(days=180), timedelta(days=30)
"""Its end, at a start; and from when on a server that has run since then says so, since only a start renews it."""
FILE_LIMIT = 1 << 16

CA_CERTIFICATE, CA_KEY, SERVER_CERTIFICATE, SERVER_KEY = "ca.pem", "ca.key", "server.pem", "server.key"


@dataclass(frozen=True)
class Authority:
    """A certificate authority and the server certificate it issued.

    Attributes:
        folder: holds ca.pem, ca.key, server.pem (the server's certificate, then the authority's) and server.key.
        ca: certificate and key.
        now: the clock, UTC.
    """

    folder: Path
    ca: CertificateAuthority
    now: Callable[[], datetime]

    @classmethod
    def load_or_create(cls, folder: Path, names: Sequence[str], clock: Callable[[], datetime]) -> Self:
        """The authority in `folder`; a new one is made there when there is none.

        The server's certificate is issued anew when it has under 180 days left, or is not for exactly `names`.

        Args:
            names: host names and IP addresses by which devices reach the server.

        Raises:
            ConfigError: a name is no host name and no address, or a file is damaged or open to other users.
        """
        wanted = sorted({normal_name(name) for name in names})
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder.chmod(0o700)
            (folder / ".lock").touch(mode=0o600)
            with locked(folder / ".lock"):
                if not (folder / CA_CERTIFICATE).exists():
                    _create(folder, clock())
                authority = cls.load(folder, clock)
                if authority._needs_server(wanted):
                    authority._issue_server(wanted)
        except OSError as error:
            raise ConfigError(f"The authority's folder {folder} cannot be used: {error.strerror}.") from error
        return authority

    @classmethod
    def load(cls, folder: Path, clock: Callable[[], datetime]) -> Self:
        """The authority that `load_or_create` made earlier, its server certificate left as it is.

        Raises:
            RunError: there is none.
            ConfigError: a file is damaged or open to other users.
        """
        if not (folder / CA_CERTIFICATE).exists():
            raise RunError(f"There is no server in {folder.parent}: start one with `fl-server start --dir {folder.parent}`.")
        path = folder / CA_CERTIFICATE
        try:
            certificate = load_certificate(read_plain(path, FILE_LIMIT))
            path = folder / CA_KEY
            key = load_key(_read_secret(path))
        except (ConfigError, IntegrityError, OSError) as error:
            raise ConfigError(f"The server's authority cannot be used. {path}: {error}") from error
        if key.public_key() != certificate.public_key():
            raise ConfigError(f"{path} does not belong to {CA_CERTIFICATE} beside it: restore both from one backup.")
        return cls(folder, CertificateAuthority(certificate, key), clock)

    @property
    def ca_file(self) -> Path:
        """The authority's certificate, PEM: root certificates for Flower's `ssl_ca_certfile`."""
        return self.folder / CA_CERTIFICATE

    @property
    def certificate_file(self) -> Path:
        """The server's certificate followed by the authority's, PEM."""
        return self.folder / SERVER_CERTIFICATE

    @property
    def key_file(self) -> Path:
        """The server's private key, PKCS8 PEM."""
        return self.folder / SERVER_KEY

    @property
    def ca_pem(self) -> bytes:
        """The authority's certificate."""
        return certificate_pem(self.ca.certificate)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the authority's certificate, 64 hexadecimal digits."""
        return fingerprint(self.ca.certificate)

    def warning(self) -> str | None:
        """That the server's certificate is about to end, as a sentence for the operator; None as long as it is not."""
        ends = load_certificate(read_plain(self.certificate_file, FILE_LIMIT)).not_valid_after_utc
        if ends - self.now() >= TOLD_BEFORE:
            return None
        told = f"The server's certificate ends on {ends:%Y-%m-%d}, and no device gets in after that"
        if ends >= self.ca.certificate.not_valid_after_utc:
            return f"{told}, since its authority ends: move {self.folder} away, and give every device a new join code."
        return f"{told}: stop and start the server."

    def issue_device(self, request: bytes, name: str) -> x509.Certificate:
        """A device's certificate.

        Args:
            request: PKCS10 request in DER, signed by the device's own key (EC P-384).
            name: the device's name, which becomes the subject.

        Raises:
            RequestMalformed: it is no such request, or its signature does not hold.
        """
        try:
            key = requested_key(request)
        except ConfigError as error:
            raise RequestMalformed(f"The certificate request is refused: {error}") from error
        return self.ca.issue_device(key, name, self.now())

    def _needs_server(self, wanted: Sequence[str]) -> bool:
        try:
            certificate = load_certificate(read_plain(self.certificate_file, FILE_LIMIT))
            key = load_key(_read_secret(self.key_file))
            certificate.verify_directly_issued_by(self.ca.certificate)
        except (ConfigError, IntegrityError, OSError, ValueError, TypeError, InvalidSignature):
            return True
        fresh = certificate.not_valid_after_utc - self.now() >= RENEWED_BEFORE and certificate.not_valid_before_utc <= self.now()
        return not fresh or names_of(certificate) != tuple(wanted) or key.public_key() != certificate.public_key()

    def _issue_server(self, names: Sequence[str]) -> None:
        key = new_key()
        certificate = self.ca.issue_server(key.public_key(), names, self.now())
        # The key first: a crash in between leaves a pair that does not fit, and the next start makes another.
        write_atomic(self.key_file, key_pem(key), mode=0o600)
        write_atomic(self.certificate_file, certificate_pem(certificate) + self.ca_pem, mode=0o600)


def _create(folder: Path, now: datetime) -> None:
    ca = CertificateAuthority.create(now)
    write_atomic(folder / CA_KEY, key_pem(ca.key), mode=0o600)
    write_atomic(folder / CA_CERTIFICATE, certificate_pem(ca.certificate), mode=0o600)


def _read_secret(path: Path) -> bytes:
    mode = stat.S_IMODE(path.lstat().st_mode)
    if mode & 0o077:
        raise ConfigError(f"It is open to other users (mode {mode:04o}): run `chmod 600 {path}` if nobody else had access.")
    return read_plain(path, FILE_LIMIT)
