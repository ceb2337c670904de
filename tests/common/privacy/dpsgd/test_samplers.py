"""Our samplers give the per-example gradients that Opacus's own give."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.grad_sample import GradSampleHooks
from opacus.grad_sample.conv import compute_conv_grad_sample
from opacus.grad_sample.group_norm import compute_group_norm_grad_sample
from torch import Tensor, nn

from common.privacy.dpsgd.samplers import FastGradSampleHooks, conv2d_gradients, group_norm_gradients


def check_same(found: dict[Tensor, Tensor], expected: dict[Tensor, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for parameter, gradients in expected.items():
        assert found[parameter].shape == gradients.shape
        torch.testing.assert_close(found[parameter], gradients)


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 4]),
    bias=st.booleans(),
    count=st.integers(1, 4),
    layout=st.sampled_from([torch.contiguous_format, torch.channels_last]),
)
def test_a_convolution_of_any_shape_gets_the_gradients_of_opacus(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: int,
    groups: int,
    bias: bool,
    count: int,
    layout: torch.memory_format,
) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 4, kernel, stride, padding, dilation, groups, bias).double()
    inputs = torch.randn(count, 4, 9, 8, dtype=torch.float64).contiguous(memory_format=layout)
    grads = torch.randn_like(layer(inputs))
    expected = compute_conv_grad_sample(layer, [inputs.contiguous()], grads.contiguous())
    check_same(conv2d_gradients(layer, [inputs], grads), expected)


@pytest.mark.parametrize("layer", [
    nn.Conv2d(4, 6, 3, padding="same"),
    nn.Conv2d(4, 8, 3, groups=4),
    nn.Conv2d(4, 6, 1, stride=2),
    nn.Conv2d(4, 6, 1, padding=1),
], ids=repr)  # fmt: skip
@pytest.mark.parametrize("count", [1, 3])
def test_an_unusual_convolution_gets_the_gradients_of_opacus(layer: nn.Conv2d, count: int) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(count, 4, 7, 7)
    grads = torch.randn_like(layer(inputs))
    check_same(conv2d_gradients(layer, [inputs], grads), compute_conv_grad_sample(layer, [inputs], grads))


def test_of_an_empty_batch_there_are_no_gradients() -> None:
    layer = nn.Conv2d(4, 6, 3)
    found = conv2d_gradients(layer, [torch.zeros(0, 4, 5, 5)], torch.zeros(0, 6, 3, 3))
    assert [gradients.shape for gradients in found.values()] == [(0, 6, 4, 3, 3), (0, 6)]


def test_a_convolution_that_pads_by_reflection_gets_the_gradients_of_autograd() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect").double()
    inputs = torch.randn(3, 4, 5, 5, dtype=torch.float64)
    grads = torch.randn_like(layer(inputs))
    found = conv2d_gradients(layer, [inputs], grads)
    for i in range(len(inputs)):
        expected = torch.autograd.grad(layer(inputs[i : i + 1]), [layer.weight, layer.bias], grads[i : i + 1])
        torch.testing.assert_close([gradients[i] for gradients in found.values()], list(expected))


@pytest.mark.parametrize("shape", [(3, 6), (3, 6, 5), (1, 6, 4, 4), (0, 6, 4, 4), (3, 6, 2, 3, 2)])
def test_group_norm_gets_the_gradients_of_opacus(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = nn.GroupNorm(2, 6).double()
    inputs, grads = torch.randn(2, *shape, dtype=torch.float64)
    check_same(group_norm_gradients(layer, [inputs], grads), compute_group_norm_grad_sample(layer, [inputs], grads))


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, groups=4), nn.GroupNorm(2, 4)], ids=repr
)
@pytest.mark.parametrize("frozen", ["weight", "bias"])
def test_a_frozen_parameter_gets_none(layer: nn.Conv2d | nn.GroupNorm, frozen: str) -> None:
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(name != frozen)
    inputs = torch.randn(2, 4, 5, 5)
    grads = torch.randn_like(layer(inputs))
    found = (
        conv2d_gradients(layer, [inputs], grads) if isinstance(layer, nn.Conv2d) else group_norm_gradients(layer, [inputs], grads)
    )
    assert list(found) == [p for p in layer.parameters() if p.requires_grad]


def test_the_registry_of_opacus_stays_as_it_is() -> None:
    assert GradSampleHooks.GRAD_SAMPLERS[nn.Conv2d] is not conv2d_gradients
    assert FastGradSampleHooks.GRAD_SAMPLERS[nn.Conv2d] is conv2d_gradients
    assert FastGradSampleHooks.GRAD_SAMPLERS.keys() == GradSampleHooks.GRAD_SAMPLERS.keys()
