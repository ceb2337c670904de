"""How good models become: `python -m benchmarks.accuracy --quick [--check]` scores the base model that ships, in under a minute.

Without `--quick` it plays federated runs from a base that learnt from half of FER2013, the other half being dealt to devices, and
reports means over seeds with 95 % intervals. That takes days on two cores: choose with `--only`; what is finished is kept, and
the same command goes on. Needs fer2013.csv with fer2013new.csv beside it.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from benchmarks.accuracy_cells import CELLS, Cell
from benchmarks.accuracy_claims import missed_claims
from benchmarks.accuracy_evened import SHARES, even_out, score_shares
from benchmarks.accuracy_figures import begun, gather, merge, read_complete, read_figures, started_from
from benchmarks.accuracy_page import FIGURES, publish, read_page
from benchmarks.accuracy_plot import plot_groups, plot_heads
from benchmarks.accuracy_results import Heads, Line, Spread, make_heads, make_lines, show_heads, show_lines
from benchmarks.conclusion import conclude
from benchmarks.real_data import Data, find_data
from common.allocator import keep_freed_memory
from common.console import command_line, out, run_command_line
from common.errors import ConfigError, RunError
from common.files import write_atomic

TARGETS = {"ferplus": 0.84, "fer2013": 0.67}
"""Accuracy of the shipped base on PrivateTest: FER+ majority (8 classes), FER2013 (7 classes)."""


PLACES: Any = {"init": True, "data": {"path"}, "server": {"keep_models"}}
"""Settings that may differ between two calls: where the base and the faces lie, and what stays on the disk."""


def shipped(data: Path) -> dict[str, dict[str, float]]:
    """Scores of the shipped base on PrivateTest, by label set, computed anew from its weights.

    `prior_corrected` is what a shift of class priors alone makes of the same logits, see `models.prior`. Figures whose names
    begin with `unseen_` leave out the faces that are, pixel for pixel, among the Training rows too. `share_0.5_accuracy`: with
    that share of the public class frequencies taken out of the answers, as `fl-client webcam --even-classes` does.
    """
    from scipy.special import softmax

    from common.emotions import EMOTIONS_7, EMOTIONS_8
    from common.parameters import write_parameters
    from models.class_counts import BASE, FER2013
    from models.evaluate import judge
    from models.faces.faceset import one_hot
    from models.mobilenet import build_model
    from models.pretrained import open_base
    from models.pretraining.data import load_splits
    from models.pretraining.scores import predict
    from models.prior import corrected_accuracy

    base, splits = open_base(), load_splits(data)
    test, copies = splits.test, splits.test.copies_of(splits.training)
    found: dict[str, dict[str, float]] = {}
    for name, classes in (("ferplus", EMOTIONS_8), ("fer2013", EMOTIONS_7)):
        config = base.manifest.config(classes)
        model = build_model(config)
        write_parameters(model, base.weights(config))
        rows = test.voted if name == "ferplus" else np.ones(len(test), dtype=bool)
        labels = test.votes[rows].argmax(1) if name == "ferplus" else test.labels[rows]
        logits = predict(model, test.images[rows])
        found[name] = {}
        for prefix, some in (("", slice(None)), ("unseen_", ~copies[rows])):
            scores = judge(logits[some], one_hot(labels[some], len(classes)))
            found[name] |= {
                f"{prefix}examples": float(len(labels[some])),
                f"{prefix}accuracy": scores.accuracy,
                f"{prefix}balanced_accuracy": scores.balanced_accuracy,
                f"{prefix}prior_corrected": corrected_accuracy(softmax(logits[some], axis=1), labels[some]),
            }
        counts = np.array([(BASE if name == "ferplus" else FER2013)[word] for word in classes])
        for share, one in score_shares(logits, one_hot(labels, len(classes)), counts).items():
            found[name] |= {f"share_{share}_{figure}": value for figure, value in one.items()}
    return found


def show_shipped(scores: dict[str, dict[str, float]]) -> None:
    table = Table(title="The shipped base on PrivateTest, with and without faces that Training holds too", title_justify="left")
    for heading in ("labels", "faces", "accuracy", "target", "balanced", "prior-corrected"):
        table.add_column(heading, justify="left" if heading == "labels" else "right")
    for name, one in scores.items():
        for prefix, title in (("", name), ("unseen_", f"{name}, no copies")):
            figures = [f"{one[prefix + figure]:.1%}" for figure in ("accuracy", "balanced_accuracy", "prior_corrected")]
            target = "" if prefix else f"{TARGETS[name]:.0%}"
            table.add_row(title, f"{one[f'{prefix}examples']:,.0f}", figures[0], target, *figures[1:])
    out.print(table)
    table = Table(title="A share of the class frequencies taken out, all faces", title_justify="left")
    for heading in ("labels", "share", "accuracy", "balanced"):
        table.add_column(heading, justify="left" if heading == "labels" else "right")
    for name, one in scores.items():
        for share in SHARES:
            figures = [f"{one[f'share_{share:g}_{figure}']:.1%}" for figure in ("accuracy", "balanced")]
            table.add_row("" if share else name, f"{share:g}", *figures)
    out.print(table)


def halve(data: Path, folder: Path) -> tuple[Path, Path]:
    """Two copies of the data, each with every other Training row made black, so that row numbers and votes still pair.

    Returns:
        fer2013.csv for the base, fer2013.csv for the devices.
    """
    from models.faces.fer2013 import read_rows

    paths = [folder / name / "fer2013.csv" for name in ("for-base", "for-devices")]
    if all(path.exists() for path in paths):
        return paths[0], paths[1]
    rows = read_rows(data)
    number = np.cumsum([usage == "Training" for usage in rows.usages])
    black = " ".join(["0"] * 48 * 48)
    for half, path in enumerate(paths):
        lines = ["emotion,pixels,Usage"]
        for row, (image, label, usage) in enumerate(zip(rows.images, rows.labels, rows.usages, strict=True)):
            shown = usage != "Training" or number[row] % 2 == half
            lines.append(f"{label},{' '.join(map(str, image.ravel())) if shown else black},{usage}")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path.with_name("fer2013new.csv"), data.with_name("fer2013new.csv").read_bytes())
        write_atomic(path, ("\n".join(lines) + "\n").encode())
    return paths[0], paths[1]


def half_base(data: Path, folder: Path, images: int) -> Path:
    """The base that learnt from one half, trained on the first call; `fl-sim pretrain` does it, and goes on after Ctrl-C.

    Raises:
        ConfigError: the folder's base has seen another number of faces.
    """
    from models.pretrained import open_base
    from models.pretraining.recipe import Recipe
    from simulation.pretrain_commands import pretrain, ship_base

    shipped_to = folder / "base"
    if shipped_to.exists():
        seen = open_base(shipped_to).manifest.images
        if abs(seen - images) >= Recipe().batch_size:
            raise ConfigError(
                f"The base in {shipped_to} has seen {seen:,} faces: add --base-images {seen}, or name another --folder."
            )
    else:
        pretrain(folder / "pretrain", data=data, images=images, threads=1, device="cpu")
        ship_base(folder / "pretrain", shipped_to, folder / "base_key.pem")
    return shipped_to


def play(cell: Cell, data: Path, base: Path, folder: Path, seeds: int, workers: int) -> None:
    """The cell's runs that are not finished yet.

    Raises:
        ConfigError: a run in the folder has other settings than its cell, or another base.
        RunError: not every round of a run was accepted.
    """
    from models.starting_point import starting_point
    from simulation.perform import perform
    from simulation.run import RunFolder

    for seed in range(seeds):
        run = folder / "runs" / cell.name / f"seed-{seed}"
        settings, going_on = cell.config(str(data), str(base), seed), (run / "config.json").exists()
        if going_on and RunFolder(run).config.model_dump(exclude=PLACES) != settings.model_dump(exclude=PLACES):
            raise ConfigError(f"{run} was played with other settings than {cell.name} has now: move it away to play it anew.")
        if going_on and started_from(run) not in (None, starting_point(settings).name):
            raise ConfigError(f"{run} began with another base than the one in {base}: move it away to play it anew.")
        if not (run / "summary.json").exists():
            perform(None if going_on else settings, None if going_on else run, run if going_on else None, "in-process", workers)
        if read_complete(run) is None:
            raise RunError(
                f"Not every round of {run} was accepted (its metrics.jsonl says why), so it is not {cell.name}: move it away."
            )


def personalise(cell: Cell, folder: Path) -> None:
    """Own heads for the devices of the cell's finished runs, where they are not there yet."""
    from fl_client.personal import PersonalSettings
    from simulation.personalise import JSON, personalise_run, write_outcome
    from simulation.run import RunFolder

    for _, run in begun(folder, cell.name):
        if cell.personal and not (run / JSON).exists() and read_complete(run) is not None:
            write_outcome(run, personalise_run(RunFolder(run), PersonalSettings()), PersonalSettings())


