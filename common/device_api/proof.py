"""What a device signs when it enrols, and how far clocks may differ. Both sides of the enrolment use it."""

import hashlib

from common.device_api.refusals import ClockWrong

CONTEXT = b"emofl-enrol-v1"

AHEAD_SECONDS, BEHIND_SECONDS = 4.0, 300.0
"""How far a device's clock may be off: Flower takes signatures from 5 s in the future to 305 s in the past."""


def enrolment_proof(token: bytes, certificate_request: bytes) -> bytes:
    """The bytes that the Flower key signs, as `fl_server/device_api.proto` says: they bind this key to this request and token."""
    return CONTEXT + b"\0" + token + hashlib.sha256(certificate_request).digest()


def check_clock(device_seconds: float, server_seconds: float) -> None:
    """Compare two clocks, in seconds since 1970.

    Raises:
        ClockWrong: the device could not take part with this clock; the sentence says by how much it is off.
    """
    ahead = device_seconds - server_seconds
    if -BEHIND_SECONDS <= ahead <= AHEAD_SECONDS:
        return
    amount = f"{abs(ahead):.0f} s" if abs(ahead) < 120 else f"{abs(ahead) / 60:.0f} minutes"
    side = "ahead of" if ahead > 0 else "behind"
    raise ClockWrong(f"This device's clock is {amount} {side} the server's: set it right and try again.")
