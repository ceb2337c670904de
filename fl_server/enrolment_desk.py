"""Answers Enroll: checks the proofs, uses up the invitation, signs the device's certificate. `fl_server.device_api` serves it.

Server sees: the device's name, its two public keys, its clock. It never sees a private key.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey

from common.canonical import sha256
from common.certificates import certificate_der, load_public_der, public_der, public_pem, requested_key, serial_of
from common.device_api import device_api_pb2 as pb
from common.device_api.proof import check_clock, enrolment_proof
from common.device_api.refusals import RequestMalformed, TooManyAttempts
from common.errors import ConfigError
from common.identity import PublicKey
from fl_server.authority import Authority
from fl_server.invitations import TOKEN_BYTES, Invitations
from fl_server.roster import NAME, Roster
from fl_server.seats import host_of, network_of

ADDRESSES = 10_000
"""How many addresses with failed attempts are remembered."""


@dataclass(frozen=True)
class Members:
    """Who decides about devices: the authority, the invitations, the roster, and the key that signs models."""

    authority: Authority
    invitations: Invitations
    roster: Roster
    publisher: PublicKey


class Attempts:
    """Failed attempts by address, over the last minute; an IPv6 network of 64 bits counts as one address."""

    def __init__(self, most_per_minute: int, seconds: Callable[[], float] = time.monotonic) -> None:
        self._most, self._seconds = most_per_minute, seconds
        self._failures: OrderedDict[str, list[float]] = OrderedDict()

    def check(self, peer: str) -> None:
        """Raises:
        TooManyAttempts: this address failed too often.
        """
        recent = self._recent(network_of(host_of(peer)))
        if len(recent) >= self._most:
            raise TooManyAttempts

    def failed(self, peer: str) -> None:
        """Count one failure."""
        address = network_of(host_of(peer))
        self._failures[address] = [*self._recent(address), self._seconds()][-self._most :]
        self._failures.move_to_end(address)
        while len(self._failures) > ADDRESSES:
            self._failures.popitem(last=False)

    def _recent(self, address: str) -> list[float]:
        return [moment for moment in self._failures.get(address, []) if moment > self._seconds() - 60]


class EnrolmentDesk:
    """Turns one Enroll request into a membership, or an `EnrolmentError`."""

    def __init__(self, members: Members, *, now: Callable[[], datetime]) -> None:
        self.members, self.now = members, now

    def enrol(self, request: pb.EnrollRequest, fleet_port: int, device_port: int) -> pb.EnrollReply:
        """Check, redeem, sign, enter into the roster. Nothing is used up unless every check before holds.

        Raises:
            EnrolmentError: why not.
        """
        check_clock(request.clock_ms / 1000, self.now().timestamp())
        flower_key = self._proven_key(request)
        if not NAME.fullmatch(request.device_name):
            raise RequestMalformed(
                "This is no device name: use up to 40 letters, digits, dots, dashes and underscores; the first a letter or digit."
            )
        members = self.members
        members.roster.refuse_revoked(public_pem(flower_key))
        members.invitations.redeem(request.token.hex(), sha256(public_der(flower_key)))
        certificate = members.authority.issue_device(request.certificate_request, request.device_name)
        device = members.roster.add(request.device_name, public_pem(flower_key), serial_of(certificate))
        return pb.EnrollReply(
            device_name=device.name,
            certificate=certificate_der(certificate),
            authority=certificate_der(members.authority.ca.certificate),
            publisher_key=members.publisher.raw,
            fleet_port=fleet_port,
            device_port=device_port,
            clock_ms=int(self.now().timestamp() * 1000),
        )

    def _proven_key(self, request: pb.EnrollRequest) -> EllipticCurvePublicKey:
        if len(request.token) != TOKEN_BYTES:
            raise RequestMalformed
        try:
            certificate_key = requested_key(request.certificate_request)
            key = load_public_der(request.flower_key)
            content = enrolment_proof(request.token, request.certificate_request)
            key.verify(request.flower_proof, content, ECDSA(hashes.SHA384()))
        except ConfigError as error:
            raise RequestMalformed(f"The request's keys are refused: {error}") from error
        except InvalidSignature as error:
            raise RequestMalformed("The request does not prove that the device has its private key.") from error
        if key == certificate_key:
            raise RequestMalformed("The request uses one key for two purposes.")
        return key
