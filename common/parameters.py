"""A model's parameters as plain arrays by name: what is sent, added up, stored and published."""

import torch
from torch import nn

from common.arrays import Arrays
from common.errors import ModelError


def read_parameters(model: nn.Module) -> Arrays:
    """Copies of all parameters, float32, in the model's order."""
    return {name: p.detach().numpy().copy() for name, p in model.named_parameters()}


def write_parameters(model: nn.Module, weights: Arrays) -> None:
    """Set the model's parameters in place.

    Raises:
        ModelError: names or shapes are not the model's.
    """
    own = dict(model.named_parameters())
    if set(own) != set(weights):
        odd = sorted(set(own) ^ set(weights))
        raise ModelError(f"These weights belong to another model: {len(odd)} names differ, {odd[0]} first.")
    with torch.no_grad():
        for name, parameter in own.items():
            value = torch.from_numpy(weights[name])
            if value.shape != parameter.shape:
                raise ModelError(f"{name} has shape {tuple(value.shape)} in the weights and {tuple(parameter.shape)} here.")
            parameter.copy_(value)
