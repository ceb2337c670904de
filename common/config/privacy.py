"""What is promised to each face, and to each device as a whole; and the noisy numbers asked of devices beside training."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from common.config.base import RoundCount, Settings
from common.privacy.release import LARGEST_NORM, LEAST_NORM, Accountant

ClientMode = Literal["none", "central", "distributed"]
"""Who adds the noise for whole devices."""

ClientEpsilon = Annotated[float, Field(gt=0, le=1e3)]
ClippingNorm = Annotated[float, Field(ge=LEAST_NORM, le=LARGEST_NORM)]
Bits = Annotated[int, Field(ge=8, le=24)]
CountNoise = Annotated[float, Field(ge=1e-6, le=1e6)]
"""As `common.privacy.release.Release` takes it: with any other, no device could reckon what its counts cost."""


class PrivacyConfig(Settings):
    """Record-level differential privacy on the device: one face added or removed (add/remove neighbours).

    Attributes:
        private: False trains without any guarantee and marks all that follows as non-private.
        epsilon: ceiling of what a device may have spent in all, this run and everything before it.
        delta: probability with which epsilon may fail to hold; below 1 / n for a device with n faces.
        clipping_norm: largest L2 norm C of one face's gradient. Bounded, since the server names it.
        accountant: `rdp` (Mironov 2017) or `prv` (Gopi et al. 2021, tighter and slower).
        engine: `bookkeeping` or `opacus`: two ways to the same noisy gradients, the first several times faster.
    """

    private: bool = True
    epsilon: float = Field(default=8.0, gt=0)
    delta: float = Field(default=1e-5, gt=0, lt=1)
    clipping_norm: ClippingNorm = 1.0
    accountant: Accountant = "rdp"
    engine: Literal["bookkeeping", "opacus"] = "bookkeeping"


class ClientLevelConfig(Settings):
    """Client-level differential privacy: all faces of one device together, beside whatever each face has.

    Attributes:
        mode: `central`: the server adds the noise, and is trusted to; `distributed`: every device adds its share inside a secure
            sum, so that the server sees a noisy sum only; `none`.
        epsilon, delta: of the whole run; record-level epsilon is another promise, and the two are never added.
        clip: largest L2 norm of a device's update.
        adaptive: let the clip follow the median of the updates' norms (central; Andrew et al. 2021).
        bits: width of the integers that hold a distributed sum.
    """

    mode: ClientMode = "none"
    epsilon: ClientEpsilon = 8.0
    delta: float = Field(default=1e-5, gt=0, lt=1)
    clip: ClippingNorm = 1.0
    adaptive: bool = False
    bits: Bits = 20

    @model_validator(mode="after")
    def _central_alone(self) -> Self:
        if self.adaptive and self.mode != "central":
            raise ValueError("adaptive (--adaptive-clip) needs mode central (--client-dp central)")
        return self


class ClientLevelRequest(Settings):
    """What a device is asked to do for client-level privacy in one round.

    Attributes:
        mode, epsilon, delta, clip, bits: as in `ClientLevelConfig`, the clip as it stands in this round.
        noise_multiplier: z, of the noise in the sum, in units of the clip.
        rounds: for which the promise is.
    """

    mode: Literal["central", "distributed"]
    epsilon: ClientEpsilon
    delta: float = Field(gt=0, lt=1)
    clip: ClippingNorm
    bits: Bits
    noise_multiplier: float = Field(ge=1e-2, le=1e4)
    rounds: RoundCount


class EvaluationConfig(Settings):
    """Noisy numbers about the devices' own faces, in the secure sum: how well the model does, and what emotions there are.

    Attributes:
        federated: ask how well the model does before each round: the global one, with `train.local_layers` head the global one's
            other layers under each device's own head.
        class_histogram: ask in one round how many faces of each class there are; the rounds after it train with these
            `train.class_counts` where the loss takes any, and a private run's models are published with them.
        noise_multiplier: of each device's noise on its counts, in units of how far one face moves them; it is debited beside the
            training, at a sampling rate of 1.
    """

    federated: bool = False
    class_histogram: bool = False
    noise_multiplier: CountNoise = 8.0
