"""The privacy badge: what the screen says of a model's promise, of the devices behind it and of its signature.

`registry.py` and `base_model.py` make one per model; `overlay.py` draws it.
"""

from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from enum import Enum

from models.manifest import Cohort, Manifest, PrivacyStatement

NON_PRIVATE = "NON-PRIVATE"
VERIFIED = "signature verified"


class Tone(Enum):
    """How the badge looks: calm, a word of caution, or an alarm."""

    PRIVATE = "private"
    PUBLIC = "public"
    ALARM = "alarm"


@dataclass(frozen=True)
class Badge:
    """What is drawn, a line each.

    Attributes:
        promises: as in "record-level epsilon 7.94"; two promises are two lines, never one number.
        tone: PRIVATE if a promise holds, PUBLIC for a model of public pictures, else ALARM.
        devices: as in "18 of 20 devices, only their sum seen"; empty where no device took part.
        signature: what was verified; empty where nothing was.
    """

    promises: tuple[str, ...]
    tone: Tone
    devices: str = ""
    signature: str = ""

    @property
    def promise(self) -> str:
        """All promises as one text, for a message."""
        return ", ".join(self.promises)

    @property
    def private(self) -> bool:
        """Whether differential privacy protects whoever the model was trained on."""
        return self.tone is Tone.PRIVATE


def badge_of(manifest: Manifest) -> Badge:
    """The badge of a published version whose signature was verified."""
    promises = promises_of(manifest)
    tone = Tone.PRIVATE if promises else Tone.ALARM
    return Badge(promises or (NON_PRIVATE,), tone, devices_of(manifest.cohort), VERIFIED)


def promises_of(manifest: Manifest) -> tuple[str, ...]:
    """What the model promises, record level before client level; empty where it promises nothing."""
    found = {one.unit: one for one in (manifest.privacy, manifest.client_privacy) if one is not None and one.private}
    return tuple(short_privacy(found[unit]) for unit in ("record", "client") if unit in found)


def short_privacy(privacy: PrivacyStatement) -> str:
    """For the screen, as in "record-level epsilon 7.94": rounded up, never down; or "NON-PRIVATE"."""
    if not privacy.private or privacy.epsilon is None:
        return NON_PRIVATE
    epsilon = Decimal(repr(privacy.epsilon)).quantize(Decimal("0.01"), ROUND_CEILING).normalize()
    return f"{privacy.unit}-level epsilon {epsilon:f}"


def devices_of(cohort: Cohort) -> str:
    """As in "18 of 20 devices, only their sum seen"; empty for an initial model."""
    if not cohort.accepted:
        return ""
    counted = f"{cohort.accepted} of {cohort.asked} device{'s' * (cohort.asked != 1)}"
    return f"{counted}, only their sum seen" if cohort.secure else counted
