"""Which part of the model a run trains: everything, the last block with the head, or the head alone; and what is uploaded."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from common.errors import ModelError

if TYPE_CHECKING:  # who only asks for names, as the camera loop does, can do without torch
    from torch import nn

HEAD = "classifier."
"""Parameters of the head begin with it."""
SUBSETS = ("full", "last-block", "head")
"""`last-block`: the last inverted-residual block, the final 1x1 convolution and the classifier. `head`: the classifier."""


def select_trainable(model: "nn.Module", subset: str) -> "dict[str, nn.Parameter]":
    """Freeze all but `subset`; return the trainable parameters by name, in the model's order.

    Raises:
        ModelError: the subset's name is unknown.
    """
    if subset not in SUBSETS:
        raise ModelError(f"There is no trainable subset {subset!r}; choose one of {', '.join(SUBSETS)}.")
    blocks = len(list(model.get_submodule("features").children()))
    prefixes = {
        "full": ("",),
        "last-block": (f"features.{blocks - 2}.", f"features.{blocks - 1}.", HEAD),
        "head": (HEAD,),
    }[subset]
    chosen: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(prefixes))
        if parameter.requires_grad:
            chosen[name] = parameter
    return chosen


def shared_names(trained: Iterable[str], local_layers: str) -> list[str]:
    """The trained parameters that a device uploads: all but those of `local_layers` (`none` or `head`), in their order."""
    kept = {"none": (), "head": (HEAD,)}[local_layers]
    return [name for name in trained if not name.startswith(kept)]
