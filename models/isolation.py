"""Refuses a model that mixes examples: clipping one example's gradient then says nothing about that example."""

import torch
from torch import nn

from common.errors import ModelError


def refuse_mixed_examples(model: nn.Module) -> None:
    """Check that no output depends on another example of the batch, by layer type and by a probe.

    The probe runs the model in its current mode and asks whether the gradient of the first example's output with respect to
    the second example's input is exactly zero; it catches what a list of types cannot know.

    Raises:
        ModelError: a layer mixes examples; the sentence names it and says why that breaks privacy.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ModelError(
                f"Layer {name or 'of the model'} is {type(module).__name__}: it mixes the examples of a batch, so one "
                "person's face changes the gradients of others and no clipping bounds its influence. Use GroupNorm."
            )
    inputs = torch.zeros((2, 1, 48, 48)).uniform_(-1, 1, generator=torch.Generator().manual_seed(0))
    inputs.requires_grad_(True)
    with torch.random.fork_rng(devices=[]):
        first = model(inputs)[0].sum()
    (gradient,) = torch.autograd.grad(first, inputs)
    if bool(gradient[1].ne(0).any()):
        raise ModelError(
            "The model's output for one face depends on another face of the batch, so per-example clipping cannot bound one "
            "person's influence. Remove the layer that mixes examples."
        )
