"""One trunk, two heads: FER+'s eight emotions and FER2013's seven, as rows of one last layer.

Training scores both; a user's network takes the rows of its own classes with `head_rows`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.config import ModelConfig
from common.emotions import EMOTIONS_7, EMOTIONS_8
from common.errors import ModelError
from models.mobilenet import build_model
from models.pretraining.data import FER2013, FERPLUS
from models.pretraining.recipe import Recipe

ROWS = {FERPLUS: slice(0, len(EMOTIONS_8)), FER2013: slice(len(EMOTIONS_8), len(EMOTIONS_8) + len(EMOTIONS_7))}
"""Where each head's logits stand among the network's 15."""


def build_two_heads(recipe: Recipe) -> nn.Module:
    """The recipe's network with fresh weights from its seed: (N, 1, 48, 48) float32 -> (N, 15) logits."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        config = ModelConfig(name=recipe.variant, stem_stride=recipe.stem_stride, classes=EMOTIONS_8, dropout=recipe.dropout)
        network = build_model(config)
        name = last_layer(network)
        old = network.get_submodule(name)
        if not isinstance(old, nn.Linear):
            raise ModelError(f"{recipe.variant} does not end with a linear layer.")
        head = nn.Linear(old.in_features, len(EMOTIONS_8) + len(EMOTIONS_7))
        nn.init.normal_(head.weight, 0, 0.01)
        nn.init.zeros_(head.bias)
        network.set_submodule(name, head)
    return network


def last_layer(network: nn.Module) -> str:
    """The name of the layer that gives the logits.

    Raises:
        ModelError: the network has no linear layer.
    """
    names: list[str] = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not names:
        raise ModelError("The network has no linear layer that could be its head.")
    return names[-1]


def head_rows(classes: tuple[str, ...]) -> list[int]:
    """Which of the 15 rows make a head for `classes`: FER2013's for its seven in any order, else FER+'s, by name.

    FER2013's labels cannot be read off FER+'s votes, so its very seven classes have a head that learned them. Any other
    choice of emotions, which nobody labelled as such, is taken from the head with the better labels.

    Raises:
        ModelError: a class that neither has.
    """
    if unknown := [name for name in classes if name not in EMOTIONS_8]:
        raise ModelError(f"The base model knows no {unknown[0]!r}; its emotions are {', '.join(EMOTIONS_8)}.")
    if set(classes) == set(EMOTIONS_7):
        return [ROWS[FER2013].start + EMOTIONS_7.index(name) for name in classes]
    return [EMOTIONS_8.index(name) for name in classes]


def two_headed_loss(logits: Tensor, votes: Tensor, labels: Tensor, recipe: Recipe) -> Tensor:
    """Weighted sum of two mean cross-entropies, in nats: against FER+ shares, where given, and against FER2013 labels.

    Args:
        logits: (B, 15).
        votes: (B, 8) distributions or zeros.
        labels: (B,) indices into EMOTIONS_7.
    """
    voted = votes.any(1).sum().clamp(min=1)
    soft = -(votes * F.log_softmax(logits[:, ROWS[FERPLUS]], 1)).sum() / voted
    hard = F.cross_entropy(logits[:, ROWS[FER2013]], labels, label_smoothing=recipe.label_smoothing)
    return recipe.ferplus_weight * soft + recipe.fer2013_weight * hard
