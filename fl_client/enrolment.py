"""How a device becomes a member of a server: once, with a join code. `fl-client --join CODE` calls it.

Keys are made on the device and stay there. Server sees: the device's name, two public keys, and when it enrolled.
"""

import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common.device_api import device_api_pb2 as pb
from common.device_api import device_api_pb2_grpc as rpc

# isort: split
import grpc  # type: ignore[import-untyped]
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey, EllipticCurvePublicKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.canonical import encode
from common.certificates import (
    certificate_pem,
    fingerprint,
    key_pem,
    load_certificate,
    load_key,
    make_request,
    new_key,
    public_der,
    public_pem,
)
from common.device_api.proof import enrolment_proof
from common.device_api.refusals import (
    REASON,
    ClockWrong,
    EnrolmentError,
    InvitationExpired,
    InvitationUnknown,
    InvitationUsed,
    NotEnrolled,
    ServerUnreachable,
    TooManyAttempts,
    WrongAuthority,
    refusal,
)
from common.errors import ConfigError, IntegrityError
from common.files import read_plain, write_atomic, write_once
from common.identity import PublicKey
from common.join_code import JoinCode, parse_join_code
from fl_client.handshake import recognise
from fl_client.terminal import plain

MEMBERSHIP = "membership.json"
FILE_LIMIT = 1 << 16
HARMLESS = (
    InvitationUnknown,
    InvitationUsed,
    InvitationExpired,
    ServerUnreachable,
    TooManyAttempts,
    ClockWrong,
    WrongAuthority,
)
"""Failures to join anew that say nothing against a membership."""


class _Record(BaseModel):
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
        return fingerprint(load_certificate(self.ca_file.read_bytes()))

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
        key = _read_key(self.flower_key_file)
        return key, key.public_key()

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Mutual TLS for the device port."""
        return grpc.ssl_channel_credentials(
            self.ca_file.read_bytes(), self.device_key_file.read_bytes(), self.device_certificate_file.read_bytes()
        )


def enrol(
    code: JoinCode | str,
    home: Path,
    device_name: str,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    timeout_seconds: float = 15.0,
    say: Callable[[str], None] = lambda sentence: None,
) -> Membership:
    """Join the server that `code` names, and keep the membership in `home`. A broken enrolment is simply run again.

    A member of this very server stays one when the code is no longer good, the server does not answer or lets nobody in now, or
    somebody else answers.

    Args:
        device_name: as the operator will see it; what a name cannot hold is replaced by dashes.
        say: told why a member was not enrolled anew.

    Raises:
        ConfigError: the code has a typing error, or this device belongs to another server already.
        ServerUnreachable, WrongAuthority, ClockWrong: nothing was sent, or nothing was used up.
        InvitationUnknown, InvitationUsed, InvitationExpired, DeviceRevoked, TooManyAttempts: the server refused.
    """
    invitation = parse_join_code(code) if isinstance(code, str) else code
    known = _known(home, invitation)
    try:
        return _enrol(invitation, home, device_name, now, timeout_seconds)
    except HARMLESS as error:
        if known is None:
            raise
        say(f"This device is a member already and stays one; the join code was not used: {error}")
        return known


def _enrol(invitation: JoinCode, home: Path, device_name: str, now: Callable[[], datetime], timeout_seconds: float) -> Membership:
    authority = recognise(invitation.address, invitation.port, invitation.fingerprint, now(), timeout_seconds)
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        home.chmod(0o700)
        flower_key, device_key = _own_key(home / "flower.key"), _own_key(home / "device.key")
    except OSError as error:
        raise ConfigError(f"The folder {home} cannot be used: {error.strerror}.") from error
    token, request = bytes.fromhex(invitation.token), make_request(device_key)
    reply = _call(
        invitation,
        certificate_pem(authority),
        pb.EnrollRequest(
            token=token,
            device_name=plain_name(device_name),
            certificate_request=request,
            flower_key=public_der(flower_key.public_key()),
            flower_proof=flower_key.sign(enrolment_proof(token, request), ECDSA(hashes.SHA384())),
            clock_ms=int(now().timestamp() * 1000),
        ),
        timeout_seconds,
    )
    certificate = load_certificate(reply.certificate)
    if certificate.public_key() != device_key.public_key():
        raise EnrolmentError("The server answered with a certificate for another key: it is not to be trusted.")
    try:
        record = _Record(
            address=invitation.address,
            fleet_port=reply.fleet_port,
            enrol_port=invitation.port,
            device_port=reply.device_port,
            device_name=reply.device_name,
            publisher=PublicKey(reply.publisher_key).raw.hex(),
        )
    except (ValidationError, IntegrityError) as error:
        raise EnrolmentError("The server's answer makes no sense: it is not to be trusted.") from error
    write_atomic(home / "ca.pem", certificate_pem(authority), mode=0o600)
    write_atomic(home / "flower.pub", public_pem(flower_key.public_key()), mode=0o600)
    write_atomic(home / "device.pem", certificate_pem(certificate), mode=0o600)
    write_atomic(home / MEMBERSHIP, encode(record.model_dump(mode="json")), mode=0o600)  # last: it says that all is there
    return load_membership(home)


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
        record = _Record.model_validate_json(read_plain(path, FILE_LIMIT))
        values: dict[str, Any] = record.model_dump() | {"publisher": PublicKey.from_hex(record.publisher)}
        membership = Membership(home=home, **values)
        path = membership.ca_file
        load_certificate(read_plain(path, FILE_LIMIT))
        path = membership.device_certificate_file
        certificate = load_certificate(read_plain(path, FILE_LIMIT))
    except (ValidationError, IntegrityError, ConfigError) as error:
        raise ConfigError(f"{path} is damaged or missing: restore it, or enrol again with a new join code.") from error
    membership.flower_keys()
    if _read_key(membership.device_key_file).public_key() != certificate.public_key():
        raise ConfigError(f"{path} does not belong to device.key beside it: enrol again with a new join code.")
    return membership


def plain_name(name: str) -> str:
    """A device's name as the server takes it: up to 40 ASCII letters, digits, dots, dashes, underscores."""
    text = re.sub(r"[^A-Za-z0-9._-]+", "-", name).lstrip("._-")[:40]
    return text or "device"


