"""A training that takes seconds: few random faces, the smallest network at stem stride 2."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np

from models.faces.faceset import one_hot
from models.pretraining.checkpoint import CHECKPOINT, PREVIOUS, STABLE, Checkpoint
from models.pretraining.data import Splits, TwiceLabelled
from models.pretraining.recipe import Recipe
from models.pretraining.result import LATER_KEYS, RESULT
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


def train(
    folder: Path,
    images: int | None = None,
    recipe: Recipe = TINY,
    stop_at: int | None = None,
    data: Splits | None = None,
    notes: list[str] | None = None,
) -> dict[str, Any] | None:
    """Train in `folder`, stopping after `stop_at` faces if that is given; what is said goes to `notes`."""
    stop, said = threading.Event(), [] if notes is None else notes

    def on_step(seen: int, total: int, loss: float) -> None:
        if seen == stop_at:
            stop.set()

    return pretrain(recipe, data or splits(), folder, images, stop=stop, watch=Watch(said.append, on_step))


def lengthen_break_and_shorten(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """96 faces twice, and between them 112, broken off in the fall: the second 96 start from a later state than the first."""
    first = train(folder, images=96)
    assert train(folder, images=112, stop_at=88) is None
    assert Checkpoint.load(folder / CHECKPOINT).decay_from == 10
    second = train(folder, images=96)
    assert first is not None
    assert second is not None
    return first, second


def make_first_version(folder: Path) -> None:
    """Take away what the first version did not write."""
    for name in (CHECKPOINT, PREVIOUS, STABLE):
        if (folder / name).exists():
            found = Checkpoint.load(folder / name)
            found.data = None
            found.save(folder / name)
    if (folder / RESULT).exists():
        result = json.loads((folder / RESULT).read_text())
        (folder / RESULT).write_text(json.dumps({name: value for name, value in result.items() if name not in LATER_KEYS}))
