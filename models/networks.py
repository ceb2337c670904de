"""MobileNetV2 and MobileNetV3 as whole networks for three channels. `models.mobilenet` makes them ours."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.blocks import Norm, ResidualV2, ResidualV3, convolution, divisible

V2 = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, repeats, stride (Sandler et al. 2018, table 2)."""

_RE, _HS = nn.ReLU, nn.Hardswish
SMALL = (
    (3, 16, 16, True, _RE, 2), (3, 72, 24, False, _RE, 2), (3, 88, 24, False, _RE, 1), (5, 96, 40, True, _HS, 2),
    (5, 240, 40, True, _HS, 1), (5, 240, 40, True, _HS, 1), (5, 120, 48, True, _HS, 1), (5, 144, 48, True, _HS, 1),
    (5, 288, 96, True, _HS, 2), (5, 576, 96, True, _HS, 1), (5, 576, 96, True, _HS, 1),
)  # fmt: skip
LARGE = (
    (3, 16, 16, False, _RE, 1), (3, 64, 24, False, _RE, 2), (3, 72, 24, False, _RE, 1), (5, 72, 40, True, _RE, 2),
    (5, 120, 40, True, _RE, 1), (5, 120, 40, True, _RE, 1), (3, 240, 80, False, _HS, 2), (3, 200, 80, False, _HS, 1),
    (3, 184, 80, False, _HS, 1), (3, 184, 80, False, _HS, 1), (3, 480, 112, True, _HS, 1), (3, 672, 112, True, _HS, 1),
    (5, 672, 160, True, _HS, 2), (5, 960, 160, True, _HS, 1), (5, 960, 160, True, _HS, 1),
)  # fmt: skip
"""Kernel, expanded channels, channels, squeeze-and-excitation, activation, stride (Howard et al. 2019, tables 1 and 2)."""
V3 = {"small": (SMALL, 1024), "large": (LARGE, 1280)}


class Network(nn.Module):
    """Features of (N, 3, H, W), their means, and a classifier: (N, classes) logits."""

    def __init__(self, features: Sequence[nn.Module], classifier: Sequence[nn.Module]) -> None:
        super().__init__()
        self.features = nn.Sequential(*features)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(*classifier)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, 0.01)
                nn.init.zeros_(module.bias)

    def forward(self, input: Tensor) -> Tensor:
        logits: Tensor = self.classifier(torch.flatten(self.avgpool(self.features(input)), 1))
        return logits


def mobilenet_v2(classes: int, norm: Norm, width: float = 1.0, blocks: Sequence[Sequence[int]] = V2) -> Network:
    """`blocks` as in `V2`; `width` scales all channels but the last layer's 1,280 where it is below 1."""
    into = divisible(32 * width)
    last = divisible(1280 * max(1.0, width))
    features: list[nn.Module] = [convolution(3, into, 3, norm, nn.ReLU6, 2)]
    for expansion, channels, repeats, stride in blocks:
        for number in range(repeats):
            out = divisible(channels * width)
            features.append(ResidualV2(into, out, stride if number == 0 else 1, expansion, norm))
            into = out
    features.append(convolution(into, last, 1, norm, nn.ReLU6))
    return Network(features, [nn.Dropout(0.2), nn.Linear(last, classes)])


def mobilenet_v3(classes: int, norm: Norm, size: str, width: float = 1.0) -> Network:
    """`size` is small or large; `width` scales all channels."""
    blocks, last = V3[size]
    into = divisible(16 * width)
    features: list[nn.Module] = [convolution(3, into, 3, norm, nn.Hardswish, 2)]
    for kernel, hidden, channels, excite, activation, stride in blocks:
        out = divisible(channels * width)
        features.append(ResidualV3(into, divisible(hidden * width), out, kernel, excite, activation, stride, norm))
        into = out
    features.append(convolution(into, 6 * into, 1, norm, nn.Hardswish))
    wide = divisible(last * width)
    classifier = [nn.Linear(6 * into, wide), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(wide, classes)]
    return Network(features, classifier)
