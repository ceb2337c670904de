"""Convolutions that enter per-example gradients into the books. `common.privacy.dpsgd.layers` uses them."""

from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.privacy.dpsgd.books import Books
from common.privacy.dpsgd.native import kernels

GATHERED = 400_000
"""Input values that one call of the depthwise weight gradient takes: fewer waste calls, more fall out of the cache."""

Padding = tuple[int, int]


class RecordedConvolution(torch.autograd.Function):
    """Convolution of (N, in, H, W) with `padding` zeros on either side; the layer gives stride, dilation and groups."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, layer: nn.Conv2d, padding: Padding, books: Books
    ) -> Tensor:
        ctx.layer, ctx.padding, ctx.books = layer, padding, books
        ctx.native = kernels.depthwise_fits(layer, padding) and _covers(inputs, layer, padding) and kernels.fits(inputs, weight)
        if ctx.native:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
            ctx.save_for_backward(inputs)
            return kernels.depthwise(inputs, weight, layer.stride[0], padding[0])
        ctx.save_for_backward(inputs)
        return F.conv2d(inputs, weight, bias, layer.stride, padding, layer.dilation, layer.groups)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inputs,), layer, padding, books = ctx.saved_tensors, ctx.layer, ctx.padding, ctx.books
        grads = gradients[0].contiguous(memory_format=torch.channels_last)
        if ctx.native:
            back, found = kernels.depthwise_backward(
                inputs,
                grads,
                layer.weight,
                layer.stride[0],
                padding[0],
                by_input=ctx.needs_input_grad[0],
                by_weight=layer.weight.requires_grad,
            )
            if found is not None:
                books.formed(layer.weight, found, taps_first)
            return back, None, None, None, None, None
        if layer.bias is not None and layer.bias.requires_grad:
            books.formed(layer.bias, grads.sum((2, 3)))
        if layer.weight.requires_grad:
            if layer.groups == 1:
                patches = _patches(layer, padding, inputs, grads).flatten(1, 2).transpose(1, 2)
                books.outer(layer.weight, patches, grads.permute(0, 2, 3, 1).flatten(1, 2))
            else:
                books.formed(layer.weight, _grouped_gradients(layer, padding, inputs, grads))
        back = None
        if ctx.needs_input_grad[0]:
            back = _convolution_backward(layer, padding, grads, inputs, layer.weight, layer.groups, 0)
        return back, None, None, None, None, None


def _covers(inputs: Tensor, layer: nn.Conv2d, padding: Padding) -> bool:
    """Whether the kernel fits into the padded input; where not, torch says so."""
    return min(inputs.shape[2:]) + 2 * padding[0] >= layer.kernel_size[0]


def taps_first(weight: Tensor) -> Tensor:
    """(C, 1, K, K) -> (K, K, C), the order in which the native kernel gives a depthwise weight's gradient; a view."""
    return weight[:, 0].permute(1, 2, 0)


def _convolution_backward(
    layer: nn.Conv2d, padding: Padding, grads: Tensor, inputs: Tensor, weight: Tensor, groups: int, which: int
) -> Tensor:
    """The gradient by the input (`which` 0) or by the weight (1)."""
    back: Tensor = torch.ops.aten.convolution_backward(
        grads, inputs, weight, None, layer.stride, padding, layer.dilation, False, [0, 0], groups,
        [which == 0, which == 1, False],
    )[which]  # fmt: skip
    return back


def _patches(layer: nn.Conv2d, padding: Padding, inputs: Tensor, grads: Tensor) -> Tensor:
    """(N, in, kh * kw, T): what the kernel sees at each of the T places. Whole rows are copied; `unfold` is slow."""
    (down, right), (tall, wide) = layer.stride, layer.dilation
    height, width = down * (grads.shape[2] - 1) + 1, right * (grads.shape[3] - 1) + 1
    padded = F.pad(inputs, (padding[1], padding[1], padding[0], padding[0]))
    taps = [
        padded[:, :, i * tall : i * tall + height : down, j * wide : j * wide + width : right]
        for i, j in product(range(layer.kernel_size[0]), range(layer.kernel_size[1]))
    ]
    return torch.stack(taps, 2).flatten(3)


def _grouped_gradients(layer: nn.Conv2d, padding: Padding, inputs: Tensor, grads: Tensor) -> Tensor:
    """(N, out, in / groups, kh, kw)."""
    if layer.groups == layer.in_channels == layer.out_channels:
        way = _depthwise_gathered if layer.kernel_size == (3, 3) else _depthwise_folded
        return way(layer, padding, inputs, grads)
    batches = len(inputs) * layer.groups
    patches = _patches(layer, padding, inputs, grads)
    places = patches.shape[-1]
    rows = grads.reshape(batches, -1, places)
    return torch.bmm(rows, patches.reshape(batches, -1, places).transpose(1, 2)).view(len(inputs), *layer.weight.shape)


def _depthwise_gathered(layer: nn.Conv2d, padding: Padding, inputs: Tensor, grads: Tensor) -> Tensor:
    """The library's own weight gradient, with a few examples at a time side by side as channels."""
    examples, channels, height, width = inputs.shape
    step = max(1, min(examples, GATHERED // (channels * height * width)))
    weight = layer.weight.detach().repeat(step, 1, 1, 1)
    found = []
    for start in range(0, examples, step):
        beside, behind = (_side_by_side(values[start : start + step]) for values in (inputs, grads))
        groups = beside.shape[1]
        found.append(_convolution_backward(layer, padding, behind, beside, weight[:groups], groups, 1))
    return torch.cat(found).view(examples, *layer.weight.shape)


def _side_by_side(values: Tensor) -> Tensor:
    """(N, C, H, W) -> (1, N * C, H, W), channels last."""
    examples, channels, height, width = values.shape
    return values.permute(2, 3, 0, 1).reshape(1, height, width, examples * channels).permute(0, 3, 1, 2)


def _depthwise_folded(layer: nn.Conv2d, padding: Padding, inputs: Tensor, grads: Tensor) -> Tensor:
    """A depthwise convolution of the inputs with the gradients, the batch folded into the groups.

    Stride and dilation change places. Faster than `_depthwise_gathered` for kernels that the library has no fast gradient for.
    """
    examples, channels, height, width = inputs.shape
    folded = F.conv2d(
        inputs.contiguous().view(1, examples * channels, height, width),
        grads.contiguous().view(examples * channels, 1, *grads.shape[2:]),
        padding=padding,
        stride=layer.dilation,
        dilation=layer.stride,
        groups=examples * channels,
    )
    return folded[0, :, : layer.kernel_size[0], : layer.kernel_size[1]].reshape(examples, *layer.weight.shape)
