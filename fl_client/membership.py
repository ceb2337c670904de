"""What a device keeps of being a member of a server: addresses, certificates and keys, in one folder of its own.

`fl_client.enrolment` writes it. Keys never leave the folder.
"""

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.device_api.refusals import NotEnrolled

# isort: split
import grpc  # type: ignore[import-untyped]
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.certificates import fingerprint, load_certificate, load_key
from common.errors import ConfigError, IntegrityError
from common.files import read_plain
from common.identity import PublicKey

MEMBERSHIP = "membership.json"
FILE_LIMIT = 1 << 16


class Record(BaseModel):
    """The membership file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str = Field(min_length=1)
    fleet_port: int = Field(ge=1, le=65535)
    enrol_port: int = Field(ge=1, le=65535)
    device_port: int = Field(ge=1, le=65535)
    device_name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    publisher: str


@dataclass(frozen=True)
class Membership:
    """What a device needs to take part.

    Attributes:
        home: the folder (0700) that holds everything below.
        address: the server's host name or IP address.
        fleet_port: HTTPS, Flower's Fleet API (`server_address` of the SuperNode is address:fleet_port).
        enrol_port, device_port: gRPC.
        device_name: as the server knows this device.
        publisher: the key that signs the server's models.
    """

    home: Path
    address: str
    fleet_port: int
    enrol_port: int
    device_port: int
    device_name: str
    publisher: PublicKey

    @property
    def ca_file(self) -> Path:
        """The server's authority, PEM."""
        return self.home / "ca.pem"

    @property
    def authority(self) -> str:
        """Fingerprint of the server's authority, 64 hexadecimal digits."""
        return fingerprint(load_certificate(read_plain(self.ca_file, FILE_LIMIT)))

    @property
    def flower_key_file(self) -> Path:
        """Private key of requests to Flower, EC P-384, PKCS8 PEM, 0600."""
        return self.home / "flower.key"

    @property
    def flower_public_key_file(self) -> Path:
        """Its public half, PEM (SubjectPublicKeyInfo)."""
        return self.home / "flower.pub"

    @property
    def device_certificate_file(self) -> Path:
        """The certificate that enrolment issued, PEM."""
        return self.home / "device.pem"

    @property
    def device_key_file(self) -> Path:
        """Its private key, EC P-384, PKCS8 PEM, 0600."""
        return self.home / "device.key"

    def flower_keys(self) -> tuple[EllipticCurvePrivateKey, EllipticCurvePublicKey]:
        """For `authentication_keys` of Flower's SuperNode.

        Raises:
            ConfigError: the key file is damaged, missing, or open to other users.
        """
        key = read_device_key(self.flower_key_file)
        return key, key.public_key()

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Mutual TLS for the device port."""
        return grpc.ssl_channel_credentials(
            self.ca_file.read_bytes(), self.device_key_file.read_bytes(), self.device_certificate_file.read_bytes()
        )


def load_membership(home: Path) -> Membership:
    """The membership in `home`.

    Raises:
        NotEnrolled: there is none.
        ConfigError: a file of it is damaged, missing, or open to other users.
    """
    path = home / MEMBERSHIP
    if not path.exists():
        raise NotEnrolled
    try:
        record = Record.model_validate_json(read_plain(path, FILE_LIMIT))
        values: dict[str, Any] = record.model_dump() | {"publisher": PublicKey.from_hex(record.publisher)}
        membership = Membership(home=home, **values)
        path = membership.ca_file
        load_certificate(read_plain(path, FILE_LIMIT))
        path = membership.device_certificate_file
        certificate = load_certificate(read_plain(path, FILE_LIMIT))
    except (ValidationError, IntegrityError, ConfigError) as error:
        raise ConfigError(f"{path} is damaged or missing: restore it, or enrol again with a new join code.") from error
    membership.flower_keys()
    if read_device_key(membership.device_key_file).public_key() != certificate.public_key():
        raise ConfigError(f"{path} does not belong to device.key beside it: enrol again with a new join code.")
    return membership


def target_of(address: str, port: int) -> str:
    """Address and port as gRPC wants them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def read_device_key(path: Path) -> EllipticCurvePrivateKey:
    """A private key of the folder.

    Raises:
        ConfigError: the file is damaged, missing, or open to other users.
    """
    try:
        mode = stat.S_IMODE(path.lstat().st_mode)
        content = read_plain(path, FILE_LIMIT)
    except (OSError, IntegrityError) as error:
        raise ConfigError(f"{path} is missing or cannot be read: restore it, or enrol again with a new join code.") from error
    if mode & 0o077:
        raise ConfigError(f"{path} is open to other users (mode {mode:04o}): delete it and enrol again with a new join code.")
    try:
        return load_key(content)
    except ConfigError as error:
        raise ConfigError(f"{path} is damaged: restore it, or delete it and enrol again with a new join code.") from error
