"""Trains the face detector on composed scenes and exports it: `python -m models.detector.training --data FER2013 --out FOLDER`.

About fifteen minutes of one core. `models.detector.grid` runs what it writes.
"""

import argparse
import io
import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.console import out
from common.errors import DataError
from models.detector.levels import LEVELS, MODEL_FILE, Level
from models.detector.network import GridNetwork
from models.detector.scenes import Grey, Scene, SceneMaker, SceneSettings, drawn_background
from models.faces.report import printable
from models.faces.source import open_faces

DRAWN_BACKGROUNDS = 600
STATE_FILE = "grid.safetensors"
MINED_FROM, MOST_MINED = -1.5, 400
"""Logit from which a place without a face is worth another look, and how many of them are kept."""

LEAST_CONTRAST, MOST_GAIN = 30.0, 16.0
"""Standard deviation in grey levels that a picture is brought to at least, and by how much at most."""


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


@dataclass(frozen=True)
class Course:
    """How long is trained, and how.

    Attributes:
        steps: batches.
        minutes: of wall-clock time after which it ends, the learning rate lowered in time; None: however long it takes.
        rate: largest learning rate; it rises over the first twentieth and falls to nothing as a cosine.
        batch: scenes per step, fewer of the larger ones.
        mine_every: steps between two searches of the backgrounds for what deceives the network; 0 for none.
        mine: backgrounds that are searched each time.
    """

    steps: int = 7000
    minutes: float | None = None
    rate: float = 3e-3
    batch: int = 32
    mine_every: int = 200
    mine: int = 120


