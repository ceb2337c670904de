"""Which GroupNorm MobileNet to use: `python -m benchmarks.architecture [--only NAME] [--train IMAGES --data fer2013.csv]`.

One row per variant: what it costs to run, to send and to train privately; with --train also how well it does after equal compute.
docs/architecture.md shows a run.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.table import Table
from torch import nn

from benchmarks.conclusion import conclude
from benchmarks.dp_step import CLIPPING_NORM, NOISE_MULTIPLIER, RATE, summed_loss, take_turns
from common.config import ModelConfig
from common.console import command_line, out, run_command_line
from common.errors import ConfigError
from common.privacy.dpsgd.bookkeeping import BookkeepingGradients
from common.privacy.mechanisms import SecureRandom
from models.augment import augment
from models.blocks import SqueezeExcitation
from models.evaluate import evaluate
from models.export import export_onnx, inference_session
from models.faces.faceset import FaceSet
from models.faces.source import open_faces
from models.mobilenet import build_model
from models.preprocess import Preprocessing
from models.quantise import quantise
from models.subset import SUBSETS, select_trainable

BATCH, SIZE, FLOAT = 32, 48, 4


@dataclass(frozen=True)
class Variant:
    """A network to measure.

    Attributes:
        title: for the table.
        name, stem_stride: of `models.mobilenet`.
        change: what is done to it after it is built.
    """

    title: str
    name: str
    stem_stride: int = 1
    change: Callable[[nn.Module], None] | None = None

    def build(self) -> nn.Module:
        torch.manual_seed(0)
        model = build_model(ModelConfig.model_validate({"name": self.name, "stem_stride": self.stem_stride}))
        if self.change is not None:
            self.change(model)
        return model


def replace(model: nn.Module, kind: type[nn.Module], make: Callable[[nn.Module], nn.Module]) -> None:
    """Put `make(layer)` in the place of each layer of `kind`."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is kind:
                setattr(parent, name, make(child))