def refused(error: grpc.RpcError, where: str) -> EnrolmentError:
    """What a failed call means for a person."""
    reasons = [value for key, value in (error.trailing_metadata() or ()) if key == REASON]
    if reasons:
        return refusal(str(reasons[0]), plain(error.details() or ""))
    if error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
        return ServerUnreachable(f"The server {where} is busy: try again in a minute.")
    return ServerUnreachable(f"The server {where} does not answer: check the network, and that it runs.")


def _call(invitation: JoinCode, ca: bytes, request: pb.EnrollRequest, timeout: float) -> pb.EnrollReply:
    target = target_of(invitation.address, invitation.port)
    with grpc.secure_channel(target, grpc.ssl_channel_credentials(ca), [("grpc.enable_http_proxy", 0)]) as channel:
        stub = rpc.EnrolmentStub(channel)  # type: ignore[no-untyped-call]
        try:
            reply: pb.EnrollReply = stub.Enroll(request, timeout=timeout)
        except grpc.RpcError as error:
            raise refused(error, target) from error
        return reply


def target_of(address: str, port: int) -> str:
    """Address and port as gRPC wants them."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _known(home: Path, invitation: JoinCode) -> Membership | None:
    if not (home / MEMBERSHIP).exists():
        return None
    try:
        known = load_membership(home)
        same = fingerprint(load_certificate(read_plain(known.ca_file, FILE_LIMIT))) == invitation.fingerprint
    except ConfigError:
        return None
    if not same:
        raise ConfigError(
            f"This device belongs to the server {known.address} already: use another folder for its keys (--home), or delete "
            f"{home / MEMBERSHIP} and the keys beside it to leave that server."
        )
    return known


def _own_key(path: Path) -> EllipticCurvePrivateKey:
    if not path.exists():
        write_once(path, key_pem(new_key()), mode=0o600)
    return _read_key(path)


def _read_key(path: Path) -> EllipticCurvePrivateKey:
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
