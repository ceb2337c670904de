"""What a person carries from the server to a device: where it is, how to recognise it, and leave to enrol once.

`fl-server invite` prints one; `fl_client.enrolment` reads it. `fl_server/device_api.proto` documents the bytes.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field

from common.certificates import normal_name
from common.errors import ConfigError

VERSION = 1
TOKEN, FINGERPRINT, PORT, CHECKSUM = 16, 32, 2, 4
"""Sizes in bytes."""

FIXED = 1 + TOKEN + FINGERPRINT + PORT
LONGEST = 8 * (FIXED + 253 + CHECKSUM)


@dataclass(frozen=True)
class JoinCode:
    """One invitation.

    Attributes:
        address: the server's host name or IP address.
        port: of its enrolment listener.
        fingerprint: SHA-256 of its authority's certificate, 64 hexadecimal digits.
        token: the secret of one invitation, 32 hexadecimal digits; it appears in no repr.

    Raises:
        ConfigError: a field is out of range.
    """

    address: str
    port: int
    fingerprint: str
    token: str = field(repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "address", normal_name(self.address))
        if not 1 <= self.port <= 65535:
            raise ConfigError(f"A port is between 1 and 65535, not {self.port}.")
        for name, size in (("fingerprint", FINGERPRINT), ("token", TOKEN)):
            if not re.fullmatch(f"[0-9a-f]{{{2 * size}}}", getattr(self, name)):
                raise ConfigError(f"A join code's {name} has {2 * size} hexadecimal digits.")

    def encode(self) -> str:
        """The code as text: capital letters and digits 2 to 7, in one piece; 95 characters or so."""
        content = bytes([VERSION]) + bytes.fromhex(self.token) + bytes.fromhex(self.fingerprint)
        content += self.port.to_bytes(PORT) + self.address.encode("ascii")
        return base64.b32encode(content + _checksum(content)).decode().rstrip("=")


def parse_join_code(text: str) -> JoinCode:
    """The code in `text`; spaces, line ends, dashes and lower case do not matter, and 0 and 1 are read as O and I.

    Raises:
        ConfigError: it is no join code, or a character is wrong.
    """
    letters = re.sub(r"[\s-]", "", text).upper().replace("0", "O").replace("1", "I")
    wrong = ConfigError("This is not a join code, or a character of it is wrong or missing: copy it again, whole.")
    if len(letters) > LONGEST:
        raise wrong
    try:
        content = base64.b32decode(letters + "=" * (-len(letters) % 8))
    except (binascii.Error, ValueError) as error:
        raise wrong from error
    body, checksum = content[:-CHECKSUM], content[-CHECKSUM:]
    if len(body) <= FIXED or _checksum(body) != checksum or base64.b32encode(content).decode().rstrip("=") != letters:
        raise wrong
    if body[0] != VERSION:
        raise ConfigError("This join code was made by a newer version of emofl: update this device.")
    token, rest = body[1 : 1 + TOKEN], body[1 + TOKEN :]
    port = int.from_bytes(rest[FINGERPRINT : FINGERPRINT + PORT])
    try:
        address = body[FIXED:].decode("ascii")
    except UnicodeDecodeError as error:
        raise wrong from error
    return JoinCode(address, port, rest[:FINGERPRINT].hex(), token.hex())


def _checksum(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()[:CHECKSUM]
