"""Draws what `benchmarks.accuracy` found: a picture for each group of runs, with 95 % intervals over seeds."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.accuracy_results import Line
from common.plot_style import ACCENT, INK, SECOND, STYLE


def plot_groups(lines: Sequence[Line], folder: Path) -> list[Path]:
    """GROUP.png for each group in `folder`: accuracy, balanced, with priors shifted, and where the runs began."""
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(line.name.partition("/")[0], []).append(line)
    folder.mkdir(parents=True, exist_ok=True)
    return [_plot(name, group, folder / f"{name}.png") for name, group in groups.items()]


def _plot(group: str, lines: Sequence[Line], path: Path) -> Path:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 1.5 + 0.27 * len(lines)))
        axes = figure.subplots()
        places = range(len(lines))
        axes.errorbar(
            [line.accuracy for line in lines],
            places,
            xerr=[line.margin or 0 for line in lines],
            fmt="o",
            color=ACCENT,
            capsize=3,
            label="accuracy, 95 % over seeds",
        )
        axes.plot([line.balanced for line in lines], places, "s", color=SECOND, markersize=4, label="balanced accuracy")
        shifted = [(line.shifted, place) for line, place in zip(lines, places, strict=True) if line.shifted is not None]
        axes.plot(*zip(*shifted, strict=True), "|", color=ACCENT, markersize=11, label="priors shifted") if shifted else None
        began = [(line.start, place) for line, place in zip(lines, places, strict=True) if line.start is not None]
        axes.plot(*zip(*began, strict=True), "x", color=INK, markersize=5, label="before round 1") if began else None
        axes.set_yticks(list(places), [line.name.partition("/")[2] for line in lines])
        axes.set(xlabel=f"{group}: PrivateTest", ylim=(len(lines) - 0.5, -0.5))
        axes.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
        figure.legend(*axes.get_legend_handles_labels(), frameon=False, fontsize=8, ncols=4, loc="outside upper center")
        figure.savefig(path, dpi=130)
        return path
