"""What the engines are held against: Opacus's own hooks and optimizer, unmodified, and a loop of plain autograd.

Opacus runs on copies in the default memory format: on channels-last tensors its convolution sampler is wrong.
"""

import copy

import torch
import torch.nn.functional as F
from opacus.grad_sample import GradSampleHooks
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn

KEY = bytes(range(32))


def summed_loss(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits, targets, reduction="sum")


def faces(count: int, size: int = 24, dtype: torch.dtype = torch.float64, classes: int = 7) -> tuple[Tensor, Tensor]:
    """Random (count, 1, size, size) inputs, channels last, and soft labels."""
    generator = torch.Generator().manual_seed(count)
    inputs = torch.randn(count, 1, size, size, generator=generator).contiguous(memory_format=torch.channels_last)
    return inputs.to(dtype), torch.softmax(torch.randn(count, classes, generator=generator), 1).to(dtype)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def flat_gradient(model: nn.Module) -> Tensor:
    """All gradients that an engine left, in one vector."""
    found = [p.grad for p in trainable(model)]
    return torch.cat([g.reshape(-1) for g in found if g is not None])


def example_gradients(model: nn.Module, inputs: Tensor, targets: Tensor, loss=summed_loss) -> Tensor:
    """(N, P): one pass of plain autograd per example."""
    rows = []
    for i in range(len(inputs)):
        found = torch.autograd.grad(
            loss(model(inputs[i : i + 1]), targets[i : i + 1]), trainable(model), allow_unused=True, materialize_grads=True
        )
        rows.append(torch.cat([g.reshape(-1) for g in found]))
    return torch.stack(rows)


def clipped_sum(gradients: Tensor, clipping_norm: float) -> Tensor:
    """(P,) from (N, P)."""
    return (gradients * (clipping_norm / (gradients.norm(dim=1, keepdim=True) + 1e-6)).clamp(max=1.0)).sum(0)


def median_norm(gradients: Tensor) -> float:
    """A clipping norm that clips about half of the examples."""
    return float(gradients.norm(dim=1).median())


def stock_step(model: nn.Module, inputs: Tensor, targets: Tensor, clipping_norm: float) -> Tensor:
    """(P,) clipped sum from Opacus's hooks and Opacus's optimizer, without noise."""
    model = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    GradSampleHooks(model, loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.SGD(trainable(model), lr=1.0),
        noise_multiplier=0.0,
        max_grad_norm=clipping_norm,
        expected_batch_size=None,
        loss_reduction="sum",
    )
    if len(inputs):
        summed_loss(model(inputs.contiguous().requires_grad_(True)), targets).backward()
    else:
        for p in trainable(model):
            p.grad_sample = p.new_zeros((0, *p.shape))
    optimizer.pre_step()
    return flat_gradient(model)


def relative(found: Tensor, expected: Tensor) -> float:
    """Distance over the whole vector's norm; the distance itself where that is zero."""
    return float((found.double() - expected.double()).norm() / (expected.double().norm() or 1.0))