def _means(figures: dict[str, Spread]) -> dict[str, float]:
    return {key: spread.mean for key, spread in figures.items()}


app = command_line("How good the shipped base and federated runs are.")


@app.command()
def main(
    quick: Annotated[bool, typer.Option("--quick", help="Score the shipped base only.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Fail when a target is missed.")] = False,
    data: Data = None,
    folder: Annotated[Path, typer.Option(help="Where runs are kept and gone on with.")] = Path("runs/accuracy"),
    only: Annotated[str, typer.Option(help="The cell of this name, else those whose name holds it; --list names them.")] = "",
    seeds: Annotated[int, typer.Option(min=1, max=5, help="Runs of each cell.")] = 3,
    base_images: Annotated[int, typer.Option(min=64, help="Faces that the half-data base sees.")] = 400_000,
    workers: Annotated[int, typer.Option(min=1, help="Devices that train at once.")] = 1,
    show_list: Annotated[bool, typer.Option("--list", help="Name the cells and end.")] = False,
    report: Annotated[bool, typer.Option("--report", help="Play nothing; show what is finished.")] = False,
    docs: Annotated[
        Path | None,
        typer.Option("--publish", help=f"Add what is finished to {FIGURES} in this folder, and rewrite its tables and pictures."),
    ] = None,
) -> None:
    """Score the shipped base, play the chosen cells, show what is finished, and print one line of JSON."""
    keep_freed_memory()
    if show_list:
        out.print("\n".join(cell.name for cell in CELLS), markup=False)
        return
    chosen = [cell for cell in CELLS if cell.name == only] or [cell for cell in CELLS if only in cell.name]
    if not chosen:
        raise ConfigError(f"No cell's name holds {only!r}; --list names them.")
    if quick and docs is not None:
        raise ConfigError("--quick scores the shipped base only, which leaves nothing to --publish: leave one of them out.")
    known = {}
    if docs is not None:
        read_page(docs)
        known = read_figures(docs / FIGURES)
    path = find_data(data)
    scores = shipped(path)
    show_shipped(scores)
    missed = [
        f"{name}: {scores[name]['accuracy']:.1%} instead of {target:.0%}"
        for name, target in TARGETS.items()
        if scores[name]["accuracy"] < target
    ]
    lines: list[Line] = []
    heads: Heads = {}
    if not quick:
        if not report:
            for_base, for_devices = halve(path, folder)
            base = half_base(for_base, folder, base_images)
            for cell in chosen:
                play(cell, for_devices, base, folder, seeds, workers)
                personalise(cell, folder)
                even_out(cell, folder)
        figures = merge(known, gather(folder))
        lines, heads = make_lines(figures), make_heads(figures)
        show_lines(lines)
        plots = plot_groups(lines, folder / "plots")
        if heads:
            plots.append(plot_heads(heads, folder / "plots" / "personal.png"))
        for path in plots:
            out.print(f"Drawn: {path}", markup=False)
        if heads:
            show_heads(heads)
        if docs is not None:
            publish(docs, figures, plots)
            out.print(f"Written: {docs / FIGURES}, the tables and the pictures beside it.", markup=False)
        missed += missed_claims(lines)
    results: dict[str, Any] = {"shipped": scores, "runs": {line.name: asdict(line) for line in lines}}
    results["own_heads"] = {name: {stage: _means(one) for stage, one in stages.items()} for name, stages in heads.items()}
    conclude("accuracy", {"results": results, "targets": TARGETS, "missed": missed}, missed, check=check)


if __name__ == "__main__":
    run_command_line(app)
