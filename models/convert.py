"""Turns torchvision's BatchNorm MobileNet checkpoints into ours, keeping convolutions and affine weights alike.

Opacus's fixer replaces each BatchNorm by a fresh GroupNorm and so loses the affine weights that training had found.
"""

import torch
from torch import Tensor, nn

from common.errors import ModelError


def from_batchnorm(checkpoint: dict[str, Tensor], model: nn.Module) -> list[str]:
    """Load torchvision's BatchNorm state dict into our GroupNorm `model` of the same variant.

    Convolutions, linear layers and the norms' scale and shift are copied. A three-channel stem becomes grey by summing over
    colours, which equals feeding the grey picture three times. Running statistics have no counterpart. A classifier layer with
    another number of classes keeps its fresh weights.

    Returns:
        The names of our parameters that kept their fresh values.

    Raises:
        ModelError: the checkpoint is of another architecture.
    """
    own = model.state_dict()
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    theirs = {name: value for name, value in checkpoint.items() if name.rsplit(".", 1)[-1] not in statistics}
    if set(theirs) != set(own):
        odd = sorted(set(theirs) ^ set(own))
        raise ModelError(f"This checkpoint is of another architecture: {len(odd)} names differ, {odd[0]} first.")
    fresh = []
    for name, mine in own.items():
        value = theirs[name].to(torch.float32)
        if value.ndim == 4 and mine.shape == (value.shape[0], 1, *value.shape[2:]) and value.shape[1] == 3:
            value = value.sum(1, keepdim=True)
        if value.shape == mine.shape:
            own[name] = value
        elif name.startswith("classifier."):
            fresh.append(name)
        else:
            raise ModelError(f"{name} is {tuple(value.shape)} in the checkpoint and {tuple(mine.shape)} in the model.")
    model.load_state_dict(own)
    return fresh
