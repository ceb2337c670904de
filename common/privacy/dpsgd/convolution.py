"""Depthwise and dense convolutions that enter per-example gradients into the books. `common.privacy.dpsgd.layers` uses them."""

from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.privacy.dpsgd.books import Books

GATHERED = 400_000
"""Input values that one call of the depthwise weight gradient takes: fewer waste calls, more fall out of the cache."""


class RecordedConvolution(torch.autograd.Function):
    """Depthwise or dense convolution of (N, in, H, W) with zero padding."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, layer: nn.Conv2d, books: Books) -> Tensor:
        ctx.save_for_backward(inputs)
        ctx.layer, ctx.books = layer, books
        return F.conv2d(inputs, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inputs,), layer, books = ctx.saved_tensors, ctx.layer, ctx.books
        grads = gradients[0].contiguous(memory_format=torch.channels_last)
        if layer.bias is not None and layer.bias.requires_grad:
            books.formed(layer.bias, grads.sum((2, 3)))
        if layer.weight.requires_grad:
            if layer.groups == 1:
                rows, columns = _patches(layer, inputs, grads), grads.permute(0, 2, 3, 1).flatten(1, 2)
                books.outer(layer.weight, rows, columns)
            elif layer.kernel_size == (3, 3):
                books.formed(layer.weight, _depthwise_gathered(layer, inputs, grads))
            else:
                books.formed(layer.weight, _depthwise_folded(layer, inputs, grads))
        back = _convolution_backward(grads, inputs, layer.weight, layer, layer.groups, 0) if ctx.needs_input_grad[0] else None
        return back, None, None, None, None


def _convolution_backward(grads: Tensor, inputs: Tensor, weight: Tensor, layer: nn.Conv2d, groups: int, which: int) -> Tensor:
    """The gradient by the input (`which` 0) or by the weight (1)."""
    back: Tensor = torch.ops.aten.convolution_backward(
        grads, inputs, weight, None, layer.stride, layer.padding, layer.dilation, False, [0, 0], groups,
        [which == 0, which == 1, False],
    )[which]  # fmt: skip
    return back


def _patches(layer: nn.Conv2d, inputs: Tensor, grads: Tensor) -> Tensor:
    """(N, T, in * kh * kw): what the kernel sees at each of the T places, in the weight's order. Copies of whole rows: `unfold` is slower."""
    (above, left), (down, right), (tall, wide) = layer.padding, layer.stride, layer.dilation
    height, width = (down * (grads.shape[2] - 1) + 1, right * (grads.shape[3] - 1) + 1)
    padded = F.pad(inputs, (left, left, above, above))
    taps = [
        padded[:, :, i * tall : i * tall + height : down, j * wide : j * wide + width : right]
        for i, j in product(range(layer.kernel_size[0]), range(layer.kernel_size[1]))
    ]
    return torch.stack(taps, 2).flatten(3).flatten(1, 2).transpose(1, 2)


def _depthwise_gathered(layer: nn.Conv2d, inputs: Tensor, grads: Tensor) -> Tensor:
    """(N, C, 1, kh, kw): the library's own weight gradient, with a few examples at a time side by side as channels."""
    examples, channels, height, width = inputs.shape
    step = max(1, min(examples, GATHERED // (channels * height * width)))
    weight = layer.weight.detach().repeat(step, 1, 1, 1)
    found = []
    for start in range(0, examples, step):
        beside, behind = (_side_by_side(values[start : start + step]) for values in (inputs, grads))
        groups = beside.shape[1]
        found.append(_convolution_backward(behind, beside, weight[:groups], layer, groups, 1))
    return torch.cat(found).view(examples, *layer.weight.shape)


def _side_by_side(values: Tensor) -> Tensor:
    """(N, C, H, W) -> (1, N * C, H, W), channels last."""
    examples, channels, height, width = values.shape
    return values.permute(2, 3, 0, 1).reshape(1, height, width, examples * channels).permute(0, 3, 1, 2)


def _depthwise_folded(layer: nn.Conv2d, inputs: Tensor, grads: Tensor) -> Tensor:
    """(N, C, 1, kh, kw): a depthwise convolution of the inputs with the gradients, the batch folded into the groups.

    Stride and dilation change places. Faster than `_depthwise_gathered` for kernels that the library has no fast gradient for.
    """
    examples, channels, height, width = inputs.shape
    folded = F.conv2d(
        inputs.contiguous().view(1, examples * channels, height, width),
        grads.contiguous().view(examples * channels, 1, *grads.shape[2:]),
        padding=layer.padding,
        stride=layer.dilation,
        dilation=layer.stride,
        groups=examples * channels,
    )
    return folded[0, :, : layer.kernel_size[0], : layer.kernel_size[1]].reshape(examples, *layer.weight.shape)
