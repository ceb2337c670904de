"""The networks that `benchmarks.architecture` compares: those of `models.mobilenet`, and changes to them."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import nn

from common.config import ModelConfig
from common.emotions import EMOTIONS_7
from models.blocks import SqueezeExcitation
from models.mobilenet import build_model


@dataclass(frozen=True)
class Variant:
    """A network to measure.

    Attributes:
        title: for the table.
        name, stem_stride: of `models.mobilenet`.
        change: what is done to it after it is built.
    """

    title: str
    name: str
    stem_stride: int = 1
    change: Callable[[nn.Module], None] | None = None

    def build(self, classes: tuple[str, ...] = EMOTIONS_7) -> nn.Module:
        torch.manual_seed(0)
        config = {"name": self.name, "stem_stride": self.stem_stride, "classes": classes}
        model = build_model(ModelConfig.model_validate(config))
        if self.change is not None:
            self.change(model)
        return model


def replace(model: nn.Module, kind: type[nn.Module], make: Callable[[nn.Module], nn.Module]) -> None:
    """Put `make(layer)` in the place of each layer of `kind`."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is kind:
                setattr(parent, name, make(child))


def groups_of(size: int) -> Callable[[nn.Module], None]:
    """Groups of `size` channels; the widest that divides a layer's channels where `size` does not."""

    def normal(layer: nn.Module) -> nn.Module:
        channels = layer.get_parameter("weight").numel()
        return nn.GroupNorm(channels // int(np.gcd(channels, size)), channels)

    return partial(replace, kind=nn.GroupNorm, make=normal)


def relu(model: nn.Module) -> None:
    """ReLU instead of hardswish, the last layer's included."""
    replace(model, nn.Hardswish, lambda _: nn.ReLU())


def no_excitation(model: nn.Module) -> None:
    """No squeeze-and-excite."""
    replace(model, SqueezeExcitation, lambda _: nn.Identity())


def plain(model: nn.Module) -> None:
    """Neither hardswish nor squeeze-and-excite."""
    relu(model)
    no_excitation(model)


VARIANTS = (
    Variant("V3-small", "mobilenet_v3_small"),
    Variant("V3-small, stem stride 2", "mobilenet_v3_small", 2),
    Variant("V3-small, half width", "mobilenet_v3_small_050"),
    Variant("V3-small, groups of 4", "mobilenet_v3_small", change=groups_of(4)),
    Variant("V3-small, groups of 16", "mobilenet_v3_small", change=groups_of(16)),
    Variant("V3-small, ReLU", "mobilenet_v3_small", change=relu),
    Variant("V3-small, no squeeze-excite", "mobilenet_v3_small", change=no_excitation),
    Variant("V3-small, ReLU, no squeeze-excite", "mobilenet_v3_small", change=plain),
    Variant("V2 half width", "mobilenet_v2_050"),
    Variant("V2 quarter width", "mobilenet_v2_025"),
    Variant("V2 tiny", "mobilenet_v2_tiny"),
    Variant("V2 tiny, 128 features", "mobilenet_v2_tiny_128"),
)
