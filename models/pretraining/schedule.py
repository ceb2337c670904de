"""When a training warms up, holds its rate and lets it fall, and which faces a step sees. Pure functions of numbers."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.pretraining.recipe import Recipe


@dataclass(frozen=True)
class Schedule:
    """The learning rate of every step.

    Attributes:
        steps: of `batch_size` faces, in all.
        warm_up: steps over which the rate rises.
        decay_from: the first step of the fall.
        peak: the rate between.
    """

    steps: int
    warm_up: int
    decay_from: int
    peak: float

    def rate(self, step: int) -> float:
        """Of step `step`, from 0: peak x (step + 1) / warm_up, then peak, then peak x (1 - sqrt(part of the decay done))."""
        rising = min(1.0, (step + 1) / self.warm_up) if self.warm_up else 1.0
        fallen = max(0, step - self.decay_from) / max(1, self.steps - self.decay_from)
        return self.peak * rising * (1 - math.sqrt(fallen))


def plan(recipe: Recipe, images: int, not_before: int = 0) -> Schedule:
    """The schedule of a run of `images` faces whose rate begins to fall at step `not_before` or later."""
    steps = max(1, images // recipe.batch_size)
    decay_from = max(not_before, steps - max(1, round(recipe.decay * steps)))
    return Schedule(steps, recipe.warm_up // recipe.batch_size, decay_from, recipe.learning_rate)


def batch_rows(step: int, faces: int, batch_size: int, seed: int) -> NDArray[np.int64]:
    """Which faces step `step` sees: all of a pass in a new order, without the last incomplete batch."""
    size = min(batch_size, faces)
    passed, place = divmod(step, faces // size)
    order = np.random.default_rng((seed, passed)).permutation(faces)
    return np.asarray(order[place * size : (place + 1) * size], dtype=np.int64)


def ema_decay(most: float, step: int) -> float:
    """The moving average's decay at step `step`: (1 + step) / (10 + step) until that exceeds `most`.

    Without this rise the average would remember the random start for thousands of steps.
    """
    return min(most, (1 + step) / (10 + step))


def step_seed(seed: int, step: int, purpose: int) -> int:
    """A seed for one purpose in one step, in [0, 2^63)."""
    return int(np.random.SeedSequence((seed, step, purpose)).generate_state(1, np.uint64)[0] >> 1)
