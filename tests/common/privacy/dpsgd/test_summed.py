"""Plain gradients by the DP engine's layers."""

import pytest
import torch
import torch.nn.functional as F

from common.config import ModelConfig
from common.errors import ModelError
from common.privacy.dpsgd.native import kernels
from common.privacy.dpsgd.summed import SummedGradients, sum_gradients
from models.mobilenet import VARIANTS, build_model


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_gradients_are_torchs_and_add_up_over_two_passes(variant: str, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not native:
        monkeypatch.setattr(kernels, "library", lambda: None)
    torch.manual_seed(0)
    plain = build_model(ModelConfig(name=variant, stem_stride=1)).eval()
    ours = build_model(ModelConfig(name=variant, stem_stride=1)).eval()
    ours.load_state_dict(plain.state_dict())
    sum_gradients(ours)
    inputs = torch.randn(3, 1, 48, 48).contiguous(memory_format=torch.channels_last)
    for _ in range(2):
        for model in (plain, ours):
            F.cross_entropy(model(inputs), torch.tensor([0, 3, 6])).backward()
    for (name, p), q in zip(plain.named_parameters(), ours.parameters(), strict=True):
        assert p.grad is not None
        assert q.grad is not None, name
        assert (p.grad - q.grad).norm() <= 2e-5 * p.grad.norm() + 1e-7, name


def test_a_layer_without_known_gradients_is_named() -> None:
    with pytest.raises(ModelError, match="PReLU"):
        sum_gradients(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.PReLU()))


def test_an_engine_of_sums_sets_the_mean_of_each_batch_anew_and_gives_the_layers_back() -> None:
    torch.manual_seed(0)
    model = build_model(ModelConfig(name="mobilenet_v3_small_050", stem_stride=2))
    forwards = [layer.forward for layer in model.modules()]

    def loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, targets, reduction="sum")

    batches = [(torch.randn(n, 1, 48, 48), torch.randint(0, 7, (n,))) for n in (4, 2)]
    expected = []
    for inputs, targets in batches:
        model.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        expected.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    engine = SummedGradients(model)
    for (inputs, targets), right in zip(batches, expected, strict=True):
        engine.compute(inputs, targets, loss)
        for p, gradient in zip(model.parameters(), right, strict=True):
            assert p.grad is not None
            assert (p.grad - gradient).norm() <= 2e-5 * gradient.norm() + 1e-7
    with pytest.raises(ZeroDivisionError):
        engine.compute(*batches[0], lambda logits, targets: logits.sum() / (1 // 0))
    engine.close()
    assert [layer.forward for layer in model.modules()] == forwards
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(ModelError, match="closed"):
        engine.compute(*batches[0], loss)
