"""Where a training stands, in one safetensors file that is replaced whole; the one before it is kept, should it be damaged."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from common.errors import RunError
from common.files import fsync_folder, write_atomic

FORMAT = "emofl-pretraining-1"
CHECKPOINT, PREVIOUS, STABLE = "checkpoint.safetensors", "previous.safetensors", "stable.safetensors"
"""The newest state, the one before it, and the last one before the rate began to fall."""

State = dict[str, NDArray[Any]]


@dataclass
class Checkpoint:
    """A training after some step. What is random in a step follows from the seed and the step's number, so no generator is kept.

    Attributes:
        recipe: `Recipe.identity` of the training.
        step: steps done.
        images: faces that the run is to see in all.
        decay_from: the step at which the rate began to fall, None before.
        tensors: weights, their moving average, and the optimiser's state, by name.
        history: one plain record per look at PublicTest.
        seconds: spent in training steps so far, for the record.
        data: `Splits.digest` of the faces it learns from; None in a file of the first version, which kept none.
    """

    recipe: dict[str, Any]
    step: int
    images: int
    decay_from: int | None
    tensors: State
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    data: str | None = None

    def save(self, path: Path) -> None:
        """Replace `path` atomically."""
        names = ("recipe", "step", "images", "decay_from", "history", "seconds", "data")
        facts = {name: getattr(self, name) for name in names}
        content = save(self.tensors, metadata={"emofl": json.dumps({"format": FORMAT, **facts})})
        write_atomic(path, content)

    def averages(self) -> bytes:
        """The averaged weights, which are what is scored, as the safetensors file that ships."""
        return save({name.removeprefix("ema/"): self.tensors[name] for name in sorted(self.tensors) if name.startswith("ema/")})

    @classmethod
    def load(cls, path: Path) -> "Checkpoint":
        """Read one file.

        Raises:
            RunError: it is missing, damaged or of another format.
        """
        try:
            content = path.read_bytes()
            tensors = load(content)
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            facts = json.loads(header["__metadata__"]["emofl"])
            if facts.pop("format") != FORMAT:
                raise RunError(f"The checkpoint {path} is of another format than {FORMAT}, which this version reads.")
            return cls(tensors={name: np.array(value) for name, value in tensors.items()}, **facts)
        except OSError as error:
            raise RunError(f"There is no checkpoint at {path}.") from error
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"The checkpoint {path} is damaged ({type(error).__name__}).") from error


def keep(folder: Path, checkpoint: Checkpoint) -> None:
    """Make `checkpoint` the folder's newest state, and the newest so far its previous one."""
    newest = folder / CHECKPOINT
    if newest.exists():
        os.replace(newest, folder / PREVIOUS)
        fsync_folder(folder)
    checkpoint.save(newest)


def newest(folder: Path) -> tuple[Checkpoint | None, str | None]:
    """The newest state that can be read, None if the folder has none, and a sentence if a damaged file was passed over.

    Raises:
        RunError: there are checkpoints, and none can be read.
    """
    damage: RunError | None = None
    for name in (CHECKPOINT, PREVIOUS):
        if not (folder / name).exists():
            continue
        try:
            found = Checkpoint.load(folder / name)
        except RunError as error:
            damage = damage or error
            continue
        return found, None if damage is None else f"{damage} Going on from the one before it."
    if damage is not None:
        raise damage
    return None, None
