"""How a device becomes a member of a server: once, with a join code. `fl-client --join CODE` calls it.

Keys are made on the device and stay there. Server sees: the device's name, two public keys, and when it enrolled.
"""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from common.device_api import device_api_pb2 as pb
from common.device_api import device_api_pb2_grpc as rpc

# isort: split
import grpc  # type: ignore[import-untyped]
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from pydantic import ValidationError

from common.canonical import encode
from common.certificates import (
    certificate_pem,
    key_pem,
    load_certificate,
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
    ServerUnreachable,
    TooManyAttempts,
    WrongAuthority,
    refusal,
)
from common.errors import ConfigError, IntegrityError
from common.files import write_atomic, write_once
from common.identity import PublicKey
from common.join_code import JoinCode, parse_join_code
from fl_client.handshake import recognise
from fl_client.membership import MEMBERSHIP, Membership, Record, load_membership, read_device_key, target_of
from fl_client.terminal import plain

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
        record = Record(
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


def _known(home: Path, invitation: JoinCode) -> Membership | None:
    if not (home / MEMBERSHIP).exists():
        return None
    try:
        known = load_membership(home)
        same = known.authority == invitation.fingerprint
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
    return read_device_key(path)
