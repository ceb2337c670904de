"""Depthwise convolutions of 5x5 on small maps, whose weight gradient torch computes five times slower than it could.

oneDNN has no fast path for it: in MobileNetV3-small at 48x48 it takes a fifth of a training step. `speed_up` is for the trainer;
outputs are torch's own, gradients the same sums in another order.
"""

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LARGEST_SIDE = 8
"""Of the input map, in pixels: the work grows with the fourth power of the side."""


class SmallMapDepthwise(nn.Conv2d):
    """A depthwise `Conv2d` without bias that takes the faster way where the map is small, on a CPU."""

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[-1] > LARGEST_SIDE or input.shape[-1] != input.shape[-2] or input.device.type != "cpu":
            return super().forward(input)
        result: Tensor = _Depthwise.apply(input, self.weight, self.stride[0], int(self.padding[0]))
        return result


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(inputs, weight, stride=stride, padding=padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, None, None]:
        inputs, weight = ctx.saved_tensors
        above: Tensor = gradients[0]
        stride, padding = [ctx.stride] * 2, [ctx.padding] * 2
        data: Tensor = torch.ops.aten.convolution_backward(
            above, inputs, weight, None, stride, padding, [1, 1], False, [0, 0], len(weight), [True, False, False]
        )[0]
        return data, weight_gradient(inputs, above, weight.shape[-1], ctx.stride, ctx.padding), None, None


def weight_gradient(inputs: Tensor, above: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """(N, C, S, S) inputs, (N, C, O, O) gradient above -> (C, 1, kernel, kernel).

    First, by one matrix product per channel, the sum over examples of every input pixel with every output pixel; then each
    weight collects the pairs that it connects.
    """
    count, channels, side, _ = inputs.shape
    out = above.shape[-1]
    left = inputs.permute(0, 2, 3, 1).reshape(count, side * side, channels).permute(2, 1, 0).contiguous()
    right = above.permute(0, 2, 3, 1).reshape(count, out * out, channels).permute(2, 0, 1).contiguous()
    pairs = torch.bmm(left, right).view(channels, -1)
    return (pairs @ _taps(side, out, kernel, stride, padding, above.dtype)).view(channels, 1, kernel, kernel)


@lru_cache(maxsize=64)
def _taps(side: int, out: int, kernel: int, stride: int, padding: int, dtype: torch.dtype) -> Tensor:
    """(S * S * O * O, kernel * kernel): 1 where a weight connects an input pixel with an output pixel."""
    found = torch.zeros(side, side, out, out, kernel, kernel, dtype=dtype)
    for top in range(out):
        for left in range(out):
            for row in range(kernel):
                for column in range(kernel):
                    y, x = top * stride + row - padding, left * stride + column - padding
                    if 0 <= y < side and 0 <= x < side:
                        found[y, x, top, left, row, column] = 1
    return found.view(-1, kernel * kernel)


def speed_up(network: nn.Module) -> nn.Module:
    """Exchange the network's 5x5 depthwise convolutions, in place; parameters keep their names, order and values."""
    for name, module in list(network.named_modules()):
        if type(module) is nn.Conv2d and _is_slow(module):
            fast = SmallMapDepthwise(
                module.in_channels,
                module.out_channels,
                module.kernel_size[0],
                stride=module.stride[0],
                padding=int(module.padding[0]),
                groups=module.groups,
                bias=False,
            )
            fast.weight = module.weight
            network.set_submodule(name, fast)
    return network


def _is_slow(layer: nn.Conv2d) -> bool:
    depthwise = layer.groups == layer.in_channels == layer.out_channels and layer.bias is None
    square = len({*layer.stride}) == 1 and layer.padding == (2, 2) and layer.dilation == (1, 1)
    return depthwise and square and layer.kernel_size == (5, 5)
