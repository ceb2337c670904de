import pytest
import torch
from torch import nn

from models.pretraining.depthwise import SmallMapDepthwise, speed_up
from models.pretraining.heads import build_two_heads
from models.pretraining.recipe import Recipe


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [1, 3, 6, 8, 9])
def test_outputs_and_gradients_are_those_of_an_ordinary_convolution(side: int, stride: int) -> None:
    torch.manual_seed(side)
    plain = nn.Conv2d(4, 4, 5, stride=stride, padding=2, groups=4, bias=False).double()
    fast = SmallMapDepthwise(4, 4, 5, stride=stride, padding=2, groups=4, bias=False).double()
    fast.load_state_dict(plain.state_dict())
    inputs = [torch.randn(3, 4, side, side, dtype=torch.double, requires_grad=True)]
    inputs.append(inputs[0].detach().clone().requires_grad_())
    outputs = [plain(inputs[0]), fast(inputs[1])]
    assert torch.equal(outputs[0], outputs[1])
    above = torch.randn_like(outputs[0])
    for output in outputs:
        output.backward(above)
    for a, b in ((plain.weight.grad, fast.weight.grad), (inputs[0].grad, inputs[1].grad)):
        assert a is not None
        assert b is not None
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)


def test_the_exchange_keeps_names_order_values_and_outputs() -> None:
    recipe = Recipe(stem_stride=2)
    plain, fast = build_two_heads(recipe).eval(), speed_up(build_two_heads(recipe)).eval()
    assert sum(isinstance(module, SmallMapDepthwise) for module in fast.modules()) == 8
    assert [name for name, _ in plain.named_parameters()] == [name for name, _ in fast.named_parameters()]
    faces = torch.randn(2, 1, 48, 48)
    with torch.inference_mode():
        assert torch.equal(plain(faces), fast(faces))
