"""How devices train, and the public class counts that some losses need."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from common.config.base import Settings
from common.emotions import EMOTIONS_8
from common.errors import ConfigError

LEAST_COUNT, LARGEST_COUNT = 1e-6, 1e12
"""Of a class; counts beyond would make weights that are not finite."""
ClassCount = Annotated[float, Field(ge=LEAST_COUNT, le=LARGEST_COUNT)]


LEARNING_RATES = {"sgd": 0.05, "adamw": 0.0005}
"""By optimiser: what a run takes that names none. AdamW moves each weight by about so much in a step, whatever the gradient."""
Optimiser = Literal["sgd", "adamw"]
LossName = Literal["cross-entropy", "class-balanced", "logit-adjusted", "calibrated"]


class TrainConfig(Settings):
    """How a device trains in one round.

    Attributes:
        batch_size: expected examples per step, B. With n faces the Poisson sampling rate is min(1, B / n).
        local_epochs: expected passes over the device's data per round; the steps are ceil(local_epochs * n / B).
        local_steps: a fixed number of steps instead.
        optimiser: `sgd`, or `adamw` (Loshchilov and Hutter 2019, betas 0.9 and 0.999), whose moments begin anew in each round.
        learning_rate: at the first round; the optimiser's own of `LEARNING_RATES` where none is named.
        momentum: of SGD.
        weight_decay: of SGD in the gradient, of AdamW beside it.
        decay: the learning rate falls along a half cosine to this part of itself over the run's rounds; 1 keeps it.
        proximal_mu: FedProx's pull towards the global model (Li et al. 2020, Algorithm 2), 0 without.
        augment: random flips, shifts, small rotations and scales of each face.
        augmentations: K, so many differently augmented copies of each face in a step, their gradients averaged before the face is
            clipped (De et al. 2022): K times the work, the same epsilon.
        loss: `cross-entropy`; `class-balanced` (Cui et al. 2019), which weighs rare classes up; `logit-adjusted` (Menon et
            al. 2021), which learns what would be right if all classes were as frequent; or `calibrated` (balanced softmax by
            device, as in FedRoD, Chen and Chao 2022), which takes out what only comes of a device's own class frequencies.
            See `fl_client.losses`.
        class_counts: how many faces of each class there are, by name: public numbers of all the data there is, from which
            `class-balanced` and `logit-adjusted` make their weights, and whose frequencies `calibrated` keeps instead of even
            ones. Never one device's own: then one face would change what the others weigh.
        balance: beta of the class-balanced loss; 0 weighs all classes alike, towards 1 by the inverse of their counts.
        adjustment: tau of the logit-adjusted and calibrated losses; 1 takes class frequencies out as a whole.
        local_layers: `head`: each device keeps a head of its own, which it neither uploads nor takes from the server
            (FedPer, Arivazhagan et al. 2019); `none`.
    """

    batch_size: int = Field(default=32, ge=1)
    local_epochs: float = Field(default=1.0, gt=0, le=1e6)
    local_steps: int | None = Field(default=None, ge=1)
    optimiser: Optimiser = "sgd"
    learning_rate: float = Field(default_factory=lambda known: LEARNING_RATES[known.get("optimiser", "sgd")], gt=0, le=1e6)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)
    decay: float = Field(default=0.1, gt=0, le=1)
    proximal_mu: float = Field(default=0.0, ge=0)
    augment: bool = True
    augmentations: int = Field(default=1, ge=1, le=32)
    loss: LossName = "cross-entropy"
    class_counts: dict[str, ClassCount] = Field(default_factory=dict, max_length=len(EMOTIONS_8))
    balance: float = Field(default=0.999, ge=0, lt=1)
    adjustment: float = Field(default=1.0, ge=0, le=10)
    local_layers: Literal["none", "head"] = "none"

    @property
    def needs_counts(self) -> bool:
        """Whether the loss cannot be made without public class counts."""
        return self.loss in ("class-balanced", "logit-adjusted")

    @field_validator("class_counts")
    @classmethod
    def _known_names(cls, counts: dict[str, float]) -> dict[str, float]:
        if unknown := sorted(set(counts) - set(EMOTIONS_8)):
            raise ValueError(f"{unknown[0][:80]!r} is no emotion; write one of {', '.join(EMOTIONS_8)}")
        return counts

    @model_validator(mode="after")
    def _different_copies(self) -> Self:
        if self.augmentations > 1 and not self.augment:
            raise ValueError(
                "augmentations above 1 need augment (leave out --no-augment): without it all copies of a face are the same"
            )
        return self


def named_counts(text: str) -> dict[str, float]:
    """Numbers by name from text such as `happiness=7215,fear=4097`, for `train.class_counts`.

    Raises:
        ConfigError: it is written otherwise.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, sign, number = (word.strip() for word in part.partition("="))
        try:
            value = float(number)
        except ValueError:
            value = 0.0
        if not sign or not name or name in found or not LEAST_COUNT <= value <= LARGEST_COUNT:
            raise ConfigError(f"{part.strip()!r} is no count: write each class once, as in happiness=7215,fear=4097.")
        found[name] = value
    return found
