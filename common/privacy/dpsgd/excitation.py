"""Squeeze-and-excitation and its pooling with cheaper backward passes. `common.privacy.dpsgd.layers` uses them.

They hold no parameters themselves: the sums are torch's, in fewer passes over the feature maps.
"""

from collections.abc import Callable
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.privacy.dpsgd.books import Books
from common.privacy.dpsgd.layers import hooked
from common.privacy.dpsgd.native import kernels


class _Pool(torch.autograd.Function):
    """Mean over the places of (N, C, H, W): the gradient is the same at every place, so it is not written out."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        ctx.shape = inputs.shape
        return F.adaptive_avg_pool2d(inputs, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        mean: Tensor = gradients[0] / (ctx.shape[2] * ctx.shape[3])
        return mean.expand(ctx.shape)


class _Excite(torch.autograd.Function):
    """(N, C, H, W) times (N, C, 1, 1); both gradients in one pass."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, scale: Tensor) -> Tensor:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(inputs, scale)
        return inputs * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        inputs, scale = ctx.saved_tensors
        return kernels.excite_backward(gradients[0].contiguous(memory_format=torch.channels_last), inputs, scale)


def cheaper_forwards(model: nn.Module, books: Books) -> dict[nn.Module, Callable[[Tensor], Tensor]]:
    """Forwards for the model's trainable squeeze-and-excitations and their poolings; outside a batch they are the layers' own.

    One is known by its `avgpool` and its `factors`, (N, C, H, W) -> (N, C, 1, 1), by which it multiplies its input and no more.
    """
    found: dict[nn.Module, Callable[[Tensor], Tensor]] = {}
    for module in model.modules():
        pool, factors = getattr(module, "avgpool", None), getattr(module, "factors", None)
        trainable = any(p.requires_grad for p in module.parameters())
        if not (trainable and callable(factors) and _is_global(pool)):
            continue
        if not hooked(module):
            found[module] = _excitation(module, factors, books)
        if not hooked(pool):
            found[pool] = _pool(pool, books)
    return found


def _is_global(layer: object) -> TypeGuard[nn.AdaptiveAvgPool2d]:
    return isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size in (1, (1, 1))


def _pool(layer: nn.AdaptiveAvgPool2d, books: Books) -> Callable[[Tensor], Tensor]:
    own = type(layer).forward

    def forward(inputs: Tensor) -> Tensor:
        outputs: Tensor = _Pool.apply(inputs) if books.open and inputs.ndim == 4 else own(layer, inputs)
        return outputs

    return forward


def _excitation(layer: nn.Module, factors: Callable[[Tensor], Tensor], books: Books) -> Callable[[Tensor], Tensor]:
    own = type(layer).forward

    def forward(inputs: Tensor) -> Tensor:
        if not (books.open and kernels.fits(inputs)):
            outputs: Tensor = own(layer, inputs)
            return outputs
        outputs = _Excite.apply(inputs, factors(inputs))
        return outputs

    return forward
