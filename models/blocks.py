"""The blocks of MobileNetV2 and V3: Sandler et al. 2018 (arXiv:1801.04381), Howard et al. 2019 (arXiv:1905.02244).

Modules, parameter names, their order and their first draws are torchvision's, so that its checkpoints fit. Ours because importing
torchvision takes a device as long as importing torch, and because no activation and no sum may work in place here.
"""

from collections.abc import Callable

from torch import Tensor, nn

Norm = Callable[[int], nn.Module]


def divisible(channels: float) -> int:
    """The multiple of 8 next to `channels`, at least 8 and at least nine tenths of `channels`."""
    found = max(8, int(channels + 4) // 8 * 8)
    return found + 8 if found < 0.9 * channels else found


def convolution(
    into: int, out: int, kernel: int, norm: Norm, activation: type[nn.Module] | None, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution without bias, its normalisation, and an activation if there is one; the sides stay but for the stride."""
    layers = [nn.Conv2d(into, out, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False), norm(out)]
    return nn.Sequential(*layers, *([] if activation is None else [activation()]))


class SqueezeExcitation(nn.Module):
    """(N, C, H, W) times one factor per channel in [0, 1], found from the channels' means (Hu et al. 2018, arXiv:1709.01507)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = nn.ReLU()
        self.scale_activation = nn.Hardsigmoid()

    def factors(self, input: Tensor) -> Tensor:
        """(N, C, 1, 1)."""
        found: Tensor = self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(input)))))
        return found

    def forward(self, input: Tensor) -> Tensor:
        return self.factors(input) * input


class ResidualV2(nn.Module):
    """Widen by 1x1, filter each channel, narrow by 1x1; the input is added where shapes agree."""

    def __init__(self, into: int, out: int, stride: int, expansion: int, norm: Norm) -> None:
        super().__init__()
        hidden = into * expansion
        self.residual = stride == 1 and into == out
        layers: list[nn.Module] = [] if expansion == 1 else [convolution(into, hidden, 1, norm, nn.ReLU6)]
        layers.append(convolution(hidden, hidden, 3, norm, nn.ReLU6, stride, hidden))
        self.conv = nn.Sequential(*layers, nn.Conv2d(hidden, out, 1, bias=False), norm(out))

    def forward(self, input: Tensor) -> Tensor:
        result: Tensor = self.conv(input)
        return input + result if self.residual else result


class ResidualV3(nn.Module):
    """As V2's, with a choice of kernel and activation, and squeeze-and-excitation before the narrowing."""

    def __init__(
        self, into: int, hidden: int, out: int, kernel: int, excite: bool, activation: type[nn.Module], stride: int, norm: Norm
    ) -> None:
        super().__init__()
        self.residual = stride == 1 and into == out
        layers: list[nn.Module] = [] if hidden == into else [convolution(into, hidden, 1, norm, activation)]
        layers.append(convolution(hidden, hidden, kernel, norm, activation, stride, hidden))
        if excite:
            layers.append(SqueezeExcitation(hidden, divisible(hidden // 4)))
        self.block = nn.Sequential(*layers, convolution(hidden, out, 1, norm, None))

    def forward(self, input: Tensor) -> Tensor:
        result: Tensor = self.block(input)
        return result + input if self.residual else result
