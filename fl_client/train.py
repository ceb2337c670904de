"""One round of training on a device's own faces: clipped gradients under a calibrated noise, or plain ones where privacy is off.

`fl_client.device` calls `train_locally`. Only the change of the trained parameters leaves this module.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.arrays import Arrays
from common.config import PrivacyConfig, TrainConfig
from common.errors import PrivacyError
from common.parameters import write_parameters
from common.privacy.accountant import Release
from common.privacy.dpsgd.bookkeeping import BookkeepingGradients
from common.privacy.dpsgd.summed import plain_gradients
from common.privacy.mechanisms import PoissonSampling, SecureRandom
from fl_client.losses import Loss, make_loss
from models.augment import augment
from models.faces.faceset import FaceSet
from models.frozen import FeatureCache
from models.preprocess import Preprocessing


@dataclass(frozen=True)
class Plan:
    """What one participation does, fixed before the ledger is debited.

    Attributes:
        examples: n, the device's faces.
        steps: optimiser steps.
        sampling: q and n of the Poisson batches; an unprivate plan shuffles instead.
        learning_rate: of this round.
    """

    examples: int
    steps: int
    sampling: PoissonSampling
    learning_rate: float


def coarse_count(examples: int) -> int:
    """`examples` rounded down to its three leading bits: 1000 becomes 896, 300 becomes 256.

    Rate, steps, divisor and so the noise that a server can measure follow from this number and not from the exact one.
    """
    shift = max(0, examples.bit_length() - 3)
    return examples >> shift << shift


def make_plan(config: TrainConfig, examples: int, round_number: int, rounds: int) -> Plan:
    """Steps, sampling rate and learning rate of a round; a function of the configuration and the coarse number of faces."""
    nominal = coarse_count(examples)
    rate = min(1.0, config.batch_size / nominal)
    steps = config.local_steps or math.ceil(config.local_epochs / rate - 1e-9)
    progress = (round_number - 1) / max(1, rounds - 1)
    shrink = config.decay + (1 - config.decay) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return Plan(examples, steps, PoissonSampling(examples, rate, rate * nominal), config.learning_rate * shrink)


class Gradients(Protocol):
    """Sets the gradients of a model's trainable parameters from one batch; `loss` gives the sum over its rows.

    Each example has `augmentations` rows, one after the other.
    """

    def compute(self, inputs: Tensor, targets: Tensor, loss: Loss, augmentations: int = 1) -> None: ...

    def close(self) -> None: ...


def _private_gradients(
    model: nn.Module, privacy: PrivacyConfig, release: Release, sampling: PoissonSampling, random: SecureRandom
) -> Gradients:
    engine: Callable[..., Gradients] = BookkeepingGradients
    if privacy.engine == "opacus":
        from common.privacy.dpsgd.opacus_engine import OpacusGradients  # takes as long to load as half of torch

        engine = OpacusGradients
    return engine(
        model,
        clipping_norm=privacy.clipping_norm,
        noise_multiplier=release.noise_multiplier,
        expected_batch=sampling.expected_batch,
        random=random,
    )


def shuffled_batches(examples: int, size: int, steps: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Ordinary minibatches over reshuffled passes, for training without privacy."""
    generator = np.random.default_rng(seed)
    order = np.empty(0, dtype=np.int64)
    for _ in range(steps):
        if len(order) < min(size, examples):
            order = np.concatenate([order, generator.permutation(examples)])
        yield order[:size]
        order = order[size:]


def _make_optimiser(config: TrainConfig, parameters: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    if config.optimiser == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=config.weight_decay)
    return torch.optim.SGD(parameters, lr=rate, momentum=config.momentum, weight_decay=config.weight_decay)


def train_locally(
    model: nn.Module,
    weights: Arrays,
    faces: FaceSet,
    plan: Plan,
    config: TrainConfig,
    preprocessing: Preprocessing,
    *,
    privacy: PrivacyConfig,
    release: Release | None,
    random: SecureRandom,
    seed: int,
    features: FeatureCache | None = None,
) -> Arrays:
    """Train `model` from `weights` for one round and return what changed.

    Args:
        model: its trainable parameters are those that require gradients; left trained.
        weights: all parameters of the global model.
        privacy: clipping norm and engine; unused without privacy.
        release: noise multiplier, rate and steps that the ledger was debited with; None trains without privacy.
        random: source of Poisson batches, noise and the augmentation's secret seed; unused without privacy.
        seed: of shuffling and augmentation without privacy. Which warp a face gets depends on its place in the batch, so with a
            seed that others know one face would change the gradients of all that follow it: under privacy it is fresh, secret.
        features: keeps what frozen layers make of faces; used where the first layers are frozen and nothing is augmented.

    Returns:
        Change of each trained parameter, float32.

    Raises:
        ConfigError: the loss needs class counts that the configuration does not have.
        PrivacyError: the loss depends on all faces at once, and there is a `release`.
        ModelError: Opacus is asked for on a processor that it is not for.
    """
    if release is not None and config.loss == "calibrated":
        raise PrivacyError("A loss that is made from a device's own class counts has no epsilon.")
    write_parameters(model, weights)
    model.train()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    start = {name: torch.from_numpy(weights[name]) for name in trained}
    optimiser = _make_optimiser(config, list(trained.values()), plan.learning_rate)
    divided = None if features is None or config.augment else features.divide(model, faces, preprocessing)
    network = model if divided is None else divided.rest
    loss = make_loss(config, faces.classes, faces.targets.sum(0))
    batches = (
        shuffled_batches(plan.examples, config.batch_size, plan.steps, seed)
        if release is None
        else plan.sampling.batches(release.steps, random)
    )
    warp = torch.Generator().manual_seed(seed if release is None else int(random.uint64(1)[0] >> np.uint64(1)))
    gradients: Gradients = (
        plain_gradients(network) if release is None else _private_gradients(network, privacy, release, plan.sampling, random)
    )
    try:
        for rows in batches:
            targets = torch.from_numpy(faces.targets[rows])
            inputs = divided.rows(rows) if divided is not None else torch.from_numpy(preprocessing.normalise(faces.images[rows]))
            if config.augmentations > 1:
                inputs, targets = (values.repeat_interleave(config.augmentations, 0) for values in (inputs, targets))
            if config.augment:
                inputs = augment(inputs, warp)
            if inputs.ndim == 4:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            gradients.compute(inputs, targets, loss, config.augmentations)
            if config.proximal_mu:
                for name, p in trained.items():
                    if p.grad is not None:
                        p.grad.add_(p.detach() - start[name], alpha=config.proximal_mu)
            optimiser.step()
    finally:
        gradients.close()
    return {name: (p.detach() - start[name]).numpy() for name, p in trained.items()}
