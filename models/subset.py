"""Which part of the model a run trains: everything, the last block with the head, the head, or its last layer."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, get_args

from common.config import Trainable
from common.errors import ModelError

if TYPE_CHECKING:  # who only asks for names, as the camera loop does, can do without torch
    from torch import nn

HEAD = "classifier."
"""Parameters of the head begin with it."""
SUBSETS: tuple[str, ...] = get_args(Trainable)
"""`last-block`: the last inverted-residual block, the final 1x1 convolution and the classifier. `head`: the classifier.
`last-layer`: its last linear layer, which in MobileNetV3 is 7,000 of the classifier's 600,000 parameters."""


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
        "last-layer": (_last_linear(model),),
    }[subset]
    chosen: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(prefixes))
        if parameter.requires_grad:
            chosen[name] = parameter
    return chosen


def _last_linear(model: "nn.Module") -> str:
    """What the names of its last linear layer's parameters begin with."""
    return next(name.rpartition(".")[0] for name, p in reversed(list(model.named_parameters())) if p.ndim == 2) + "."


def shared_names(trained: Iterable[str], local_layers: str) -> list[str]:
    """The trained parameters that a device uploads: all but those of `local_layers` (`none` or `head`), in their order."""
    kept = {"none": (), "head": (HEAD,)}[local_layers]
    return [name for name in trained if not name.startswith(kept)]
