"""What a finished simulation leaves for people: a summary table, and the same figures as JSON; `simulation.plots` draws."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table
from scipy.special import softmax
from torch import nn

from common.canonical import encode
from common.errors import EmoflError, RunError
from common.files import write_atomic
from common.parameters import read_parameters, write_parameters
from fl_server.checkpoint import Checkpoint
from fl_server.rounds import CHECKPOINT, METRICS, Rounds
from models.evaluate import Evaluation, evaluate, judge, predict
from models.faces.faceset import FaceSet
from models.mobilenet import build_model
from models.preprocess import Preprocessing
from models.prior import corrected_accuracy, evened_balanced_accuracy
from models.starting_point import pinned_start
from simulation.devices import SimulatedDevices
from simulation.partition import skew_table
from simulation.personalise import own_head
from simulation.plots import plot_accuracy, plot_devices, plot_epsilon, plot_skew
from simulation.population import Population
from simulation.run import RunFolder

SUMMARY = "summary.json"


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of a run's rounds.

    Raises:
        RunError: there are none yet.
    """
    path = folder / METRICS
    if not path.exists():
        raise RunError(f"{folder} holds no {METRICS}: no round of it has finished.")
    try:
        records = [json.loads(line) for line in path.read_text().splitlines()]
        if not records or any(not {"round", "asked", "accepted", "seconds", "epsilon"} <= set(record) for record in records):
            raise ValueError
    except (ValueError, TypeError) as error:
        raise RunError(f"{path} is damaged; fl-sim run --resume {folder} writes it anew.") from error
    return records


@dataclass(frozen=True)
class Scores:
    """One model on the test faces.

    Attributes:
        plain: as the model answers.
        shifted: accuracy once its class priors are shifted to the test faces' own.
        evened: balanced accuracy once they are shifted to equal frequencies.
    """

    plain: Evaluation
    shifted: float
    evened: float


@dataclass(frozen=True)
class Findings:
    """The figures of a finished run.

    Attributes:
        test: the last model on the test faces.
        start: the same of the model before round 1; None where what it started from is gone.
        per_device: accuracy of the last model on each device's own held-out faces, with its own head where it kept one; NaN where
            it has none.
        skew: (devices, classes) training faces.
    """

    test: Scores
    start: Scores | None
    per_device: NDArray[np.float64]
    skew: NDArray[np.int64]


def find(folder: RunFolder, population: Population) -> Findings:
    """Evaluate the last model of a run; the simulation may look into its devices, a server never can."""
    config = folder.config
    model = build_model(config.model)
    write_parameters(model, Checkpoint.load(folder.path / CHECKPOINT).shown())
    preprocessing, weights = Preprocessing(), read_parameters(model)
    devices = SimulatedDevices(config, folder.path / "devices")
    test = score_test(model, population.test)
    per_device = []
    for number, rows in enumerate(population.holdout):
        if config.train.local_layers == "head":
            write_parameters(model, weights | own_head(devices, number, weights))
        per_device.append(evaluate(model, population.faces.take(rows), preprocessing).accuracy if len(rows) else np.nan)
    try:
        begun = Rounds(config, folder.name, folder.path).initial_model(pinned_start(config, folder.path).weights)
        start = score_test(begun, population.test)
    except EmoflError:
        start = None
    return Findings(
        test=test,
        start=start,
        per_device=np.array(per_device),
        skew=skew_table(population.training, population.faces),
    )


def score_test(model: nn.Module, faces: FaceSet) -> Scores:
    """A model on the test faces.

    Raises:
        RunError: the model's answers are not finite numbers.
    """
    logits = predict(model, faces, Preprocessing())
    if not np.isfinite(logits).all():
        raise RunError(
            "The model's answers are not finite numbers, because its weights grew without bound: begin another run with smaller "
            "steps (--server-lr, --lr)."
        )
    parts = softmax(logits, axis=1)
    evened = evened_balanced_accuracy(parts, faces.labels)
    return Scores(judge(logits, faces.targets), corrected_accuracy(parts, faces.labels), evened)


def chance(faces: FaceSet) -> tuple[float, float]:
    """Accuracy of guessing evenly, and of always naming the most frequent class."""
    counts = np.bincount(faces.labels, minlength=len(faces.classes))
    return 1 / len(faces.classes), float(counts.max() / counts.sum())


