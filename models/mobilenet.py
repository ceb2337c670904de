"""MobileNets with GroupNorm for small grey faces. Everybody calls `build_model`.

GroupNorm (Wu and He 2018) normalises each example by itself, which per-example clipping needs; `models.isolation` checks it.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from common.config import ModelConfig
from common.errors import ModelError
from models.blocks import convolution
from models.networks import mobilenet_v2, mobilenet_v3

GROUP_SIZE = 8
"""Channels per normalisation group; every MobileNet width is a multiple of 8."""


def group_norm(channels: int) -> nn.GroupNorm:
    """The norm layer of every variant: groups of `GROUP_SIZE` channels."""
    return nn.GroupNorm(channels // GROUP_SIZE, channels)


TINY_BLOCKS = [[1, 16, 1, 1], [4, 24, 1, 2], [4, 32, 2, 2], [4, 64, 1, 2]]
"""Expansion, channels, repeats, stride: five blocks instead of seventeen, which learn from scratch in far fewer steps."""

NARROW_FEATURES = 128
"""Width of the narrow tiny variant's last layer. MobileNetV2's 1,280 hold two thirds of the tiny variant's 129,000 parameters:
without privacy they learn faster, under DP each of them carries noise."""


def _mobilenet_v2_tiny_128(classes: int) -> nn.Module:
    network = mobilenet_v2(classes, group_norm, blocks=TINY_BLOCKS)
    network.features[-1] = convolution(TINY_BLOCKS[-1][1], NARROW_FEATURES, 1, group_norm, nn.ReLU6)
    head = nn.Linear(NARROW_FEATURES, classes)
    nn.init.normal_(head.weight, 0, 0.01)
    nn.init.zeros_(head.bias)
    network.classifier[-1] = head
    return network


VARIANTS: dict[str, Callable[[int], nn.Module]] = {
    "mobilenet_v3_small": partial(mobilenet_v3, norm=group_norm, size="small", width=1.0),
    "mobilenet_v3_small_050": partial(mobilenet_v3, norm=group_norm, size="small", width=0.5),
    "mobilenet_v3_large": partial(mobilenet_v3, norm=group_norm, size="large", width=1.0),
    "mobilenet_v2_tiny": partial(mobilenet_v2, norm=group_norm, blocks=TINY_BLOCKS),
    "mobilenet_v2_tiny_128": _mobilenet_v2_tiny_128,
    "mobilenet_v2_025": partial(mobilenet_v2, norm=group_norm, width=0.25),
    "mobilenet_v2_050": partial(mobilenet_v2, norm=group_norm, width=0.5),
    "mobilenet_v2_100": partial(mobilenet_v2, norm=group_norm, width=1.0),
}


def build_model(config: ModelConfig) -> nn.Module:
    """A network of `config.name`: (N, 1, 48, 48) float32 -> logits (N, len(config.classes)); weights from torch's generator.

    Convolutions start at variance 2 / fan-in (He et al. 2015, section 2.2), not MobileNet's usual 2 / fan-out. A normalisation
    group then has the same weight norm in every layer, and so the same effective learning rate (van Laarhoven 2017, section 3);
    with fan-out a depthwise layer of 96 channels moves a hundred times as fast as its neighbours, and noise drowns it first.

    The stem takes one grey channel at `config.stem_stride` (1 keeps the resolution of small faces; 2 costs a quarter). No
    activation works in place, so that per-sample hooks see what they saved. The model has parameters only, no buffers,
    and lies in memory channels last, which is twice as fast on CPUs.

    Raises:
        ModelError: the name is unknown.
    """
    if config.name not in VARIANTS:
        raise ModelError(f"There is no model {config.name!r}; choose one of {', '.join(VARIANTS)}.")
    model = VARIANTS[config.name](len(config.classes))
    stem = model.get_submodule("features.0")
    if not isinstance(stem, nn.Sequential) or not isinstance(stem[0], nn.Conv2d):
        raise ModelError(f"{config.name} does not begin with a convolution.")
    stem[0] = nn.Conv2d(1, stem[0].out_channels, kernel_size=3, stride=config.stem_stride, padding=1, bias=False)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.bias is None:
            nn.init.kaiming_normal_(module.weight, mode="fan_in")
        if isinstance(module, nn.Dropout):
            module.p = config.dropout
    return model.to(memory_format=torch.channels_last)
