"""Which GroupNorm MobileNet to use: `python -m benchmarks.architecture [--only NAME] [--train IMAGES --data fer2013.csv]`.

One row per variant: what it costs to run, to send and to train privately; with --train also how well it does after equal compute.
docs/architecture.md shows a run.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.progress import track
from rich.table import Table

from benchmarks.architecture_variants import VARIANTS, Variant
from benchmarks.conclusion import conclude
from benchmarks.dp_step import CLIPPING_NORM, NOISE_MULTIPLIER, RATE, take_turns
from common.console import command_line, out, run_command_line
from common.emotions import EMOTIONS_8
from common.errors import ConfigError
from common.files import write_atomic
from common.privacy.dpsgd.bookkeeping import BookkeepingGradients
from common.privacy.dpsgd.summed import PlainGradients, plain_gradients
from common.privacy.mechanisms import SecureRandom
from fl_client.losses import summed_loss
from models.augment import augment
from models.evaluate import evaluate
from models.export import export_onnx
from models.faces.faceset import FaceSet
from models.faces.source import open_faces
from models.onnx_session import cpu_session
from models.preprocess import Preprocessing
from models.quantise import quantise
from models.subset import SUBSETS, select_trainable

BATCH, SIZE, FLOAT = 32, 48, 4


@dataclass(frozen=True)
class Costs:
    """Of one variant.

    Attributes:
        parameters: all of them.
        trained: bytes of the trainable subset, float32, by subset.
        onnx, int8: bytes of the two ONNX files.
        latency: CPU ms of one face in ONNX Runtime on one thread.
        step, dp_step: CPU ms of a training step at batch 32, without privacy and by book-keeping, both on the native kernels.
    """

    parameters: int
    trained: dict[str, int]
    onnx: int
    int8: int
    latency: float
    step: float
    dp_step: float


def measure(variants: list[Variant], repeats: int) -> dict[str, Costs]:
    """All variants take turns, so that they share whatever else the machine does."""
    inference: dict[str, Callable[[], object]] = {}
    steps: dict[str, Callable[[], object]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    face = np.random.default_rng(0).standard_normal((1, 1, SIZE, SIZE), dtype=np.float32)
    inputs = torch.randn(BATCH, 1, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    targets = torch.softmax(torch.randn(BATCH, 7), 1)
    for variant in variants:
        content = export_onnx(variant.build(), SIZE)
        sizes[variant.title] = len(content), len(quantise(content))
        inference[variant.title] = partial(cpu_session(content).run, None, {"faces": face})
        model = variant.build()
        gradients = plain_gradients(model)
        steps["plain " + variant.title] = partial(
            plain_step, gradients, torch.optim.SGD(model.parameters(), lr=RATE), inputs, targets
        )
        private = variant.build()
        engine = BookkeepingGradients(
            private,
            clipping_norm=CLIPPING_NORM,
            noise_multiplier=NOISE_MULTIPLIER,
            expected_batch=BATCH,
            random=SecureRandom(),
        )
        steps["private " + variant.title] = partial(engine.compute, inputs, targets, summed_loss)
    latency, step = take_turns(inference, 20 * repeats), take_turns(steps, repeats)
    return {
        variant.title: Costs(
            parameters=sum(p.numel() for p in variant.build().parameters()),
            trained=trained_bytes(variant),
            onnx=sizes[variant.title][0],
            int8=sizes[variant.title][1],
            latency=latency[variant.title],
            step=step["plain " + variant.title],
            dp_step=step["private " + variant.title],
        )
        for variant in variants
    }


def trained_bytes(variant: Variant) -> dict[str, int]:
    """What a device sends, by subset, before any compression."""
    return {subset: FLOAT * sum(p.numel() for p in select_trainable(variant.build(), subset).values()) for subset in SUBSETS}


def plain_step(gradients: PlainGradients, optimiser: torch.optim.Optimizer, inputs: torch.Tensor, targets: torch.Tensor) -> None:
    gradients.compute(inputs, targets, summed_loss)
    optimiser.step()


Splits = tuple[FaceSet, FaceSet]
"""Faces to train on, and to judge by."""

RECIPE = "adamw-0.002-votes"
"""Names what `train` does, so that scores of another recipe are not taken for its own."""


@dataclass(frozen=True)
class Score:
    """What a variant learnt.

    Attributes:
        images: augmented faces it saw.
        seconds: CPU time of that.
        accuracy, balanced: on PublicTest, FER+ majority.
    """

    images: int
    seconds: float
    accuracy: float
    balanced: float


def train(variant: Variant, images: int, faces: FaceSet, test: FaceSet) -> Score:
    """`images` augmented faces with soft labels: AdamW, one cosine from 0.002 to 0, batch 64, seed 0."""
    preprocessing, generator = Preprocessing(), torch.Generator().manual_seed(0)
    model, rng, steps = variant.build(EMOTIONS_8).train(), np.random.default_rng(0), max(1, images // 64)
    gradients = plain_gradients(model)
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    began = time.process_time()
    for _ in track(range(steps), variant.title, console=out, transient=True, disable=not out.is_terminal):
        rows = rng.integers(0, len(faces), 64)
        inputs = augment(torch.from_numpy(preprocessing.normalise(faces.images[rows])), generator)
        targets = torch.from_numpy(faces.targets[rows])
        plain_step(gradients, optimiser, inputs.contiguous(memory_format=torch.channels_last), targets)
        schedule.step()
    seconds = time.process_time() - began
    gradients.close()
    scores = evaluate(model, test, preprocessing)
    return Score(64 * steps, round(seconds, 1), scores.accuracy, scores.balanced_accuracy)


def train_all(variants: list[Variant], images: int, costs: dict[str, Costs], splits: Splits, folder: Path) -> dict[str, Score]:
    """The first variant on `images` faces, the others on as many as its time buys; what is in `folder` is not done again.

    Raises:
        ConfigError: what is in `folder` cannot be read.
    """
    path = folder / f"{RECIPE}-{images}.json"
    for variant in variants:
        if variant.title not in kept_scores(path):
            share = costs[variants[0].title].step / costs[variant.title].step
            score = train(variant, round(images * share), *splits)
            folder.mkdir(parents=True, exist_ok=True)
            scores = kept_scores(path) | {variant.title: score}  # another process may have added its own meanwhile
            write_atomic(path, json.dumps({name: asdict(one) for name, one in scores.items()}, indent=1).encode())
    scores = kept_scores(path)
    return {variant.title: scores[variant.title] for variant in variants}


def kept_scores(path: Path) -> dict[str, Score]:
    """The scores in a file, none where it is not there.

    Raises:
        ConfigError: it is damaged.
    """
    try:
        return {name: Score(**found) for name, found in json.loads(path.read_bytes()).items()} if path.exists() else {}
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged: delete it, and its variants are trained anew.") from error


app = command_line("Variants of the network, side by side.")


@app.command()
def main(
    only: Annotated[list[str] | None, typer.Option(help="Measure variants whose title holds this, and the first.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Turns per variant: training steps, and 20 times as many faces.")] = 5,
    images: Annotated[
        int, typer.Option("--train", min=0, help="Faces on which the first variant trains; the others get equal CPU time.")
    ] = 0,
    data: Annotated[Path | None, typer.Option(help="fer2013.csv with fer2013new.csv beside it, for --train.")] = None,
    folder: Annotated[
        Path, typer.Option(help="Where accuracies are kept; the same command goes on with the next variant.")
    ] = Path("runs/architecture"),
) -> None:
    """Print the table, then one line of JSON. The accuracy column is filled by --train only, which takes hours."""
    if images and data is None:
        raise ConfigError("--train needs --data fer2013.csv.")
    torch.set_num_threads(1)
    splits = None
    if images and data is not None:
        faces, _ = open_faces(data, labels="ferplus", usage="Training")
        test, _ = open_faces(data, labels="ferplus-majority", usage="PublicTest")
        splits = faces, test
    chosen = [v for i, v in enumerate(VARIANTS) if i == 0 or not only or any(part in v.title for part in only)]
    costs = measure(chosen, repeats)
    scores = {} if splits is None else train_all(chosen, images, costs, splits, folder)
    show(costs, scores)
    rows = {
        title: asdict(found) | {"score": asdict(scores[title]) if title in scores else None} for title, found in costs.items()
    }
    conclude("architecture", {"images": images, "variants": rows})


def show(costs: dict[str, Costs], scores: dict[str, Score]) -> None:
    sizes = _table(
        "Sizes, kB: ONNX files, and what a device sends by the part that trains", ["parameters", "ONNX", "int8", *SUBSETS]
    )
    times = _table(
        "CPU ms on one thread; accuracy on PublicTest, FER+ majority", ["face", "step", "DP step", "accuracy", "balanced"]
    )
    for title, row in costs.items():
        figures = (f"{count / 1e3:,.0f}" for count in (row.onnx, row.int8, *(row.trained[subset] for subset in SUBSETS)))
        sizes.add_row(title, f"{row.parameters:,}", *figures)
        score = scores.get(title)
        learnt = ("not trained", "") if score is None else (f"{score.accuracy:.1%}", f"{score.balanced:.1%}")
        times.add_row(title, f"{row.latency:.2f}", f"{row.step:.0f}", f"{row.dp_step:.0f}", *learnt)
    out.print(sizes)
    out.print(times)


def _table(title: str, headings: list[str]) -> Table:
    found = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    for heading in ("", *headings):
        found.add_column(heading, justify="right" if heading else "left")
    return found


if __name__ == "__main__":
    run_command_line(app)