def train(
    faces: Grey,
    backgrounds: Sequence[Grey],
    course: Course,
    *,
    seed: int,
    settings: SceneSettings | None = None,
    start: GridNetwork | None = None,
    say: Callable[[int, float, GridNetwork], None] = lambda step, loss, network: None,
) -> GridNetwork:
    """A network that learned from batches of scenes. Torch's generator is seeded with `seed`.

    Args:
        start: goes on from these weights.
        say: after each step, its number, its loss and the network.
    """
    torch.manual_seed(seed)
    network = (start or GridNetwork()).train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), lr=course.rate, weight_decay=1e-4)
    rng = np.random.default_rng(seed)
    makers = _makers(faces, backgrounds, settings, rng)
    began = time.monotonic()
    for step in range(course.steps):
        spent = (time.monotonic() - began) / 60 / course.minutes if course.minutes else 0.0
        done = max(step / course.steps, spent)
        if done >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = course.rate * min(1.0, (step + 1) / (0.05 * course.steps)) * 0.5 * (1 + math.cos(math.pi * done))
        if course.mine_every and step % course.mine_every == course.mine_every // 2:
            found = mined(network.eval(), backgrounds, rng, SceneSettings.size, course.mine)
            network.train()
            makers[0][0].mined = [*found, *makers[0][0].mined][:MOST_MINED]
        maker, size = makers[step % len(makers)]
        pictures, wanted = _batch(maker, size, max(1, course.batch * SceneSettings.size**2 // size**2))
        outputs = network(pictures)
        total = sum((loss(out_, *want) for out_, want in zip(outputs, wanted, strict=True)), torch.zeros(()))
        optimiser.zero_grad()
        torch.autograd.backward(total)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        say(step, total.item(), network)
    return network.eval()


def mined(network: GridNetwork, backgrounds: Sequence[Grey], rng: np.random.Generator, size: int, count: int) -> list[Grey]:
    """Sections of `count` backgrounds, (size, size), around the places where the network is most deceived, the worst of each."""
    sections = []
    for _ in range(count):
        ground = backgrounds[int(rng.integers(len(backgrounds)))]
        part = ground[: ground.shape[0] // 16 * 16, : ground.shape[1] // 16 * 16]
        with torch.inference_mode():
            maps = network(lit(torch.from_numpy(part.astype(np.float32))[None, None]))
        logits, level = max(
            ((answer[0, 0], level) for answer, level in zip(maps, LEVELS, strict=True)), key=lambda one: one[0].max()
        )
        if float(logits.max()) < MINED_FROM:
            continue
        row, column = divmod(int(logits.argmax()), logits.shape[1])
        shift = rng.integers(-size // 4, size // 4 + 1, 2)
        starts = np.array((row, column)) * level.stride - size // 2 + shift
        top, left = np.clip(starts, 0, np.array(ground.shape) - size)
        sections.append(ground[top : top + size, left : left + size])
    return sections


def _makers(
    faces: Grey, backgrounds: Sequence[Grey], settings: SceneSettings | None, rng: np.random.Generator
) -> list[tuple[SceneMaker, int]]:
    """Who makes the scenes of each step in turn, and their side: every fourth time larger ones, for larger faces."""
    if settings is not None:
        return [(SceneMaker(faces, backgrounds, settings, rng), settings.size)]
    common, large = SceneSettings(), SceneSettings(size=192, least=40, most=190, slots=3)
    roomy = [ground for ground in backgrounds if min(ground.shape) >= large.size]
    usual = SceneMaker(faces, backgrounds, common, rng), common.size
    return [usual] * 3 + [(SceneMaker(faces, roomy, large, rng), large.size)] if roomy else [usual]


def _batch(maker: SceneMaker, size: int, count: int) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    scenes = [maker.scene() for _ in range(count)]
    pictures = lit(torch.from_numpy(np.stack([scene.picture for scene in scenes])[:, None]).float())
    made = []
    for level in LEVELS:
        pairs = [targets(scene, level, size) for scene in scenes]
        wanted, weights = (torch.from_numpy(np.stack([pair[at] for pair in pairs])) for at in (0, 1))
        made.append((wanted, weights))
    return pictures.contiguous(memory_format=torch.channels_last), made


def lit(pictures: Tensor) -> Tensor:
    """(N, 1, H, W) grey 0 to 255 -> [-1, 1], or beyond: a picture with less contrast than `LEAST_CONTRAST` is given that much.

    Part of the exported file. Its mean moves to the middle as its contrast is raised; an ordinary picture passes as it is.
    """
    mean = pictures.mean((2, 3), keepdim=True)
    contrast = (pictures - mean).square().mean((2, 3), keepdim=True).sqrt()
    gain = (LEAST_CONTRAST / (contrast + 1)).clamp(1, MOST_GAIN)
    return (pictures - mean) * (gain / 127.5) + (mean / 127.5 - 1) / gain


def export(network: GridNetwork) -> bytes:
    """The ONNX file: `picture` (1, 1, H, W) float32 grey 0 to 255 -> `fine` and `coarse`, with the batch norms folded in."""

    class Shipped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
            fine, coarse = self.network(lit(picture))
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
    """`drawn` drawn backgrounds, and the pictures of a folder that holds no faces, each at three sizes, twice as often in all.

    Raises:
        DataError: one of them is not a picture.
    """
    rng = np.random.default_rng([seed, 1])
    made = [drawn_background(rng) for _ in range(drawn)]
    photographs = []
    for path in sorted(folder.iterdir()) if folder else ():
        # By its bytes: OpenCV ends the process at a name that is not UTF-8.
        content = np.frombuffer(path.read_bytes() if path.is_file() else b"", dtype=np.uint8)
        picture = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE) if content.size else None
        if picture is None:
            raise DataError(f"The background {printable(str(path))} is not a picture that OpenCV can read.")
        for longest in (700, 400, 220):
            scale = max(longest / max(picture.shape), 130 / min(picture.shape))
            if scale <= 1.5:
                resized = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
                photographs.append(np.asarray(resized, dtype=np.uint8))
    return made + photographs * max(1, round(2 * drawn / max(1, len(photographs))))


def _save(network: GridNetwork, folder: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, folder / STATE_FILE)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="fer2013.csv, or a folder of face crops per emotion")
    parser.add_argument("--backgrounds", type=Path, help="a folder of pictures without faces, beside the drawn ones")
    parser.add_argument("--out", type=Path, required=True, help="for grid.onnx, and grid.safetensors to go on from")
    parser.add_argument("--start", type=Path, help="a grid.safetensors to go on from")
    parser.add_argument("--steps", type=int, default=Course.steps)
    parser.add_argument("--minutes", type=float, help="end after so long, the learning rate lowered in time")
    parser.add_argument("--rate", type=float, default=Course.rate)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    faces, sentence = open_faces(options.data, usage="Training")
    out.print(sentence)
    options.out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()

    def say(step: int, value: float, network: GridNetwork) -> None:
        if step % 100 == 0:
            out.print(f"step {step} of {options.steps}, loss {value:.3f}, {time.monotonic() - started:.0f} s")
        if step % 500 == 499:
            _save(network, options.out)

    start = None
    if options.start is not None:
        start = GridNetwork()
        start.load_state_dict(load_file(options.start))
    backgrounds = backgrounds_from(options.backgrounds, options.seed)
    course = Course(options.steps, options.minutes, options.rate)
    network = train(faces.images, backgrounds, course, seed=options.seed, start=start, say=say)
    _save(network, options.out)
    (options.out / MODEL_FILE).write_bytes(export(network))


if __name__ == "__main__":
    main()
