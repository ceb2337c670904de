"""Forward passes of layers that keep books in backward instead of computing weight gradients.

`common.privacy.dpsgd.bookkeeping` puts them in the place of the layers' own. A layer without one here goes through Opacus's
sampler of per-example gradients, if Opacus has one.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from opacus.grad_sample import GradSampleHooks
from torch import Tensor, nn

from common.errors import ModelError
from common.privacy.dpsgd.books import Books
from common.privacy.dpsgd.convolution import RecordedConvolution
from common.privacy.dpsgd.normalisation import RecordedGroupNorm

Forward = Callable[[Tensor], Tensor]


class _Linear(torch.autograd.Function):
    """Linear map of (N, ..., in) by (out, in)."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: nn.Parameter, bias: nn.Parameter | None, books: Books) -> Tensor:
        ctx.save_for_backward(inputs)
        ctx.weight, ctx.bias, ctx.books = weight, bias, books
        return F.linear(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inputs,), weight = ctx.saved_tensors, ctx.weight
        grads = gradients[0].contiguous()
        _enter_linear(ctx.books, weight, ctx.bias, _places(inputs), _places(grads))
        return grads @ weight if ctx.needs_input_grad[0] else None, None, None, None


class _Pointwise(torch.autograd.Function):
    """1x1 convolution: one matrix product over all pixels of all examples, channels last."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: nn.Parameter, bias: nn.Parameter | None, books: Books) -> Tensor:
        examples, channels, height, width = inputs.shape
        rows = inputs.permute(0, 2, 3, 1).reshape(examples, height * width, channels)
        ctx.save_for_backward(rows)
        ctx.weight, ctx.bias, ctx.books, ctx.size = weight, bias, books, (height, width)
        outputs = F.linear(rows.view(-1, channels), weight.view(-1, channels), bias)
        return outputs.view(examples, height, width, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (rows,), weight = ctx.saved_tensors, ctx.weight
        examples, places, channels = rows.shape
        grads = gradients[0].permute(0, 2, 3, 1).reshape(examples, places, -1)
        _enter_linear(ctx.books, weight, ctx.bias, rows, grads)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        back = grads.view(examples * places, -1) @ weight.view(-1, channels)
        return back.view(examples, *ctx.size, channels).permute(0, 3, 1, 2), None, None, None


def _places(values: Tensor) -> Tensor:
    """(N, ..., C) -> (N, T, C)."""
    return values.reshape(len(values), -1, values.shape[-1])


def _enter_linear(books: Books, weight: nn.Parameter, bias: nn.Parameter | None, rows: Tensor, grads: Tensor) -> None:
    if weight.requires_grad:
        books.outer(weight, rows, grads)
    if bias is not None and bias.requires_grad:
        books.formed(bias, grads.sum(1))


def _linear(layer: nn.Linear, books: Books) -> Forward:
    return lambda inputs: _apply(_Linear, inputs, layer.weight, layer.bias, books)


def _convolution(layer: nn.Conv2d, books: Books) -> Forward | None:
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        return None
    if layer.kernel_size == layer.stride == (1, 1) and layer.padding == (0, 0) and layer.groups == 1:
        return lambda inputs: _apply(_Pointwise, inputs, layer.weight, layer.bias, books)
    if layer.groups == 1 or layer.groups == layer.in_channels == layer.out_channels:
        return lambda inputs: _apply(RecordedConvolution, inputs, layer.weight, layer.bias, layer, books)
    return None


def _group_norm(layer: nn.GroupNorm, books: Books) -> Forward | None:
    return lambda inputs: _apply(RecordedGroupNorm, inputs, layer.weight, layer.bias, layer, books)


def _apply(function: type[torch.autograd.Function], *arguments: object) -> Tensor:
    outputs: Tensor = function.apply(*arguments)  # type: ignore[no-untyped-call]
    return outputs


def _sampled(layer: nn.Module, books: Books) -> Forward:
    """Any layer of one input and one output that Opacus has a sampler for: its per-example gradients are formed."""
    sampler = GradSampleHooks.GRAD_SAMPLERS[type(layer)]

    def forward(inputs: Tensor) -> Tensor:
        twin = copy.copy(layer)
        twin.__dict__.pop("forward", None)
        twin._parameters = {name: p if p is None else p.detach() for name, p in layer._parameters.items()}  # type: ignore[misc]
        outputs: Tensor = twin(inputs)
        if not outputs.requires_grad:
            outputs.requires_grad_(True)
        seen = inputs.detach()

        def enter(grads: Tensor) -> None:
            for parameter, gradients in sampler(layer, [seen], grads).items():
                books.formed(parameter, gradients)

        outputs.register_hook(enter)  # type: ignore[no-untyped-call]
        return outputs

    return forward


LAYERS: dict[type[nn.Module], Callable[[Any, Books], Forward | None]] = {
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    nn.GroupNorm: _group_norm,
}
"""By exact type, the maker of a layer's forward; None where this one's settings are not covered."""


def bookkeeping_forward(name: str, layer: nn.Module, books: Books) -> Forward:
    """A forward for `layer` that enters its per-example gradients into `books` during backward, and sets no `grad`.

    Outside a batch (`books.open` is False) it is the layer's own.

    Raises:
        ModelError: neither this module nor Opacus knows the layer's per-example gradients.
    """
    maker = LAYERS.get(type(layer))
    recorded = maker(layer, books) if maker else None
    if recorded is None:
        if type(layer) not in GradSampleHooks.GRAD_SAMPLERS:
            raise ModelError(
                f"The bookkeeping engine has no per-example gradients for layer {name or 'of the model'} "
                f"({type(layer).__name__}). Use the Opacus engine, freeze the layer or replace it."
            )
        recorded = _sampled(layer, books)
    own = type(layer).forward
    keep = recorded

    def forward(inputs: Tensor) -> Tensor:
        if not books.open:
            outputs: Tensor = own(layer, inputs)
            return outputs
        books.enter(name)
        return keep(inputs)

    return forward
