"""What private training gives away, in the numbers that an accountant needs: ledgers keep them, accountants add them up.

It imports nothing heavy, so that a process that only reads a ledger stays small.
"""

from dataclasses import dataclass
from typing import Literal

from common.errors import PrivacyError

Accountant = Literal["rdp", "prv"]

LEAST_NORM, LARGEST_NORM = 1e-6, 1e6
"""To which anything is clipped: far below 1, noise and norms would be lost in float32."""


@dataclass(frozen=True)
class Release:
    """`steps` noisy gradient sums.

    Attributes:
        noise_multiplier: sigma; the noise's standard deviation is sigma times the clipping norm.
        sample_rate: q in (0, 1].
        steps: how many sums were released.
    """

    noise_multiplier: float
    sample_rate: float
    steps: int

    def __post_init__(self) -> None:
        if not 1e-6 <= self.noise_multiplier <= 1e6:
            raise PrivacyError(f"A private release needs a noise multiplier from 1e-6 to 1e6, not {self.noise_multiplier}.")
        if not 0 < self.sample_rate <= 1 or self.steps < 1:
            raise PrivacyError(f"A release needs a rate in (0, 1] and steps, not {self.sample_rate} and {self.steps}.")
