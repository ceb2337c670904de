"""Per-sample gradients for the layers of a MobileNet, faster than Opacus's own. `common.privacy.dpsgd.opacus_engine` uses them.

Each has the signature of Opacus's `register_grad_sampler` functions and gives the same numbers, so it could be offered upstream.
Opacus 1.6's own convolution sampler must not see channels-last tensors: its `unfold2d` computes strides as if they were not.
"""

import torch
import torch.nn.functional as F
from opacus.grad_sample import GradSampleHooks
from torch import Tensor, nn

Padding = tuple[int, int]


def _pointwise(layer: nn.Conv2d, inputs: Tensor, backprops: Tensor) -> Tensor:
    rows = inputs.permute(0, 2, 3, 1).flatten(1, 2)
    grads = backprops.permute(0, 2, 3, 1).flatten(1, 2)
    return torch.bmm(grads.transpose(1, 2), rows).view(len(inputs), *layer.weight.shape)


def _depthwise(layer: nn.Conv2d, inputs: Tensor, backprops: Tensor, padding: Padding) -> Tensor:
    """The weight gradient of a depthwise convolution is itself a depthwise convolution of the input with the output's gradient.

    The batch is folded into the groups, and stride and dilation change places.
    """
    n, channels, rows, columns = inputs.shape
    height, width = layer.kernel_size
    folded = F.conv2d(
        inputs.contiguous().view(1, n * channels, rows, columns),
        backprops.contiguous().view(n * channels, 1, *backprops.shape[2:]),
        padding=padding,
        stride=layer.dilation,
        dilation=layer.stride,
        groups=n * channels,
    )
    return folded[0, :, :height, :width].reshape(n, *layer.weight.shape)


def _grouped(layer: nn.Conv2d, inputs: Tensor, backprops: Tensor, padding: Padding) -> Tensor:
    batches, places = len(inputs) * layer.groups, backprops[0, 0].numel()
    patches = F.unfold(inputs, layer.kernel_size, layer.dilation, padding, layer.stride).reshape(batches, -1, places)
    grads = backprops.reshape(batches, -1, places)
    return torch.bmm(grads, patches.transpose(1, 2)).view(len(inputs), *layer.weight.shape)


def _weight_gradients(layer: nn.Conv2d, inputs: Tensor, backprops: Tensor) -> Tensor:
    """(N, *weight.shape)."""
    padding = (0, 0)
    if layer.padding_mode != "zeros":
        inputs = F.pad(inputs, layer._reversed_padding_repeated_twice, mode=layer.padding_mode)
    elif isinstance(layer.padding, str):
        inputs = F.pad(inputs, layer._reversed_padding_repeated_twice)
    else:
        padding = (int(layer.padding[0]), int(layer.padding[1]))
    if len(inputs) == 0:
        return layer.weight.new_zeros((0, *layer.weight.shape))
    if layer.kernel_size == layer.stride == (1, 1) and padding == (0, 0) and layer.groups == 1:
        return _pointwise(layer, inputs, backprops)
    if layer.groups == layer.in_channels == layer.out_channels:
        return _depthwise(layer, inputs, backprops, padding)
    return _grouped(layer, inputs, backprops, padding)


def conv2d_gradients(layer: nn.Conv2d, activations: list[Tensor], backprops: Tensor) -> dict[Tensor, Tensor]:
    """Per-sample gradients of a convolution: weight (N, *weight.shape), bias (N, out).

    Args:
        activations: [(N, in, H, W)] the layer's input, in any memory format.
        backprops: (N, out, H', W') gradient of the per-sample loss by the layer's output.
    """
    found: dict[Tensor, Tensor] = {}
    if layer.weight.requires_grad:
        found[layer.weight] = _weight_gradients(layer, activations[0], backprops)
    if layer.bias is not None and layer.bias.requires_grad:
        found[layer.bias] = backprops.sum((2, 3))
    return found


def group_norm_gradients(layer: nn.GroupNorm, activations: list[Tensor], backprops: Tensor) -> dict[Tensor, Tensor]:
    """Per-sample gradients of GroupNorm's scale and shift, (N, channels) each."""
    grads = backprops if backprops.ndim > 2 else backprops.unsqueeze(2)
    found: dict[Tensor, Tensor] = {}
    if layer.weight is not None and layer.weight.requires_grad:
        normed = F.group_norm(activations[0], layer.num_groups, eps=layer.eps)
        found[layer.weight] = (normed.reshape(grads.shape) * grads).flatten(2).sum(2)
    if layer.bias is not None and layer.bias.requires_grad:
        found[layer.bias] = grads.flatten(2).sum(2)
    return found


class FastGradSampleHooks(GradSampleHooks):  # type: ignore[misc]
    """Opacus's hooks with our samplers, without touching Opacus's global registry."""

    GRAD_SAMPLERS = {  # noqa: RUF012
        **GradSampleHooks.GRAD_SAMPLERS,
        nn.Conv2d: conv2d_gradients,
        nn.GroupNorm: group_norm_gradients,
    }
