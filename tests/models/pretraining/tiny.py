"""A training that takes seconds: few random faces, the smallest network at stem stride 2."""

import threading
from pathlib import Path
from typing import Any

import numpy as np

from models.faces.faceset import one_hot
from models.pretraining.data import Splits, TwiceLabelled
from models.pretraining.recipe import Recipe
from models.pretraining.trainer import Watch, pretrain

TINY = Recipe(
    variant="mobilenet_v2_tiny_128",
    stem_stride=2,
    images=96,
    batch_size=8,
    warm_up=16,
    decay=0.25,
    validate_every=32,
    save_every=16,
)
"""Twelve steps; the rate falls in the last three."""


def faces(count: int, seed: int) -> TwiceLabelled:
    """Noise whose brightness tells the label; the first face has no FER+ target."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 7, count)
    images = (random.integers(0, 60, (count, 48, 48)) + labels[:, None, None] * 28).astype(np.uint8)
    votes = one_hot(labels, 8)
    votes[0] = 0
    return TwiceLabelled(images, votes, labels)


def splits() -> Splits:
    return Splits(faces(40, 1), faces(16, 2), faces(16, 3))


def train(folder: Path, images: int | None = None, recipe: Recipe = TINY, stop_at: int | None = None) -> dict[str, Any] | None:
    """Train in `folder`, stopping after `stop_at` faces if that is given."""
    stop = threading.Event()

    def on_step(seen: int, total: int, loss: float) -> None:
        if seen == stop_at:
            stop.set()

    return pretrain(recipe, splits(), folder, images, stop=stop, watch=Watch(on_step=on_step))
