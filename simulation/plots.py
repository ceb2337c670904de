"""The pictures of one run, or of several in one: accuracy, epsilon, devices, skew. `report` and `compare` call it."""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from common.plot_style import ACCENT, SECOND, STYLE


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, dpi=110)
    return path


def plot_accuracy(runs: dict[str, list[dict[str, Any]]], path: Path) -> Path:
    """Accuracy and balanced accuracy against round, one colour a run."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 4))
        axes = figure.subplots()
        for number, (name, records) in enumerate(runs.items()):
            rounds = [r["round"] for r in records if "accuracy" in r]
            colour = f"C{number}" if len(runs) > 1 else ACCENT
            accuracy = [r["accuracy"] for r in records if "accuracy" in r]
            balanced = [r["balanced_accuracy"] for r in records if "accuracy" in r]
            axes.plot(rounds, accuracy, color=colour, label=f"{name}: accuracy")
            axes.plot(rounds, balanced, color=colour, linestyle="--", label=f"{name}: balanced accuracy")
        axes.set(xlabel="round", ylabel="on the validation faces", ylim=(0, 1))
        axes.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1))
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
        axes.legend(frameon=False, fontsize=8)
        return _save(figure, path)


def plot_epsilon(runs: dict[str, list[dict[str, Any]]], path: Path) -> Path:
    """Cumulative epsilon against round: a line for the device that has spent most on one face, a dashed one for whole devices.

    A run with neither promise has no line, and the legend says so.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 3.2))
        axes = figure.subplots()
        for number, (name, records) in enumerate(runs.items()):
            colour = f"C{number}" if len(runs) > 1 else SECOND
            faces, devices = _spent(records, "epsilon"), _spent(records, "client_epsilon")
            if faces:
                axes.plot(*zip(*faces, strict=True), color=colour, label=f"{name}: record-level" if devices else name)
            if devices:
                axes.plot(*zip((0, 0.0), *devices, strict=True), color=colour, linestyle="--", label=f"{name}: client-level")
            if not faces and not devices:
                axes.plot([], [], color=colour, label=f"{name}: NON-PRIVATE, no epsilon holds")
        axes.set(xlabel="round", ylabel="cumulative epsilon", ylim=(0, None))
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
        axes.legend(frameon=False, fontsize=8)
        return _save(figure, path)


def _spent(records: list[dict[str, Any]], kind: str) -> list[tuple[int, float]]:
    return [(record["round"], record[kind]) for record in records if record.get(kind) is not None]


def plot_devices(accuracy: NDArray[np.float64], mean: float, path: Path) -> Path:
    """Accuracy on each device's own held-out faces, lowest first."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 3.2))
        axes = figure.subplots()
        ordered = np.sort(accuracy[~np.isnan(accuracy)])
        axes.bar(np.arange(1, len(ordered) + 1), ordered, color=ACCENT, width=0.8)
        axes.axhline(mean, color=SECOND, linewidth=1, label=f"test faces: {mean:.1%}")
        axes.set(xlabel="devices, lowest first", ylabel="accuracy on own faces", ylim=(0, 1))
        axes.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1))
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
        axes.legend(frameon=False, fontsize=8, loc="upper left")
        return _save(figure, path)


def plot_skew(skew: NDArray[np.int64], classes: tuple[str, ...], path: Path) -> Path:
    """How many faces of each emotion each device trains on."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 4))
        axes = figure.subplots()
        below = np.zeros(len(skew))
        colours = mpl.colormaps["tab10"](range(10))
        for number, name in enumerate(classes):
            axes.bar(np.arange(len(skew)), skew[:, number], bottom=below, width=0.85, label=name, color=colours[number])
            below += skew[:, number]
        axes.set(xlabel="device", ylabel="training faces", xlim=(-0.6, len(skew) - 0.4))
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
        axes.legend(frameon=False, fontsize=8, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        return _save(figure, path)
