"""Which part of the model a run trains and uploads: everything, the last block with the head, or the head alone."""

from torch import nn

from common.errors import ModelError

SUBSETS = ("full", "last-block", "head")
"""`last-block`: the last inverted-residual block, the final 1x1 convolution and the classifier. `head`: the classifier."""


def select_trainable(model: nn.Module, subset: str) -> dict[str, nn.Parameter]:
    """Freeze all but `subset`; return the trainable parameters by name, in the model's order.

    Raises:
        ModelError: the subset's name is unknown.
    """
    if subset not in SUBSETS:
        raise ModelError(f"There is no trainable subset {subset!r}; choose one of {', '.join(SUBSETS)}.")
    blocks = len(list(model.get_submodule("features").children()))
    prefixes = {
        "full": ("",),
        "last-block": (f"features.{blocks - 2}.", f"features.{blocks - 1}.", "classifier."),
        "head": ("classifier.",),
    }[subset]
    chosen: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(prefixes))
        if parameter.requires_grad:
            chosen[name] = parameter
    return chosen
