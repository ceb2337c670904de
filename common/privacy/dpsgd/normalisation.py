"""GroupNorm that enters per-example gradients of its scale and shift into the books. `common.privacy.dpsgd.layers` uses it."""

from typing import Any

import torch
from torch import Tensor, nn

from common.privacy.dpsgd.books import Books
from common.privacy.dpsgd.native import kernels

LARGE = 49_152
"""Values of one example from which the library's backward runs example by example: it then gives the scale's gradient
for nothing, and finds its inputs in the cache. Below, the calls would cost more."""


def joins(layer: nn.GroupNorm, inputs: Tensor) -> bool:
    """Whether GroupNorm and an activation behind it run as one native kernel."""
    return layer.weight is not None and layer.bias is not None and kernels.fits(inputs, layer.weight, layer.bias)


class JoinedGroupNorm(torch.autograd.Function):
    """GroupNorm of (N, C, H, W) and the activation behind it, as one native kernel."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, layer: nn.GroupNorm, activation: int, books: Books
    ) -> Tensor:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        outputs, mean, deviation = kernels.norm(inputs, weight, bias, layer.num_groups, layer.eps, activation)
        ctx.save_for_backward(inputs, mean, deviation)
        ctx.layer, ctx.activation, ctx.books = layer, activation, books
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inputs, mean, deviation), layer = ctx.saved_tensors, ctx.layer
        grads = gradients[0].contiguous(memory_format=torch.channels_last)
        back, scale, shift = kernels.norm_backward(grads, inputs, layer.weight, layer.bias, mean, deviation, ctx.activation)
        _enter(ctx.books, layer, scale, shift)
        return back, None, None, None, None, None


def _enter(books: Books, layer: nn.GroupNorm, scale: Tensor, shift: Tensor) -> None:
    if layer.weight is not None and layer.weight.requires_grad:
        books.formed(layer.weight, scale)
    if layer.bias is not None and layer.bias.requires_grad:
        books.formed(layer.bias, shift)


class RecordedGroupNorm(torch.autograd.Function):
    """GroupNorm of (N, C, H, W)."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor | None, bias: Tensor | None, layer: nn.GroupNorm, books: Books
    ) -> Tensor:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        examples, channels, height, width = inputs.shape
        outputs, mean, deviation = torch.native_group_norm(
            inputs, weight, bias, examples, channels, height * width, layer.num_groups, layer.eps
        )
        ctx.save_for_backward(inputs, mean, deviation)
        ctx.layer, ctx.books = layer, books
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inputs, mean, deviation), layer, books = ctx.saved_tensors, ctx.layer, ctx.books
        grads = gradients[0].contiguous(memory_format=torch.channels_last)
        back: Tensor | None
        if inputs[0].numel() >= LARGE and ctx.needs_input_grad[0]:
            back, scale, shift = _one_by_one(layer, grads, inputs, mean, deviation)
        else:
            back, scale, shift = _together(layer, grads, inputs, mean, deviation, ctx.needs_input_grad[0])
        _enter(books, layer, scale, shift)
        return back, None, None, None, None


def _one_by_one(
    layer: nn.GroupNorm, grads: Tensor, inputs: Tensor, mean: Tensor, deviation: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient by the inputs, and by scale and shift per example, (N, C) each."""
    back = torch.empty_like(inputs)
    scales, shifts = [], []
    examples = (values.split_with_sizes([1] * len(inputs)) for values in (back, grads, inputs, mean, deviation))
    for place, *values in zip(*examples, strict=True):
        found, scale, shift = _backward(layer, *values, wanted=(True, True, True))
        place.copy_(found)
        scales.append(scale)
        shifts.append(shift)
    return back, torch.stack(scales), torch.stack(shifts)


def _together(
    layer: nn.GroupNorm, grads: Tensor, inputs: Tensor, mean: Tensor, deviation: Tensor, back: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    shift = grads.sum((2, 3))
    groups = (len(inputs), layer.num_groups, -1)
    product = (grads * inputs).sum((2, 3)).reshape(groups)
    scale = torch.addcmul(product, shift.reshape(groups), mean.unsqueeze(2), value=-1).mul_(deviation.unsqueeze(2))
    found = _backward(layer, grads, inputs, mean, deviation, wanted=(True, False, False))[0] if back else None
    return found, scale, shift


def _backward(
    layer: nn.GroupNorm, grads: Tensor, inputs: Tensor, mean: Tensor, deviation: Tensor, *, wanted: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by the inputs, and by scale and shift summed over the examples."""
    examples, channels, height, width = inputs.shape
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_group_norm_backward(
        grads, inputs, mean, deviation, layer.weight, examples, channels, height * width, layer.num_groups, wanted
    )
    return found
