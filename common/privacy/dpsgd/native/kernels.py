"""The native kernels as functions of tensors. `common.privacy.dpsgd` and `common.privacy.mechanisms` ask `fits` first.

Float32 on the CPU, channels last. A batch is split among as many threads as torch may use; ctypes lets go of the interpreter.
"""

import ctypes
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import torch
from torch import Tensor, nn

from common.errors import PrivacyError
from common.privacy.dpsgd.native.build import library

ACTIVATIONS: dict[type[nn.Module], int] = {nn.ReLU: 1, nn.ReLU6: 2, nn.Hardswish: 3}
"""What GroupNorm can be joined with, by exact type; 0 stands for none."""
KERNELS = (3, 5)
VECTOR = 8
"""Channels come in multiples of this."""


def fits(*tensors: Tensor) -> bool:
    """Whether there are kernels, and they take these tensors."""
    return all(t.dtype == torch.float32 and t.device.type == "cpu" for t in tensors) and library() is not None


def depthwise_fits(layer: nn.Conv2d, padding: tuple[int, int]) -> bool:
    """Whether a convolution is of a kind that `depthwise` takes."""
    size, strides = layer.kernel_size, layer.stride
    return (
        layer.groups == layer.in_channels == layer.out_channels
        and layer.bias is None
        and layer.dilation == (1, 1)
        and layer.in_channels % VECTOR == 0
        and size[0] == size[1]
        and size[0] in KERNELS
        and strides[0] == strides[1]
        and padding[0] == padding[1] < size[0]
    )


def depthwise(inputs: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Depthwise convolution of (N, C, H, W), channels last."""
    n, channels, height, width = inputs.shape
    kernel = weight.shape[-1]
    tall, broad = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
    outputs = torch.empty((n, channels, tall, broad), dtype=inputs.dtype, memory_format=torch.channels_last)
    taps = _taps(weight)
    sizes = (height, width, channels, tall, broad, kernel, stride, padding)
    _call("emofl_depthwise_forward", n, (inputs, taps, outputs), sizes)
    return outputs


def depthwise_backward(
    inputs: Tensor, grads: Tensor, weight: Tensor, stride: int, padding: int, *, by_input: bool, by_weight: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients by the inputs and, per example, by the weight, (N, K, K, C); None where it is not asked for."""
    n, channels, height, width = inputs.shape
    back = torch.empty_like(inputs) if by_input else None
    found = weight.new_empty((n, *weight.shape[2:], channels)) if by_weight else None
    sizes = (height, width, channels, *grads.shape[2:], weight.shape[-1], stride, padding)
    _call("emofl_depthwise_backward", n, (inputs, grads, _taps(weight), back, found), sizes)
    return back, found


def norm(inputs: Tensor, scale: Tensor, shift: Tensor, groups: int, eps: float, activation: int) -> tuple[Tensor, Tensor, Tensor]:
    """GroupNorm of (N, C, H, W) with an activation behind it; also mean and 1 / deviation, (N, groups)."""
    n, channels, height, width = inputs.shape
    outputs = torch.empty_like(inputs)
    mean, deviation = inputs.new_empty((n, groups)), inputs.new_empty((n, groups))
    tensors = (inputs, scale, shift, outputs, mean, deviation)
    _call("emofl_norm_forward", n, tensors, (height * width, channels, groups, float(eps), activation))
    return outputs, mean, deviation


def norm_backward(
    grads: Tensor, inputs: Tensor, scale: Tensor, shift: Tensor, mean: Tensor, deviation: Tensor, activation: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient by the inputs, and by scale and shift per example, (N, C) each."""
    n, channels, height, width = inputs.shape
    back = torch.empty_like(inputs)
    by_scale, by_shift = inputs.new_empty((n, channels)), inputs.new_empty((n, channels))
    tensors = (grads, inputs, scale, shift, mean, deviation, back, by_scale, by_shift)
    _call("emofl_norm_backward", n, tensors, (height * width, channels, mean.shape[1], activation))
    return back, by_scale, by_shift


def excite_backward(grads: Tensor, inputs: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of inputs (N, C, H, W) * scale (N, C, 1, 1) by both."""
    n, channels, height, width = inputs.shape
    back, by_scale = torch.empty_like(inputs), torch.empty_like(scale, memory_format=torch.contiguous_format)
    _call("emofl_excite_backward", n, (grads, inputs, scale.contiguous(), back, by_scale), (height * width, channels))
    return back, by_scale


def box_muller(words: Tensor, halves: Tensor, cosines: Tensor, sines: Tensor) -> None:
    """Add one draw of Gaussians to `cosines` and `sines`, (count,) each, made of int32 `words` and int16 `halves`.

    Raises:
        PrivacyError: there are no kernels, so nothing was drawn; never noise of zero.
    """
    kernels = library()
    if kernels is None:
        raise PrivacyError("The native kernels are gone, so no noise was drawn; nothing may be released.")
    pointers = [_pointer(t) for t in (words, halves, cosines, sines)]
    kernels.emofl_box_muller(*pointers, ctypes.c_int(len(words)))


def _pointer(values: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(values.data_ptr())


@lru_cache(maxsize=4)
def _pool(threads: int) -> Callable[..., Iterable[int]]:
    return ThreadPoolExecutor(threads, thread_name_prefix="emofl-native").map


def _taps(weight: Tensor) -> Tensor:
    """(C, 1, K, K) -> (K, K, C), contiguous."""
    return weight.detach()[:, 0].permute(1, 2, 0).contiguous()


def _call(name: str, examples: int, tensors: tuple[Tensor | None, ...], sizes: tuple[int | float, ...]) -> None:
    """Run a kernel over all examples, a share of them per thread.

    Raises:
        MemoryError: it found no room to work in.
    """
    kernel = getattr(library(), name)
    pointers = [None if t is None else _pointer(t) for t in tensors]
    numbers = [ctypes.c_float(s) if isinstance(s, float) else ctypes.c_int(s) for s in sizes]

    def work(first: int, last: int) -> int:
        return int(kernel(*pointers, ctypes.c_int(first), ctypes.c_int(last), *numbers))

    threads = min(torch.get_num_threads(), examples)
    if threads < 2:
        failed = [work(0, examples)]
    else:
        ends = [examples * part // threads for part in range(threads + 1)]
        failed = list(_pool(threads)(work, ends[:-1], ends[1:]))
    if any(failed):
        raise MemoryError("A native kernel found no room to work in.")
