"""How good models become: `python -m benchmarks.accuracy --quick [--check]` scores the base model that ships, in under a minute.

Without `--quick` it plays federated runs from a base that learnt from half of FER2013, the other half being dealt to devices, and
reports means over seeds with 95 % intervals. That takes days on two cores: choose with `--only`; what is finished is kept, and
the same command goes on. Needs fer2013.csv with fer2013new.csv beside it.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from benchmarks.accuracy_cells import CELLS, CLAIMS, START, Cell
from benchmarks.accuracy_plot import plot_groups
from benchmarks.accuracy_results import Line, read_heads, read_lines, show_heads, show_lines
from benchmarks.conclusion import conclude
from common.config import make_config
from common.console import command_line, out, run_command_line
from common.errors import ConfigError

TARGETS = {"ferplus": 0.84, "fer2013": 0.67}
"""Accuracy of the shipped base on PrivateTest: FER+ majority (8 classes), FER2013 (7 classes)."""


PLACES: Any = {"init": True, "data": {"path"}}
"""Settings that may differ between two calls: where the base and the faces lie."""


def find_data(given: Path | None) -> Path:
    """fer2013.csv: what was given, or in $EMOFL_DATA.

    Raises:
        ConfigError: there is none.
    """
    folder = os.environ.get("EMOFL_DATA")
    path = given or (Path(folder) / "fer2013.csv" if folder else None)
    if path is None or not path.exists() or not path.with_name("fer2013new.csv").exists():
        raise ConfigError("Name the faces: --data fer2013.csv, with fer2013new.csv beside it, or put both into $EMOFL_DATA.")
    return path.resolve()


def shipped(data: Path) -> dict[str, dict[str, float]]:
    """Scores of the shipped base on PrivateTest, by label set, computed anew from its weights.

    `prior_corrected` is what a shift of class priors alone makes of the same logits, see `models.prior`.
    """
    from scipy.special import softmax

    from common.emotions import EMOTIONS_7, EMOTIONS_8
    from common.parameters import write_parameters
    from models.mobilenet import build_model
    from models.pretrained import open_base
    from models.pretraining.data import load_splits
    from models.pretraining.scores import predict
    from models.prior import corrected_accuracy

    base, test = open_base(), load_splits(data).test
    found = {}
    for name, classes in (("ferplus", EMOTIONS_8), ("fer2013", EMOTIONS_7)):
        config = make_config(
            {"model": {"name": base.manifest.variant, "stem_stride": base.manifest.stem_stride, "classes": classes}}
        ).model
        model = build_model(config)
        write_parameters(model, base.weights(config))
        rows = test.voted if name == "ferplus" else np.ones(len(test), dtype=bool)
        labels = test.votes[rows].argmax(1) if name == "ferplus" else test.labels[rows]
        logits = predict(model, test.images[rows])
        found[name] = {"examples": float(len(labels)), **_scores(logits, labels)}
        found[name]["prior_corrected"] = corrected_accuracy(softmax(logits, axis=1), labels)
    return found


def _scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    right = logits.argmax(1) == labels
    recalls = [right[labels == one].mean() for one in np.unique(labels)]
    return {"accuracy": float(right.mean()), "balanced_accuracy": float(np.mean(recalls))}


def show_shipped(scores: dict[str, dict[str, float]]) -> None:
    table = Table(title="The shipped base on PrivateTest", title_justify="left")
    for heading in ("labels", "faces", "accuracy", "target", "balanced", "prior-corrected"):
        table.add_column(heading, justify="left" if heading == "labels" else "right")
    for name, one in scores.items():
        figures = (one["accuracy"], TARGETS[name], one["balanced_accuracy"], one["prior_corrected"])
        table.add_row(name, f"{one['examples']:,.0f}", *(f"{figure:.1%}" for figure in figures))
    out.print(table)


def halve(data: Path, folder: Path) -> tuple[Path, Path]:
    """Two copies of the data, each with every other Training row made black, so that row numbers and votes still pair.

    Returns:
        fer2013.csv for the base, fer2013.csv for the devices.
    """
    paths = []
    for half, name in enumerate(("for-base", "for-devices")):
        path = folder / name / "fer2013.csv"
        paths.append(path)
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        black, number, lines = b" ".join([b"0"] * 48 * 48), 0, []
        with data.open("rb") as file:
            for line in file:
                label, pixels, usage = line.rstrip(b"\r\n").split(b",")
                if usage == b"Training":
                    number += 1
                    pixels = pixels if number % 2 == half else black
                lines.append(b",".join((label, pixels, usage)) + b"\n")
        (path.parent / "fer2013new.csv").write_bytes(data.with_name("fer2013new.csv").read_bytes())
        path.write_bytes(b"".join(lines))
    return paths[0], paths[1]


def half_base(data: Path, folder: Path, images: int) -> Path:
    """The base that learnt from one half, trained on the first call; `fl-sim pretrain` does it, and goes on after Ctrl-C."""
    from simulation.pretrain_commands import pretrain, ship_base

    shipped_to = folder / "base"
    if not shipped_to.exists():
        pretrain(folder / "pretrain", data=data, images=images, threads=1, device="cpu")
        ship_base(folder / "pretrain", shipped_to, folder / "base_key.pem")
    return shipped_to


def play(cell: Cell, data: Path, base: Path, folder: Path, seeds: int, workers: int) -> None:
    """The cell's runs that are not finished yet.

    Raises:
        ConfigError: a run in the folder has other settings than its cell.
    """
    from simulation.perform import perform
    from simulation.run import RunFolder

    for seed in range(seeds):
        run = folder / "runs" / cell.name / f"seed-{seed}"
        settings, going_on = cell.config(str(data), str(base), seed), (run / "config.json").exists()
        if going_on and RunFolder(run).config.model_dump(exclude=PLACES) != settings.model_dump(exclude=PLACES):
            raise ConfigError(f"{run} was played with other settings than {cell.name} has now: move it away to play it anew.")
        if (run / "summary.json").exists():
            continue
        perform(None if going_on else settings, None if going_on else run, run if going_on else None, "in-process", workers)


def personalise(cell: Cell, folder: Path) -> None:
    """Own heads for the devices of the cell's finished runs, where they are not there yet."""
    from fl_client.personal import PersonalSettings
    from simulation.personalise import JSON, personalise_run, write_outcome
    from simulation.run import RunFolder

    for run in sorted((folder / "runs" / cell.name).glob("seed-*")):
        if cell.personal and (run / "summary.json").exists() and not (run / JSON).exists():
            write_outcome(run, personalise_run(RunFolder(run), PersonalSettings()), PersonalSettings())


