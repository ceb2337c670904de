"""Forward passes of layers that keep books in backward instead of computing weight gradients.

`common.privacy.dpsgd.bookkeeping` puts them in the place of the layers' own. A layer without one here goes through Opacus's
sampler of per-example gradients, if Opacus has one.
"""

import copy
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import ModelError
from common.privacy.dpsgd.books import OTHER_ENGINE, Books
from common.privacy.dpsgd.convolution import RecordedConvolution
from common.privacy.dpsgd.native.kernels import ACTIVATIONS
from common.privacy.dpsgd.normalisation import JoinedGroupNorm, RecordedGroupNorm, joins

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
        _enter_linear(ctx.books, weight, ctx.bias, _places(inputs), _places(gradients[0]))
        return gradients[0] @ weight if ctx.needs_input_grad[0] else None, None, None, None


class _Pointwise(torch.autograd.Function):
    """1x1 convolution: one matrix product over all pixels of all examples, channels last."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: nn.Parameter, bias: nn.Parameter | None, books: Books) -> Tensor:
        examples, channels, height, width = inputs.shape
        rows = _places(inputs.permute(0, 2, 3, 1))
        ctx.save_for_backward(rows)
        ctx.weight, ctx.bias, ctx.books, ctx.size = weight, bias, books, (height, width)
        outputs = F.linear(rows.view(-1, channels), weight.view(-1, channels), bias)
        return outputs.view(examples, height, width, -1).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (rows,), weight = ctx.saved_tensors, ctx.weight
        examples, places, channels = rows.shape
        grads = _places(gradients[0].permute(0, 2, 3, 1))
        _enter_linear(ctx.books, weight, ctx.bias, rows, grads)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        back = grads.view(examples * places, -1) @ weight.view(-1, channels)
        return back.view(examples, *ctx.size, channels).permute(0, 3, 1, 2), None, None, None


def _places(values: Tensor) -> Tensor:
    """(N, ..., C) -> (N, T, C), contiguous."""
    return values.reshape(len(values), -1, values.shape[-1]).contiguous()


def _enter_linear(books: Books, weight: nn.Parameter, bias: nn.Parameter | None, rows: Tensor, grads: Tensor) -> None:
    if weight.requires_grad:
        books.outer(weight, rows, grads)
    if bias is not None and bias.requires_grad:
        books.formed(bias, grads.sum(1))


def _linear(layer: nn.Linear, books: Books) -> Forward:
    return lambda inputs: _apply(_Linear, inputs, layer.weight, layer.bias, books)


def _convolution(layer: nn.Conv2d, books: Books) -> Forward:
    if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        margins = layer._reversed_padding_repeated_twice
        return lambda inputs: _apply(
            RecordedConvolution, F.pad(inputs, margins, mode=mode), layer.weight, layer.bias, layer, (0, 0), books
        )
    padding = (int(layer.padding[0]), int(layer.padding[1]))
    if layer.kernel_size == layer.stride == (1, 1) and padding == (0, 0) and layer.groups == 1:
        return lambda inputs: _apply(_Pointwise, inputs, layer.weight, layer.bias, books)
    return lambda inputs: _apply(RecordedConvolution, inputs, layer.weight, layer.bias, layer, padding, books)


def _group_norm(layer: nn.GroupNorm, books: Books, behind: nn.Module | None = None) -> Forward:
    """`behind` is an activation that this forward applies too."""
    own = None if behind is None else type(behind).forward
    activation = 0 if behind is None else ACTIVATIONS[type(behind)]

    def forward(inputs: Tensor) -> Tensor:
        shape = inputs.shape
        flat = inputs if inputs.ndim == 4 else inputs.reshape(*shape[:2], -1, 1)
        if joins(layer, flat):
            outputs = _apply(JoinedGroupNorm, flat, layer.weight, layer.bias, layer, activation, books)
        else:
            outputs = _apply(RecordedGroupNorm, flat, layer.weight, layer.bias, layer, books)
            outputs = outputs if own is None else own(behind, outputs)
        return outputs if inputs.ndim == 4 else outputs.reshape(shape)

    return forward


def activations_behind(model: nn.Module) -> dict[nn.Module, nn.Module]:
    """For each trainable GroupNorm with an activation right behind it in a `Sequential`, and nowhere else: that activation."""
    places = Counter(child for module in model.modules() for child in module._modules.values() if child is not None)
    found: dict[nn.Module, nn.Module] = {}
    for module in model.modules():
        children = list(module._modules.values())
        if type(module).forward is nn.Sequential.forward and "forward" not in module.__dict__:
            for layer, behind in pairwise(children):
                plain = type(layer) is nn.GroupNorm and type(behind) in ACTIVATIONS
                if layer is None or behind is None or not plain or places[layer] != 1 or places[behind] != 1:
                    continue
                if any(p.requires_grad for p in layer.parameters()) and not (hooked(layer) or hooked(behind)):
                    found[layer] = behind
    return found


def hooked(module: nn.Module) -> bool:
    """Whether somebody watches what goes through the module."""
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks)


def passing_forward(layer: nn.Module, books: Books) -> Forward:
    """A forward for an activation that the layer before it has applied already while a batch is open."""
    own = type(layer).forward

    def forward(inputs: Tensor) -> Tensor:
        outputs: Tensor = inputs if books.open else own(layer, inputs)
        return outputs

    return forward


def _apply(function: type[torch.autograd.Function], *arguments: object) -> Tensor:
    outputs: Tensor = function.apply(*arguments)
    return outputs


def _opacus_samplers() -> dict[type[nn.Module], Callable[..., Any]]:
    """Imported when a layer needs it: Opacus takes a device as long to load as half of torch."""
    from opacus.grad_sample import GradSampleHooks

    samplers: dict[type[nn.Module], Callable[..., Any]] = GradSampleHooks.GRAD_SAMPLERS
    return samplers


def _sampled(layer: nn.Module, books: Books) -> Forward:
    """Any layer of one input and one output that Opacus has a sampler for: its per-example gradients are formed.

    Opacus's samplers take contiguous tensors for granted.
    """
    sampler = _opacus_samplers()[type(layer)]

    def forward(inputs: Tensor) -> Tensor:
        twin = copy.copy(layer)
        twin.__dict__.pop("forward", None)
        twin._parameters = {
            name: p if p is None else nn.Parameter(p, requires_grad=False) for name, p in layer._parameters.items()
        }
        outputs: Tensor = twin(inputs)
        if not outputs.requires_grad:
            outputs.requires_grad_(True)
        seen = inputs.detach().contiguous()

        def enter(grads: Tensor) -> None:
            for parameter, gradients in sampler(layer, [seen], grads.contiguous()).items():
                books.formed(parameter, gradients)

        outputs.register_hook(enter)  # type: ignore[no-untyped-call]
        return outputs

    return forward


LAYERS: dict[type[nn.Module], Callable[[Any, Books], Forward]] = {
    nn.Linear: _linear,
    nn.Conv2d: _convolution,
    nn.GroupNorm: _group_norm,
}
"""By exact type, the maker of a layer's forward."""


def bookkeeping_forward(name: str, layer: nn.Module, books: Books, behind: nn.Module | None = None) -> Forward:
    """A forward for `layer` that enters its per-example gradients into `books` during backward, and sets no `grad`.

    Outside a batch (`books.open` is False) it is the layer's own.

    Args:
        behind: an activation that a GroupNorm's forward is to apply as well, inside a batch.

    Raises:
        ModelError: neither this module nor Opacus knows the layer's per-example gradients.
    """
    maker = LAYERS.get(type(layer), _sampled)
    if maker is _sampled and type(layer) not in _opacus_samplers():
        raise ModelError(
            f"There are no per-example gradients for layer {name or 'of the model'} ({type(layer).__name__}) in bookkeeping. "
            f"Freeze the layer or replace it. {OTHER_ENGINE}"
        )
    own = type(layer).forward
    recorded = maker(layer, books) if behind is None else _group_norm(cast(nn.GroupNorm, layer), books, behind)

    def forward(inputs: Tensor) -> Tensor:
        if not books.open:
            outputs: Tensor = own(layer, inputs)
            return outputs
        books.enter(name)
        return recorded(inputs)

    return forward
