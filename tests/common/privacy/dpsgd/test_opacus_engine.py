"""The Opacus engine: stock Opacus's clipped sums, secure noise, and no way round the clipping."""

import pytest
import torch
from torch import nn

from common.config import ModelConfig
from common.privacy.dpsgd.opacus_engine import OpacusGradients
from common.privacy.mechanisms import SecureRandom
from models.mobilenet import VARIANTS, build_model
from models.subset import SUBSETS, select_trainable
from tests.common.privacy.dpsgd.reference import (
    KEY,
    example_gradients,
    faces,
    flat_gradient,
    median_norm,
    relative,
    stock_step,
    summed_loss,
)

BATCH = 4.0


def left(model: nn.Module, count: int, size: int, clipping_norm: float, noise_multiplier: float = 0.0) -> torch.Tensor:
    gradients = OpacusGradients(
        model, clipping_norm=clipping_norm, noise_multiplier=noise_multiplier, expected_batch=BATCH, random=SecureRandom(KEY)
    )
    try:
        gradients.compute(*faces(count, size, dtype=next(model.parameters()).dtype), summed_loss)
    finally:
        gradients.close()
    return flat_gradient(model)


def network(name: str, stem_stride: int = 1) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_model(ModelConfig(name=name, stem_stride=stem_stride))


def check_against_stock(name: str, stem_stride: int, subset: str, count: int, size: int) -> None:
    model = network(name, stem_stride).double()
    select_trainable(model, subset)
    inputs, targets = faces(count, size)
    norm = 0.9 * median_norm(example_gradients(model, inputs[:1], targets[:1])) if count else 1.0
    assert relative(left(model, count, size, norm) * BATCH, stock_step(model, inputs, targets, norm)) < 1e-5


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize("subset", SUBSETS)
def test_clipped_sums_are_those_of_stock_opacus(subset: str, count: int) -> None:
    check_against_stock("mobilenet_v3_small_050", 1, subset, count, 16)


@pytest.mark.slow
@pytest.mark.parametrize("subset", SUBSETS)
@pytest.mark.parametrize("stem_stride", [1, 2])
@pytest.mark.parametrize("name", VARIANTS)
def test_clipped_sums_are_those_of_stock_opacus_for_every_model_at_full_size(name: str, stem_stride: int, subset: str) -> None:
    check_against_stock(name, stem_stride, subset, 3, 48)


def test_an_empty_batch_gives_noise_alone() -> None:
    model = network("mobilenet_v3_small_050", 2)
    select_trainable(model, "head")
    found = left(model, 0, 16, clipping_norm=2.0, noise_multiplier=3.0)
    torch.testing.assert_close(found, SecureRandom(KEY).normal(len(found), 3.0 * 2.0) / BATCH)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_an_example_with_a_non_finite_gradient_adds_nothing_and_spoils_nobody(poison: float) -> None:
    model = network("mobilenet_v3_small_050", 2)
    select_trainable(model, "head")
    inputs, targets = faces(3, 16, dtype=torch.float32)
    found = []
    for rows in ([0, 2], [0, 1, 2]):
        gradients = OpacusGradients(
            model, clipping_norm=1.0, noise_multiplier=0.0, expected_batch=BATCH, random=SecureRandom(KEY)
        )
        gradients.compute(inputs[rows].clone(), targets[rows], summed_loss)
        gradients.close()
        found.append(flat_gradient(model))
        inputs[1, 0, 0, 0] = poison
    assert relative(found[1], found[0]) < 1e-6


def test_closing_leaves_no_trace_on_the_model() -> None:
    model = network("mobilenet_v3_small_050", 2)
    select_trainable(model, "head")
    left(model, 2, 16, 1.0)
    assert not any(layer._forward_hooks or layer._backward_hooks or "forward" in layer.__dict__ for layer in model.modules())
    assert all(getattr(p, "grad_sample", None) is None for p in model.parameters())