def missed_claims(lines: Sequence[Line]) -> list[str]:
    """The claims whose runs are finished and that do not hold, in words."""
    known = {line.name: line for line in lines}
    missed = []
    for claim in CLAIMS:
        line, other = known.get(claim.cell), known.get(claim.against)
        if line is None:
            continue
        against = line.start if claim.against == START else None if other is None else other.accuracy
        if against is None:
            continue
        below = 100 * (against - line.accuracy)
        if below > claim.points:
            what, points = ("below", below) if claim.points > 0 else ("above", -below)
            missed.append(f"{claim.cell}: {points:+z.1f} points {what} {claim.against} instead of {abs(claim.points):g}")
    return missed


app = command_line("How good the shipped base and federated runs are.")


@app.command()
def main(
    quick: Annotated[bool, typer.Option("--quick", help="Score the shipped base only.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Fail when a target is missed.")] = False,
    data: Annotated[Path | None, typer.Option(help="fer2013.csv (default: in $EMOFL_DATA).")] = None,
    folder: Annotated[Path, typer.Option(help="Where runs are kept and gone on with.")] = Path("runs/accuracy"),
    only: Annotated[str, typer.Option(help="The cell of this name, else those whose name holds it; --list names them.")] = "",
    seeds: Annotated[int, typer.Option(min=1, max=5, help="Runs of each cell.")] = 3,
    base_images: Annotated[int, typer.Option(min=64, help="Faces that the half-data base sees.")] = 400_000,
    workers: Annotated[int, typer.Option(min=1, help="Devices that train at once.")] = 1,
    show_list: Annotated[bool, typer.Option("--list", help="Name the cells and end.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Play nothing; show what is finished.")] = False,
) -> None:
    """Score the shipped base, play the chosen cells, show what is finished, and print one line of JSON."""
    if show_list:
        out.print("\n".join(cell.name for cell in CELLS), markup=False)
        return
    chosen = [cell for cell in CELLS if cell.name == only] or [cell for cell in CELLS if only in cell.name]
    if not chosen:
        raise ConfigError(f"No cell's name holds {only!r}; --list names them.")
    path = find_data(data)
    scores = shipped(path)
    show_shipped(scores)
    missed = [
        f"{name}: {scores[name]['accuracy']:.1%} instead of {target:.0%}"
        for name, target in TARGETS.items()
        if scores[name]["accuracy"] < target
    ]
    lines: list[Line] = []
    heads: dict[str, dict[str, dict[str, float]]] = {}
    if not quick:
        if not report:
            for_base, for_devices = halve(path, folder)
            base = half_base(for_base, folder, base_images)
            for cell in chosen:
                play(cell, for_devices, base, folder, seeds, workers)
                personalise(cell, folder)
        lines, heads = read_lines(folder), read_heads(folder)
        show_lines(lines)
        for path in plot_groups(lines, folder / "plots"):
            out.print(f"Drawn: {path}", markup=False)
        if heads:
            show_heads(heads)
        missed += missed_claims(lines)
    results: dict[str, Any] = {"shipped": scores, "runs": {line.name: vars(line) for line in lines}, "own_heads": heads}
    conclude("accuracy", {"results": results, "targets": TARGETS, "missed": missed}, missed, check=check)


if __name__ == "__main__":
    run_command_line(app)
