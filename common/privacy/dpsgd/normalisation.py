"""GroupNorm that enters per-example gradients of its scale and shift into the books. `common.privacy.dpsgd.layers` uses it."""

from typing import Any

import torch
from torch import Tensor, nn

from common.privacy.dpsgd.books import Books

LARGE = 49_152
"""Values of one example from which the library's backward runs example by example: it then gives the scale's gradient
for nothing, and finds its inputs in the cache. Below, the calls would cost more."""


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
        if layer.weight is not None and layer.weight.requires_grad:
            books.formed(layer.weight, scale)
        if layer.bias is not None and layer.bias.requires_grad:
            books.formed(layer.bias, shift)
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
