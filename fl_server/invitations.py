"""Single-use, expiring tokens that let one device enrol. `fl-server invite` makes them, the device API redeems them.

The file holds SHA-256 hashes only: who reads it can enrol nothing. All processes of the server share it.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from common.canonical import encode, sha256
from common.device_api.refusals import InvitationExpired, InvitationUnknown, InvitationUsed
from common.errors import ConfigError, IntegrityError
from common.files import locked, read_plain, write_atomic

TOKEN_BYTES = 16
SHORTEST, LONGEST = timedelta(minutes=1), timedelta(days=30)
REMEMBERED = timedelta(days=30)
"""So long after its end a token is still called expired or used, and not unknown."""

FILE_LIMIT = 1 << 24


class Invitation(BaseModel):
    """One token, as it is remembered.

    Attributes:
        token_sha256: of the token's 32 hexadecimal digits.
        expires: UTC.
        holder: fingerprint of the key that redeemed it, None while it is open.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    token_sha256: str
    expires: AwareDatetime
    holder: str | None = None


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    invitations: dict[str, Invitation] = {}


class Invitations:
    """The invitations in one file (0600).

    Args:
        path: the file; it is made at the first invitation.
        now: the clock, UTC.
    """

    def __init__(self, path: Path, now: Callable[[], datetime]) -> None:
        self.path, self.now = path, now

    def create(self, lifetime: timedelta) -> str:
        """A new token, 32 hexadecimal digits, good for `lifetime` from now.

        Raises:
            ConfigError: the lifetime is not between a minute and 30 days.
        """
        if not SHORTEST <= lifetime <= LONGEST:
            raise ConfigError("An invitation holds for one minute at least and 30 days at most.")
        token = secrets.token_hex(TOKEN_BYTES)
        with self._alone():
            made = Invitation(token_sha256=sha256(token.encode()), expires=self.now() + lifetime)
            self._write(self._read() | {made.token_sha256: made})
        return token

    def open_invitations(self) -> tuple[Invitation, ...]:
        """Those that can still be redeemed, the first to expire first."""
        found = [i for i in self._read().values() if i.holder is None and i.expires > self.now()]
        return tuple(sorted(found, key=lambda invitation: invitation.expires))

    def is_open(self, token: str) -> bool:
        """Whether `token` can still be redeemed by anybody."""
        digest = sha256(token.encode())
        return any(invitation.token_sha256 == digest for invitation in self.open_invitations())

    def redeem(self, token: str, holder: str) -> None:
        """Use the token up. Of two devices at once, in any processes, one gets it.

        Args:
            holder: fingerprint of the redeeming device's key. The same holder may redeem again until the token expires,
                so that an answer lost on the way costs nothing.

        Raises:
            InvitationUnknown: nobody made it.
            InvitationUsed: another holder redeemed it.
            InvitationExpired: it is too late.
        """
        digest = sha256(token.encode())
        if digest not in self._read():
            raise InvitationUnknown
        with self._alone():
            invitations = self._read()
            found = invitations.get(digest)
            if found is None:
                raise InvitationUnknown
            if found.holder not in (None, holder):
                raise InvitationUsed
            if found.expires <= self.now():
                raise InvitationExpired
            if found.holder is None:
                self._write(invitations | {digest: found.model_copy(update={"holder": holder})})

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(self.path.with_suffix(".lock")):
            yield

    def _read(self) -> dict[str, Invitation]:
        if not self.path.exists():
            return {}
        try:
            return _File.model_validate_json(read_plain(self.path, FILE_LIMIT)).invitations
        except ValidationError as error:
            raise IntegrityError(
                f"{self.path} is damaged: delete it, and give new join codes to the devices that have not used theirs."
            ) from error

    def _write(self, invitations: dict[str, Invitation]) -> None:
        kept = {digest: i for digest, i in invitations.items() if i.expires + REMEMBERED > self.now()}
        write_atomic(self.path, encode(_File(invitations=kept).model_dump(mode="json")), mode=0o600)
