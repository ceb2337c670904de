"""Why a device may not join or stay, each reason an error of its own. The server sends its code; the client raises it again.

A refusal travels as a gRPC status: the sentence as its message, the code in the trailing metadata under `emofl-reason`.
"""

from typing import ClassVar

from common.errors import EmoflError

REASON = "emofl-reason"
"""The key of the trailing metadata that holds the code."""


class EnrolmentError(EmoflError):
    """A device cannot join, or is not (or no longer) a member."""

    exit_code = 11
    code: ClassVar[str] = "refused"
    sentence: ClassVar[str] = "The server refused this device."

    def __init__(self, sentence: str | None = None) -> None:
        super().__init__(sentence or self.sentence)


class InvitationUnknown(EnrolmentError):
    code = "invitation-unknown"
    sentence = "The server does not know this join code: ask its operator for a new one (`fl-server invite`)."


class InvitationUsed(EnrolmentError):
    code = "invitation-used"
    sentence = "This join code was used by another device already: each device needs its own (`fl-server invite`)."


class InvitationExpired(EnrolmentError):
    code = "invitation-expired"
    sentence = "This join code has expired: ask the server's operator for a new one (`fl-server invite`)."


class DeviceRevoked(EnrolmentError):
    code = "device-revoked"
    sentence = "The server's operator revoked this device: it takes no further part."


class DeviceUnknown(EnrolmentError):
    code = "device-unknown"
    sentence = "The server does not know this device: enrol it with a join code (`fl-server invite`)."


class ClockWrong(EnrolmentError):
    code = "clock-wrong"
    sentence = "The clocks of this device and the server differ too much: set this device's clock and try again."


class TooManyAttempts(EnrolmentError):
    code = "too-many-attempts"
    sentence = "Too many failed attempts to join from this address: wait a minute and try again."


class RequestMalformed(EnrolmentError):
    code = "request-malformed"
    sentence = "The request is malformed: use the same version of emofl on device and server."


class WrongAuthority(EnrolmentError):
    """Raised by the client alone: who answers is not the server that the join code names."""

    code = "wrong-authority"
    sentence = "Who answers there is not the server that made this join code: check the code, and the network you are on."


class ServerUnreachable(EnrolmentError):
    """Raised by the client alone."""

    code = "server-unreachable"
    sentence = "The server cannot be reached: check the address, the network and that it runs."


class NotEnrolled(EnrolmentError):
    """Raised by the client alone: there is no membership on this device."""

    code = "not-enrolled"
    sentence = "This device is not enrolled: run it once with --join CODE."


FROM_SERVER: tuple[type[EnrolmentError], ...] = (
    InvitationUnknown,
    InvitationUsed,
    InvitationExpired,
    DeviceRevoked,
    DeviceUnknown,
    ClockWrong,
    TooManyAttempts,
    RequestMalformed,
)


def refusal(code: str, sentence: str) -> EnrolmentError:
    """The error for a code that a server sent; an unknown code becomes an `EnrolmentError`."""
    for kind in FROM_SERVER:
        if kind.code == code:
            return kind(sentence or None)
    return EnrolmentError(sentence or None)
