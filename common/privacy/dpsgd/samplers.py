"""Per-sample gradients for the layers of a MobileNet, faster than Opacus's own. `common.privacy.dpsgd.opacus_engine` uses them.

Each has the signature of Opacus's `register_grad_sampler` functions and gives the same numbers, so it could be offered upstream.
"""

import torch
import torch.nn.functional as F
from opacus.grad_sample import GradSampleHooks
from opacus.grad_sample.conv import compute_conv_grad_sample
from torch import Tensor, nn


def _pointwise(layer: nn.Conv2d, inputs: Tensor, backprops: Tensor) -> Tensor:
    rows = inputs.permute(0, 2, 3, 1).flatten(1, 2)
    grads = backprops.permute(0, 2, 3, 1).flatten(1, 2)
    return torch.bmm(grads.transpose(1, 2), rows).view(len(inputs), *layer.weight.shape)


def _depthwise(layer: nn.Conv2d, inputs: Tensor, backprops: Tensor) -> Tensor:
    """The weight gradient of a depthwise convolution is itself a depthwise convolution of the input with the output's gradient.

    The batch is folded into the groups, and stride and dilation change places.
    """
    n, channels, rows, columns = inputs.shape
    height, width = layer.kernel_size
    folded = F.conv2d(
        inputs.contiguous().view(1, n * channels, rows, columns),
        backprops.contiguous().view(n * channels, 1, *backprops.shape[2:]),
        padding=layer.padding,
        stride=layer.dilation,
        dilation=layer.stride,
        groups=n * channels,
    )
    return folded[0, :, :height, :width].reshape(n, *layer.weight.shape)


def _dense(layer: nn.Conv2d, inputs: Tensor, backprops: Tensor, padding: tuple[int, ...]) -> Tensor:
    patches = F.unfold(inputs, layer.kernel_size, layer.dilation, padding, layer.stride)
    return torch.bmm(backprops.flatten(2), patches.transpose(1, 2)).view(len(inputs), *layer.weight.shape)


def conv2d_gradients(layer: nn.Conv2d, activations: list[Tensor], backprops: Tensor) -> dict[Tensor, Tensor]:
    """Per-sample gradients of a convolution: weight (N, *weight.shape), bias (N, out); any other shape goes to Opacus.

    Args:
        activations: [(N, in, H, W)] the layer's input.
        backprops: (N, out, H', W') gradient of the per-sample loss by the layer's output.
    """
    inputs = activations[0]
    if len(inputs) == 0 or isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        other: dict[Tensor, Tensor] = compute_conv_grad_sample(layer, activations, backprops)
        return other
    plain = layer.stride == (1, 1) and layer.padding == (0, 0) and layer.groups == 1
    found: dict[Tensor, Tensor] = {}
    if layer.weight.requires_grad:
        if layer.kernel_size == (1, 1) and plain:
            found[layer.weight] = _pointwise(layer, inputs, backprops)
        elif layer.groups == layer.in_channels == layer.out_channels:
            found[layer.weight] = _depthwise(layer, inputs, backprops)
        elif layer.groups == 1:
            found[layer.weight] = _dense(layer, inputs, backprops, layer.padding)
        else:
            found[layer.weight] = compute_conv_grad_sample(layer, activations, backprops)[layer.weight]
    if layer.bias is not None and layer.bias.requires_grad:
        found[layer.bias] = backprops.sum((2, 3))
    return found


def group_norm_gradients(layer: nn.GroupNorm, activations: list[Tensor], backprops: Tensor) -> dict[Tensor, Tensor]:
    """Per-sample gradients of GroupNorm's scale and shift, (N, channels) each."""
    found: dict[Tensor, Tensor] = {}
    if layer.weight is not None and layer.weight.requires_grad:
        found[layer.weight] = (F.group_norm(activations[0], layer.num_groups, eps=layer.eps) * backprops).flatten(2).sum(2)
    if layer.bias is not None and layer.bias.requires_grad:
        found[layer.bias] = backprops.flatten(2).sum(2)
    return found


class FastGradSampleHooks(GradSampleHooks):  # type: ignore[misc]
    """Opacus's hooks with our samplers, without touching Opacus's global registry."""

    GRAD_SAMPLERS = {  # noqa: RUF012
        **GradSampleHooks.GRAD_SAMPLERS,
        nn.Conv2d: conv2d_gradients,
        nn.GroupNorm: group_norm_gradients,
    }