def summarise(folder: RunFolder, population: Population, findings: Findings) -> dict[str, Any]:
    """All figures of a run as plain values; also written to summary.json."""
    config, records = folder.config, read_metrics(folder.path)
    scored = findings.per_device[~np.isnan(findings.per_device)]
    even, majority = chance(population.test)
    test, start = findings.test, findings.start
    summary: dict[str, Any] = {
        "run": folder.name,
        "private": config.privacy.private,
        "epsilon": records[-1]["epsilon"],
        "delta": config.privacy.delta if config.privacy.private else None,
        "accountant": config.privacy.accountant if config.privacy.private else None,
        "client_dp": config.client_level.mode,
        "client_epsilon": records[-1].get("client_epsilon"),
        "client_delta": config.client_level.delta if config.client_level.mode != "none" else None,
        "secure_aggregation": config.upload.secure,
        "rounds": records[-1]["round"],
        "clients": config.data.clients,
        "training_faces": int(sum(len(rows) for rows in population.training)),
        "test_faces": test.plain.examples,
        "test_accuracy": test.plain.accuracy,
        "test_balanced_accuracy": test.plain.balanced_accuracy,
        "test_priors_shifted": test.shifted,
        "test_balanced_evened": test.evened,
        "start_accuracy": start.plain.accuracy if start else None,
        "start_balanced_accuracy": start.plain.balanced_accuracy if start else None,
        "start_priors_shifted": start.shifted if start else None,
        "start_balanced_evened": start.evened if start else None,
        "test_loss": test.plain.loss if np.isfinite(test.plain.loss) else None,
        "accepted_rounds": sum(record["accepted"] > 0 for record in records),
        "test_recall": {
            name: None if np.isnan(recall) else float(recall)
            for name, recall in zip(config.model.classes, test.plain.recalls, strict=True)
        },
        "chance": even,
        "majority_class": majority,
        "device_accuracy_mean": float(scored.mean()) if len(scored) else None,
        "device_accuracy_worst_tenth": float(np.sort(scored)[: max(1, len(scored) // 10)].mean()) if len(scored) else None,
        "round_seconds": float(np.median([r["seconds"] for r in records[1:]])) if len(records) > 1 else None,
    }
    write_atomic(folder.path / SUMMARY, encode(summary))
    return summary


def summary_table(summary: dict[str, Any]) -> Table:
    """The summary for a terminal."""
    table = Table(title=f"Run {summary['run']}", show_header=False, title_justify="left")
    table.add_column(style="bold")
    table.add_column(justify="right")
    privacy = "none per face" if summary["client_dp"] != "none" else "NON-PRIVATE"
    if summary["private"]:
        privacy = f"record-level epsilon {summary['epsilon']:.2f}, delta {summary['delta']:g} ({summary['accountant']})"
    table.add_row("privacy", privacy)
    if summary["client_dp"] != "none":
        spent = summary["client_epsilon"] or 0.0
        table.add_row("", f"client-level epsilon {spent:.2f}, delta {summary['client_delta']:g} ({summary['client_dp']})")
    table.add_row("the server sees", "the sum of updates" if summary["secure_aggregation"] else "each device's update")
    table.add_row("devices, rounds", f"{summary['clients']}, {summary['rounds']}")
    table.add_row("training faces", f"{summary['training_faces']:,}")
    table.add_row("test accuracy", f"{summary['test_accuracy']:.1%} of {summary['test_faces']:,} faces")
    table.add_row("balanced accuracy", f"{summary['test_balanced_accuracy']:.1%}")
    table.add_row("class priors as in the test", f"{summary['test_priors_shifted']:.1%}")
    table.add_row("class priors evened", f"balanced {summary['test_balanced_evened']:.1%}")
    if summary["start_accuracy"] is not None:
        begun = f"{summary['start_accuracy']:.1%}, balanced {summary['start_balanced_accuracy']:.1%}"
        shifted = f"{summary['start_priors_shifted']:.1%}, balanced {summary['start_balanced_evened']:.1%}"
        table.add_row("before round 1", begun)
        table.add_row("  its priors as in the test, evened", shifted)
    table.add_row("chance, most frequent class", f"{summary['chance']:.1%}, {summary['majority_class']:.1%}")
    if summary["device_accuracy_mean"] is not None:
        mean, worst = summary["device_accuracy_mean"], summary["device_accuracy_worst_tenth"]
        table.add_row("on devices' own faces", f"mean {mean:.1%}, worst tenth {worst:.1%}")
    if summary["round_seconds"] is not None:
        table.add_row("seconds a round", f"{summary['round_seconds']:.1f}")
    return table


def write_report(folder: RunFolder, population: Population) -> dict[str, Any]:
    """Evaluate, plot, write summary.json; returns the summary."""
    findings = find(folder, population)
    summary = summarise(folder, population, findings)
    runs, plots = {folder.name: read_metrics(folder.path)}, folder.path / "plots"
    plots.mkdir(exist_ok=True)
    plot_accuracy(runs, plots / "accuracy.png")
    plot_epsilon(runs, plots / "epsilon.png")
    plot_devices(findings.per_device, findings.test.plain.accuracy, plots / "devices.png")
    plot_skew(findings.skew, folder.config.model.classes, plots / "skew.png")
    return summary
