"""The loss of local training, by name: cross-entropy, class-balanced, logit-adjusted or calibrated. `fl_client.train` asks here.

Whatever weighs classes comes from the request's class counts alone, which are public: published by whoever gathered the data,
or a sum that every device added noise to. So each face's loss is a function of that face and of public numbers. With weights
from the device's own counts, one face more would change the gradients of all others, and clipping each would bound nothing.
Clipping comes after weighing: no face moves a sum by more than the clipping norm, whatever it weighs; noise and epsilon stay.
`calibrated` does use the device's own, and is refused wherever a record-level epsilon is asked for.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from common.config import TrainConfig
from common.errors import ConfigError

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits (N, C) and targets (N, C), whose rows sum to 1, to the sum of the rows' losses."""


def make_loss(config: TrainConfig, classes: tuple[str, ...], own: NDArray[np.floating] | None = None) -> Loss:
    """The loss that `config` names, for logits in the order of `classes`; targets may be soft.

    Args:
        own: (C,) how many of the device's faces show each class, for `calibrated` alone; None: as many of each.

    Raises:
        ConfigError: it needs class counts, and they are not those of `classes`.
    """
    if config.loss == "cross-entropy":
        return summed_loss
    if config.loss == "calibrated" and not config.class_counts:
        counts = torch.ones(len(classes), dtype=torch.float64)
    else:
        counts = counts_of(config.class_counts, classes)
    if config.loss == "calibrated":
        return adjusted(config.adjustment * _own_shift(own, counts))
    if config.loss == "class-balanced":
        return weighted(balanced_weights(counts, config.balance))
    return adjusted(config.adjustment * (counts / counts.sum()).log())


def _own_shift(own: NDArray[np.floating] | None, public: Tensor) -> Tensor:
    """(C,) float64, log(own frequencies / public ones); C faces that are spread as `public` is count as the device's own, too.

    So an absent class is rare and not impossible, and a device with few faces is shifted little. With the shift added to its
    logits in training, a model whose own are right for `public` is right for the device's faces: nothing pulls it towards what
    happens to be frequent there (Ren et al. 2020, "Balanced meta-softmax for long-tailed visual
    recognition", theorem 1).
    """
    expected = public / public.sum()
    counts = len(public) * expected + (0 if own is None else torch.from_numpy(own.astype(np.float64)))
    return (counts / counts.sum()).log() - expected.log()


def summed_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Sum over the batch of the cross-entropy against soft labels."""
    return F.cross_entropy(logits, targets, reduction="sum")


def weighted(weights: Tensor) -> Loss:
    """Each class's part of the cross-entropy times its weight (C,): -sum over c of w_c y_c log p_c. Rows stay apart."""

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        return -(targets * weights.to(logits) * F.log_softmax(logits, 1)).sum()

    return loss


def adjusted(shift: Tensor) -> Loss:
    """Cross-entropy of the logits plus `shift` (C,), which inference leaves out."""

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits + shift.to(logits), targets, reduction="sum")

    return loss


def counts_of(counts: Mapping[str, float], classes: tuple[str, ...]) -> Tensor:
    """(C,) float64, in the order of `classes`.

    Raises:
        ConfigError: a class has no count, or there are counts of others.
    """
    if odd := sorted(set(counts) ^ set(classes)):
        raise ConfigError(f"The loss needs the counts of the model's classes and of no others: {odd[0]} is missing or too much.")
    return torch.tensor([counts[name] for name in classes], dtype=torch.float64)


def balanced_weights(counts: Tensor, beta: float) -> Tensor:
    """(C,) weights in proportion to 1 / E_n, E_n = (1 - beta^n) / (1 - beta) being the effective number of n examples.

    Cui et al. 2019, "Class-balanced loss based on effective number of samples", equation 4. They sum to C, so none exceeds C.
    """
    effective = -torch.expm1(counts * torch.log(torch.tensor(beta, dtype=counts.dtype))) / (1 - beta)
    weights = 1 / effective
    return weights / weights.sum() * len(counts)
