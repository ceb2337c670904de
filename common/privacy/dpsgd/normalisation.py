"""GroupNorm that enters per-example gradients of its scale and shift into the books. `common.privacy.dpsgd.layers` uses it."""

from typing import Any

import torch
from torch import Tensor, nn

from common.privacy.dpsgd.books import Books

CACHED = 131_072
"""Products that are formed at a time before they are summed, so that they stay in the cache."""


class RecordedGroupNorm(torch.autograd.Function):
    """GroupNorm of (N, C, ...)."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, layer: nn.GroupNorm, books: Books) -> Tensor:
        examples, channels = inputs.shape[:2]
        outputs, mean, deviation = torch.native_group_norm(
            inputs, weight, bias, examples, channels, _pixels(inputs), layer.num_groups, layer.eps
        )
        ctx.save_for_backward(inputs, mean, deviation)
        ctx.layer, ctx.books = layer, books
        return outputs

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inputs, mean, deviation), layer = ctx.saved_tensors, ctx.layer
        examples, channels = inputs.shape[:2]
        (grads,) = gradients
        if inputs.ndim == 4:
            inputs, grads = (values.contiguous(memory_format=torch.channels_last) for values in (inputs, grads))
        rows, columns = _rows(inputs), _rows(grads)
        shift = columns.sum(1)
        if layer.weight is not None and layer.weight.requires_grad:
            groups = (examples, layer.num_groups, channels // layer.num_groups)
            centred = torch.addcmul(_summed_product(columns, rows).view(groups), shift.view(groups), mean.unsqueeze(2), value=-1)
            ctx.books.formed(layer.weight, centred.mul_(deviation.unsqueeze(2)))
        if layer.bias is not None and layer.bias.requires_grad:
            ctx.books.formed(layer.bias, shift)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, None
        back: Tensor = torch.ops.aten.native_group_norm_backward(
            grads, inputs, mean, deviation, layer.weight, examples, channels, _pixels(inputs), layer.num_groups,
            [True, False, False],
        )[0]  # fmt: skip
        return back, None, None, None, None


def _pixels(values: Tensor) -> int:
    return values[0, 0].numel()


def _rows(values: Tensor) -> Tensor:
    """(N, C, ...) -> (N, T, C)."""
    return values.flatten(2).transpose(1, 2) if values.ndim > 2 else values.unsqueeze(1)


def _summed_product(left: Tensor, right: Tensor) -> Tensor:
    """(N, C): the sum over T of the product of two (N, T, C)."""
    examples, places, channels = left.shape
    step = min(examples, max(1, CACHED // (places * channels)))
    space = left.new_empty(step, places, channels)
    sums = left.new_empty(examples, channels)
    for start in range(0, examples, step):
        part = slice(start, min(start + step, examples))
        product = torch.mul(left[part], right[part], out=space[: part.stop - part.start])
        torch.sum(product, 1, out=sums[part])
    return sums