def groups_of(size: int) -> Callable[[nn.Module], None]:
    """Groups of `size` channels; the widest that divides a layer's channels where `size` does not."""

    def normal(layer: nn.Module) -> nn.Module:
        channels = layer.get_parameter("weight").numel()
        return nn.GroupNorm(channels // int(np.gcd(channels, size)), channels)

    return partial(replace, kind=nn.GroupNorm, make=normal)


def relu(model: nn.Module) -> None:
    """ReLU instead of hardswish, the last layer's included."""
    replace(model, nn.Hardswish, lambda _: nn.ReLU())


def no_excitation(model: nn.Module) -> None:
    """No squeeze-and-excite."""
    replace(model, SqueezeExcitation, lambda _: nn.Identity())


def plain(model: nn.Module) -> None:
    """Neither hardswish nor squeeze-and-excite."""
    relu(model)
    no_excitation(model)


VARIANTS = (
    Variant("V3-small", "mobilenet_v3_small"),
    Variant("V3-small, stem stride 2", "mobilenet_v3_small", 2),
    Variant("V3-small, half width", "mobilenet_v3_small_050"),
    Variant("V3-small, groups of 4", "mobilenet_v3_small", change=groups_of(4)),
    Variant("V3-small, groups of 16", "mobilenet_v3_small", change=groups_of(16)),
    Variant("V3-small, ReLU", "mobilenet_v3_small", change=relu),
    Variant("V3-small, no squeeze-excite", "mobilenet_v3_small", change=no_excitation),
    Variant("V3-small, ReLU, no squeeze-excite", "mobilenet_v3_small", change=plain),
    Variant("V2 half width", "mobilenet_v2_050"),
    Variant("V2 quarter width", "mobilenet_v2_025"),
    Variant("V2 tiny", "mobilenet_v2_tiny"),
    Variant("V2 tiny, 128 features", "mobilenet_v2_tiny_128"),
)


@dataclass(frozen=True)
class Costs:
    """Of one variant.

    Attributes:
        parameters: all of them.
        trained: bytes of the trainable subset, float32, by subset.
        onnx, int8: bytes of the two ONNX files.
        latency: CPU ms of one face in ONNX Runtime on one thread.
        step, dp_step: CPU ms of a training step at batch 32, plain and by book-keeping.
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
        inference[variant.title] = partial(inference_session(content).run, None, {"faces": face})
        model = variant.build()
        steps["plain " + variant.title] = partial(
            plain_step, model, torch.optim.SGD(model.parameters(), lr=RATE), inputs, targets
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


def plain_step(model: nn.Module, optimiser: torch.optim.Optimizer, inputs: torch.Tensor, targets: torch.Tensor) -> None:
    optimiser.zero_grad()
    torch.autograd.backward(summed_loss(model(inputs), targets) / len(inputs))
    optimiser.step()


def train(variant: Variant, images: int, faces: FaceSet, test: FaceSet) -> tuple[float, float]:
    """(accuracy, balanced accuracy) on `test` after `images` augmented faces: Adam, one cosine from 1e-3, batch 64, seed 0."""
    preprocessing, generator = Preprocessing(), torch.Generator().manual_seed(0)
    model, rng, steps = variant.build().train(), np.random.default_rng(0), max(1, images // 64)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        rows = rng.integers(0, len(faces), 64)
        inputs = augment(torch.from_numpy(preprocessing.normalise(faces.images[rows])), generator)
        plain_step(model, optimiser, inputs.contiguous(memory_format=torch.channels_last), torch.from_numpy(faces.targets[rows]))
        schedule.step()
    scores = evaluate(model, test, preprocessing)
    return scores.accuracy, scores.balanced_accuracy


app = command_line("Variants of the network, side by side.")


@app.command()
def main(
    only: Annotated[list[str] | None, typer.Option(help="Measure variants whose title holds this, and the first.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Turns per variant: training steps, and 20 times as many faces.")] = 5,
    images: Annotated[
        int, typer.Option("--train", min=0, help="Faces on which the first variant trains; the others get equal CPU time.")
    ] = 0,
    data: Annotated[Path | None, typer.Option(help="fer2013.csv, for --train.")] = None,
) -> None:
    """Print the table, then one line of JSON. The accuracy column is filled by --train only, which takes hours."""
    if images and data is None:
        raise ConfigError("--train needs --data fer2013.csv.")
    torch.set_num_threads(1)
    chosen = [v for i, v in enumerate(VARIANTS) if i == 0 or not only or any(part in v.title for part in only)]
    costs = measure(chosen, repeats)
    scores: dict[str, tuple[float, float]] = {}
    if images and data is not None:
        faces, _ = open_faces(data, usage="Training")
        test, _ = open_faces(data, usage="PublicTest")
        for variant in chosen:
            share = costs[chosen[0].title].step / costs[variant.title].step
            scores[variant.title] = train(variant, round(images * share), faces, test)
    out.print(table(costs, scores))
    rows = {title: asdict(found) | {"scores": scores.get(title)} for title, found in costs.items()}
    conclude("architecture", {"images": images, "variants": rows})


def table(costs: dict[str, Costs], scores: dict[str, tuple[float, float]]) -> Table:
    found = Table(title="CPU ms on one thread; bytes in kB; accuracy (balanced) on PublicTest", title_justify="left", box=None)
    for heading in ("", "Parameters", "ONNX", "int8", "Full", "Last block", "Head", "Face", "Step", "DP step", "Accuracy"):
        found.add_column(heading, justify="left" if not heading else "right")
    for title, row in costs.items():
        sizes = [f"{count / 1e3:,.0f}" for count in (row.onnx, row.int8, *(row.trained[subset] for subset in SUBSETS))]
        times = [f"{row.latency:.2f}", f"{row.step:.0f}", f"{row.dp_step:.0f}"]
        score = "{:.1%} ({:.1%})".format(*scores[title]) if title in scores else "not trained"
        found.add_row(title, f"{row.parameters:,}", *sizes, *times, score)
    return found


if __name__ == "__main__":
    run_command_line(app)
