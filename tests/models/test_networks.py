"""Our MobileNets are torchvision's, weight for weight."""

import pytest
import torch

from models.mobilenet import TINY_BLOCKS, group_norm
from models.networks import mobilenet_v2, mobilenet_v3

theirs = pytest.importorskip("torchvision.models")
v3_conf = pytest.importorskip("torchvision.models.mobilenetv3")._mobilenet_v3_conf


@pytest.mark.parametrize(("size", "width"), [("small", 1.0), ("small", 0.5), ("large", 1.0)])
def test_v3_has_torchvisions_names_first_draws_and_outputs(size: str, width: float) -> None:
    settings, last = v3_conf(f"mobilenet_v3_{size}", width_mult=width)
    torch.manual_seed(3)
    expected = theirs.MobileNetV3(settings, last, num_classes=7, norm_layer=group_norm)
    torch.manual_seed(3)
    compare(expected, mobilenet_v3(7, group_norm, size, width))


@pytest.mark.parametrize(("width", "blocks"), [(0.25, None), (1.0, None), (1.0, TINY_BLOCKS)])
def test_v2_has_torchvisions_names_first_draws_and_outputs(width: float, blocks: list[list[int]] | None) -> None:
    torch.manual_seed(3)
    expected = theirs.MobileNetV2(7, width_mult=width, inverted_residual_setting=blocks, norm_layer=group_norm)
    torch.manual_seed(3)
    ours = mobilenet_v2(7, group_norm, width) if blocks is None else mobilenet_v2(7, group_norm, width, blocks)
    compare(expected, ours)


def compare(expected: torch.nn.Module, ours: torch.nn.Module) -> None:
    theirs_state, our_state = expected.state_dict(), ours.state_dict()
    assert list(our_state) == list(theirs_state)
    assert all(torch.equal(our_state[name], value) for name, value in theirs_state.items())
    faces = torch.randn(2, 3, 48, 48)
    assert torch.equal(ours.eval()(faces), expected.eval()(faces))
