"""Trains the face detector on composed scenes and exports it: `python -m models.detector.training --data FER2013 --out FOLDER`.

About fifteen minutes of one core. `fl_client.webcam.grid` runs what it writes.
"""

import argparse
import io
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from common.console import out
from common.errors import DataError
from models.detector.levels import LEVELS, MODEL_FILE, Level
from models.detector.network import GridNetwork
from models.detector.scenes import Grey, Scene, SceneMaker, SceneSettings, drawn_background
from models.faces.source import open_faces

DRAWN_BACKGROUNDS = 600


def targets(scene: Scene, level: Level, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What a level should say of a scene: (4, cells, cells) outputs, and (2, cells, cells) weights of face logit and box.

    A cell is a face's where it lies within a fifth of its side from its middle; further out but within its half, and for
    faces that are not this level's to find, it counts for nothing.
    """
    cells = size // level.stride
    wanted = np.zeros((4, cells, cells), dtype=np.float32)
    weights = np.zeros((2, cells, cells), dtype=np.float32)
    weights[0] = 1
    middles = (np.arange(cells, dtype=np.float32) + 0.5) * level.stride
    for x, y, side in scene.faces:
        dx, dy = x - middles[None, :], y - middles[:, None]
        away = np.maximum(np.abs(dx), np.abs(dy))
        if not level.least <= side <= level.most:
            weights[0][(away < 0.4 * side) & (wanted[0] == 0)] = 0
            continue
        mine = away < max(0.2 * side, 0.55 * level.stride)
        weights[0][(away < 0.5 * side) & (wanted[0] == 0)] = 0
        weights[:, mine] = 1
        wanted[0][mine] = 1
        wanted[1][mine] = np.broadcast_to(dx / side, away.shape)[mine]
        wanted[2][mine] = np.broadcast_to(dy / side, away.shape)[mine]
        wanted[3][mine] = np.log(side / level.side)
    return wanted, weights


def loss(outputs: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """Focal loss (Lin et al. 2017, gamma 2) of the face logit and smooth L1 of the box, per face cell of the batch."""
    count = weights[:, 1].sum().clamp(min=1)
    logits, is_face = outputs[:, 0], wanted[:, 0]
    plain = F.binary_cross_entropy_with_logits(logits, is_face, reduction="none")
    missed = torch.abs(is_face - torch.sigmoid(logits))
    focal = (plain * missed**2 * weights[:, 0] * (0.5 + 0.5 * is_face)).sum()
    box = F.smooth_l1_loss(outputs[:, 1:], wanted[:, 1:], reduction="none", beta=0.05).sum(1)
    return (2 * focal + 2 * (box * weights[:, 1]).sum()) / count


def train(
    faces: Grey,
    backgrounds: Sequence[Grey],
    *,
    steps: int,
    seed: int,
    batch: int = 32,
    settings: SceneSettings | None = None,
    rate: float = 3e-3,
    say: Callable[[int, float], None] = lambda step, loss: None,
) -> GridNetwork:
    """A network that learned for `steps` batches of scenes. Torch's generator is seeded with `seed`."""
    settings = settings or SceneSettings()
    torch.manual_seed(seed)
    network = GridNetwork().train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    maker = SceneMaker(faces, backgrounds, settings, np.random.default_rng(seed))
    for step, (pictures, wanted) in enumerate(_batches(maker, settings.size, batch, steps)):
        outputs = network(pictures)
        total = sum((loss(out_, *want) for out_, want in zip(outputs, wanted, strict=True)), torch.zeros(()))
        optimiser.zero_grad()
        torch.autograd.backward(total)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        schedule.step()
        say(step, total.item())
    return network.eval()


def _batches(maker: SceneMaker, size: int, batch: int, steps: int) -> Iterator[tuple[Tensor, list[tuple[Tensor, Tensor]]]]:
    for _ in range(steps):
        scenes = [maker.scene() for _ in range(batch)]
        pictures = torch.from_numpy(np.stack([scene.picture for scene in scenes])[:, None]).float() / 127.5 - 1
        made = []
        for level in LEVELS:
            pairs = [targets(scene, level, size) for scene in scenes]
            made.append(tuple(torch.from_numpy(np.stack([pair[at] for pair in pairs])) for at in (0, 1)))
        yield pictures.contiguous(memory_format=torch.channels_last), made  # type: ignore[misc]


def export(network: GridNetwork) -> bytes:
    """The ONNX file: `picture` (1, 1, H, W) float32 grey 0 to 255 -> `fine` and `coarse`, with the batch norms folded in."""

    class Shipped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
            fine, coarse = self.network(picture / 127.5 - 1)
            return fine, coarse

    buffer: Any = io.BytesIO()
    names = ["fine", "coarse"]
    free = {"picture": {2: "height", 3: "width"}, **{name: {2: f"{name}_rows", 3: f"{name}_columns"} for name in names}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Shipped().eval(),
            (torch.zeros(1, 1, 192, 256),),
            buffer,
            dynamo=False,
            opset_version=18,
            input_names=["picture"],
            output_names=names,
            dynamic_axes=free,
        )
    content: bytes = buffer.getvalue()
    return content


def backgrounds_from(folder: Path | None, seed: int, drawn: int = DRAWN_BACKGROUNDS) -> list[Grey]:
    """`drawn` drawn backgrounds, and the pictures of a folder that holds no faces, each at three sizes."""
    rng = np.random.default_rng([seed, 1])
    made = [drawn_background(rng) for _ in range(drawn)]
    for path in sorted(folder.iterdir()) if folder else ():
        picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        if picture is None:
            raise DataError(f"The background {path} is not a picture that OpenCV can read.")
        for longest in (700, 400, 220):
            scale = max(longest / max(picture.shape), 130 / min(picture.shape))
            if scale <= 1.5:
                made += [
                    np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), dtype=np.uint8)
                ] * 12
    return made


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="fer2013.csv, or a folder of face crops per emotion")
    parser.add_argument("--backgrounds", type=Path, help="a folder of pictures without faces, beside the drawn ones")
    parser.add_argument("--out", type=Path, required=True, help="where grid.onnx is written")
    parser.add_argument("--steps", type=int, default=7000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    faces, sentence = open_faces(options.data, usage="Training")
    out.print(sentence)
    started = time.monotonic()

    def say(step: int, value: float) -> None:
        if step % 100 == 0:
            out.print(f"step {step} of {options.steps}, loss {value:.3f}, {time.monotonic() - started:.0f} s")

    backgrounds = backgrounds_from(options.backgrounds, options.seed)
    network = train(faces.images, backgrounds, steps=options.steps, seed=options.seed, say=say)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / MODEL_FILE).write_bytes(export(network))


if __name__ == "__main__":
    main()
