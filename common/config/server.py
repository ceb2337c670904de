"""Rounds, cohorts, the server's optimiser, and how updates travel to it."""

from typing import Literal, Self

from pydantic import Field, model_validator

from common.config.base import RoundCount, Settings

Strategy = Literal["fedavg", "fedprox", "fedavgm", "fedadam"]
Precision = Literal["float32", "float16", "int16", "int8"]


class ServerConfig(Settings):
    """Rounds, cohort and the server's optimiser.

    Attributes:
        rounds: how many rounds the run has.
        cohort: devices asked per round; None asks all.
        min_replies: replies below which a round is not accepted.
        round_timeout: seconds after which a round goes on without the missing devices.
        patience: once three quarters of a cohort have answered, the others get this many times as long as those took, and
            half a minute at least.
        strategy: `fedavg`, `fedprox`, `fedavgm` or `fedadam`.
        server_learning_rate: of FedAvgM and FedAdam; None takes the strategy's default (1.0 and 0.01).
        server_momentum: FedAvgM's momentum, FedAdam's beta_1.
        ema: evaluate and publish a moving average of the global models; this much of the old average stays each round, 0 without.
        keep_models: how many of the newest published models stay in the registry; None keeps all, 12 MB a round for the base.
        max_update_norm: an update with a larger L2 norm is left out; of a secure sum, the whole round is, by the mean's norm.
    """

    rounds: RoundCount = 20
    cohort: int | None = Field(default=None, ge=1)
    min_replies: int = Field(default=2, ge=1)
    round_timeout: float = Field(default=3600.0, gt=0)
    patience: float = Field(default=3.0, ge=1)
    strategy: Strategy = "fedavg"
    server_learning_rate: float | None = Field(default=None, gt=0, le=1e6)
    server_momentum: float = Field(default=0.9, ge=0, lt=1)
    ema: float = Field(default=0.0, ge=0, lt=1)
    keep_models: int | None = Field(default=None, ge=1)
    max_update_norm: float = Field(default=1000.0, gt=0, le=1000.0)

    @model_validator(mode="after")
    def _enough(self) -> Self:
        if self.cohort is not None and self.cohort < self.min_replies:
            raise ValueError(f"cohort {self.cohort} can never give min_replies {self.min_replies}")
        return self


class UploadConfig(Settings):
    """How a device's update travels.

    Attributes:
        secure: under secure aggregation: the server learns the sum of a cohort's updates and none of them.
        clip: largest magnitude of one value in a secure sum; what is beyond is cut off on the device.
        step_timeout: seconds that each step of a secure sum waits for devices.
        precision: how a value is rounded. In secure sums: `float32`, 32-bit integers, as fine as the cohort allows; or `int16`,
            16 bits and log2(cohort) more. Where sums are not secure: `float32`, `float16`, `int16` or `int8`.
    """

    secure: bool = True
    clip: float = Field(default=2.0, gt=0, le=1e3)
    step_timeout: float = Field(default=120.0, gt=0)
    precision: Precision = "float32"

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.secure and self.precision not in ("float32", "int16"):
            raise ValueError(
                f"precision {self.precision} (--upload) is for updates in the clear: secure sums have float32 or int16; "
                "choose one of these, or add --no-secure-aggregation"
            )
        return self
