"""The device's own rules. A server's request is a wish; what breaks a rule here is refused before anything is computed.

Pure: each rule answers with an objection, a sentence for the device's owner, or None. `fl_client.policy_file` keeps them.
"""

import re
from datetime import datetime, time

from pydantic import Field, field_validator

from common.config import ClientLevelRequest, PrivacyConfig, Settings
from common.secagg.graph import SMALLEST

SIDE, LARGEST_SIDE = 48, 256
"""Of a face in pixels: the side that `largest_batch` is meant for, and the largest that is taken. The server names it, and
whatever the batch, at least `common.privacy.dpsgd.rows.LEAST` faces are computed at once: of 256x256, 1.2 GB in the default
network with one thread."""
LARGEST_OPACUS = 512
"""Faces of `SIDE` in a step by Opacus, whatever `largest_batch` says: it keeps each face's gradient of every weight at once, 12
MB a face for the default network, where book-keeping computes in parts."""

WINDOW = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])-([01][0-9]|2[0-3]):([0-5][0-9])")


class Policy(Settings):
    """What the device's owner allows; each field's description says what it means."""

    largest_epsilon: float = Field(
        default=8.0, gt=0, description="Ceiling of everything ever spent on these faces, whoever asks (record level)."
    )
    largest_delta: float = Field(
        default=1e-5, gt=0, lt=1, description="Ceiling of delta; it must stay below 1 / faces in any case."
    )
    allow_non_private: bool = Field(default=False, description="Take part in runs without any privacy.")
    require_secure_aggregation: bool = Field(
        default=True, description="Send an update into a secure sum alone, never in the clear to the server."
    )
    smallest_cohort: int = Field(default=SMALLEST, ge=SMALLEST, description="Devices that a secure sum must hold at least.")
    accept_new_devices: bool = Field(default=True, description="Add up with devices that this one has not met before.")
    hours: tuple[str, ...] = Field(
        default=(), description="When to ask for work, local time, as 22:00-06:00; several are separated by commas; none: always."
    )
    allowed_servers: tuple[str, ...] = Field(
        default=(), description="Fingerprints of servers' authorities, 64 hexadecimal digits; none: the one that was joined."
    )
    largest_client_epsilon: float | None = Field(
        default=None,
        gt=0,
        description="Ceiling of all runs' client-level epsilons together, with noise by the devices; none: no such demand.",
    )
    most_steps: int = Field(default=10_000, ge=1, description="Training steps of one round.")
    largest_batch: int = Field(
        default=4096, ge=1, description=f"Faces of one training step, as expected; fewer if larger than {SIDE}x{SIDE} pixels."
    )

    @field_validator("hours")
    @classmethod
    def _known_hours(cls, windows: tuple[str, ...]) -> tuple[str, ...]:
        for window in windows:
            found = WINDOW.fullmatch(window)
            if found is None or found.group(1, 2) == found.group(3, 4):
                raise ValueError(f"{window!r} is no time of day: write 22:00-06:00, and nothing for the whole day")
        return windows

    @field_validator("allowed_servers")
    @classmethod
    def _known_servers(cls, fingerprints: tuple[str, ...]) -> tuple[str, ...]:
        for fingerprint in fingerprints:
            if not re.fullmatch(r"[0-9a-f]{64}", fingerprint):
                raise ValueError(f"{fingerprint[:80]!r} is no fingerprint: it has 64 hexadecimal digits, in lower case")
        return fingerprints

    def out_of_hours(self, now: datetime) -> str | None:
        """Why no work is asked for at `now`, the device's local time. A window holds its first minute and not its last."""
        clock = now.time().replace(tzinfo=None)
        for window in self.hours:
            first, last = (time.fromisoformat(part) for part in window.split("-"))
            if first <= clock < last if first < last else clock >= first or clock < last:
                return None
        return f"It is {clock:%H:%M}, outside of this device's hours ({', '.join(self.hours)})." if self.hours else None

    def strange_server(self, authority: str) -> str | None:
        """Why nothing is done for the server whose authority's certificate has this fingerprint, 64 hexadecimal digits."""
        if self.allowed_servers and authority not in self.allowed_servers:
            return f"The server's fingerprint {authority} is not among the servers that this device allows (allowed_servers)."
        return None

    def too_much(self, wish: PrivacyConfig, steps: int, batch: float, faces: int, side: int = SIDE) -> str | None:
        """Why a round is refused for this device's number of faces, or None.

        Args:
            steps, batch: of the round; expected examples of a step.
            faces: their coarse number, which is all that a refusal may depend on.
            side: of a face in pixels.
        """
        if steps > self.most_steps or batch > self.largest_batch:
            return (
                f"The server asks for {steps} steps of about {batch:.0f} faces; this device allows {self.most_steps} of "
                f"{self.largest_batch}."
            )
        whole = wish.private and wish.engine == "opacus"
        most = (min(self.largest_batch, LARGEST_OPACUS) if whole else self.largest_batch) * SIDE**2 // side**2
        if batch > most:
            return (
                f"The server asks for steps of about {batch:.0f} faces of {side}x{side} pixels; this device allows "
                f"{most} as large " + ("with Opacus's engine." if whole else "(largest_batch).")
            )
        if wish.private and wish.delta * 1.25 * faces >= 1:
            return f"The server asks for delta {wish.delta:g}, which promises nothing to each of about {faces} faces."
        return None

    def objection(
        self,
        wish: PrivacyConfig,
        *,
        secure: bool = True,
        cohort: int | None = None,
        client_level: ClientLevelRequest | None = None,
        side: int = SIDE,
    ) -> str | None:
        """Why a request is refused, whatever faces there are, as a sentence for the device's owner, or None.

        Args:
            secure: whether the update would go into a secure sum.
            cohort: devices whose updates would be added up, where that is known already.
            client_level: the client-level promise, if the request makes one.
            side: of a face in pixels.
        """
        if side > LARGEST_SIDE:
            return f"The server asks for faces of {side}x{side} pixels; devices take up to {LARGEST_SIDE}x{LARGEST_SIDE}."
        if self.require_secure_aggregation and not secure:
            return "The server asks for this device's update by itself; this device sends it into a secure sum alone."
        if cohort is not None and cohort < self.smallest_cohort:
            return f"The server asks for a cohort of {cohort} devices; this device takes part from {self.smallest_cohort} on."
        shares = secure and client_level is not None and client_level.mode == "distributed"
        if self.largest_client_epsilon is not None and not shares:
            return (
                "The server asks for no noise shares; this device takes part in runs with distributed client-level privacy alone."
            )
        if client_level is not None and client_level.delta > self.largest_delta:
            return (
                f"The server asks for a client-level delta of {client_level.delta:g}; this device allows {self.largest_delta:g}."
            )
        if not wish.private:
            return (
                None if self.allow_non_private else "The server asks to train without privacy, which this device does not allow."
            )
        if wish.epsilon > self.largest_epsilon:
            return f"The server asks for epsilon {wish.epsilon:g}; this device allows {self.largest_epsilon:g}."
        if wish.delta > self.largest_delta:
            return f"The server asks for delta {wish.delta:g}; this device allows {self.largest_delta:g}."
        return None
