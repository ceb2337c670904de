"""The network's settings."""

from typing import Literal, Self

from pydantic import Field, model_validator

from common.config.base import Settings
from common.emotions import EMOTIONS_7, EMOTIONS_8

Trainable = Literal["full", "last-block", "head", "last-layer"]
"""Parts of a network, from most to least parameters; `models.subset` says which layers they are."""


class ModelConfig(Settings):
    """The network and what of it is trained.

    Attributes:
        name: a variant of `models.mobilenet`.
        stem_stride: 1 keeps the resolution of small faces, 2 is three times as fast.
        classes: canonical emotion names, in the order of the logits.
        trainable: `full`; `last-block`; `head`, all layers after the convolutions; or `last-layer`, the last linear one of these.
        dropout: before the last layer; 0 keeps local training a function of its seed.
    """

    name: str = "mobilenet_v3_small"
    stem_stride: Literal[1, 2] = 1
    classes: tuple[str, ...] = EMOTIONS_7
    trainable: Trainable = "full"
    dropout: float = Field(default=0.0, ge=0, lt=1)

    @property
    def only_the_head(self) -> bool:
        """Whether nothing before the head is trained."""
        return self.trainable in ("head", "last-layer")

    @model_validator(mode="after")
    def _known_classes(self) -> Self:
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2 or set(self.classes) - set(EMOTIONS_8):
            raise ValueError(f"classes must be two or more different names out of {', '.join(EMOTIONS_8)}")
        return self
