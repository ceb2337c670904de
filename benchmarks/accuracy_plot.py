"""Draws what `benchmarks.accuracy` found: a picture for each group of runs, with 95 % intervals over seeds."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.accuracy_results import Heads, Line, Spread
from common.plot_style import ACCENT, INK, SECOND, STYLE
from simulation.personalise import TITLES

BESIDE = {"loss": ("fedavg/block-alpha-0.3-20",), "upload": ("fedavg/block-alpha-0.3-20",)}
"""Runs of another group that a group is held against."""

PANELS = {"fer2013": "FER2013, 7 classes", "ferplus": "FER+ majority, 8 classes", "scratch": "FER2013, from scratch"}
ROW, HEAD = 0.27, 0.75
"""Inches: of a line, and of a panel's title and axis."""


def plot_groups(lines: Sequence[Line], folder: Path) -> list[Path]:
    """GROUP.png for each group in `folder`: a panel for each set of labels, since accuracies on other labels are not compared."""
    known = {line.name: line for line in lines}
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(line.name.partition("/")[0], []).append(line)
    return [
        _plot(group, [known[name] for name in BESIDE.get(group, ()) if name in known] + of_group, folder / f"{group}.png")
        for group, of_group in groups.items()
        if group != "personal"
    ]


def _plot(group: str, lines: Sequence[Line], path: Path) -> Path:
    panels: dict[str, list[Line]] = {}
    for line in lines:
        panels.setdefault("scratch" if line.base_words == "none" else line.labels, []).append(line)
    panels = {name: panels[name] for name in PANELS if name in panels}
    heights = [HEAD + ROW * len(panel) for panel in panels.values()]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 0.6 + sum(heights)))
        all_axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
        for axes, (name, panel) in zip(all_axes, panels.items(), strict=True):
            _draw(axes, panel)
            axes.set_title(f"{PANELS[name]}, PrivateTest", fontsize=10, loc="left")
            own = [line.name.removeprefix(f"{group}/") for line in panel]
            axes.set_yticks(range(len(panel)), own, fontsize=8)
        _save(figure, all_axes[0], path)
    return path


def _save(figure: Figure, axes: Axes, path: Path) -> None:
    """With a legend above that names each label of `axes` once."""
    shown = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(shown.values(), shown.keys(), frameon=False, fontsize=8, ncols=3, loc="outside upper center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _draw(axes: Axes, lines: Sequence[Line]) -> None:
    """Filled where three seeds give an interval, open for a single seed."""
    for name, corrected, how, colour in (
        ("accuracy", "shifted", "priors as in the test", ACCENT),
        ("balanced", "evened", "priors evened", SECOND),
    ):
        for row, line in enumerate(lines):
            _point(axes, row, getattr(line, name), colour, f"{name}, 95 % over seeds (open: one seed)")
        places = [(spread.mean, row) for row, line in enumerate(lines) if (spread := getattr(line, corrected))]
        if places:
            axes.plot(*zip(*places, strict=True), "|", color=colour, markersize=10, label=f"{name}, {how}")
        began = {round(100 * value, 1) for line in lines if line.start and (value := getattr(line.start, name))}
        if len(began) == 1:
            axes.axvline(began.pop() / 100, color=colour, linestyle=":", linewidth=1, label=f"{name} before round 1", zorder=0)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(7, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1))


def _point(axes: Axes, row: int, spread: Spread, colour: str, label: str) -> None:
    fill = "white" if spread.margin is None else colour
    axes.errorbar(spread.mean, row, xerr=spread.margin, fmt="o", markersize=4, color=colour, mfc=fill, capsize=3, label=label)


def plot_heads(heads: Heads, path: Path) -> Path:
    """For each run and stage the mean over devices, and a bar from the worst to the best tenth of them."""
    stages = [(name, stage) for name in heads for stage in heads[name]]
    colours = dict(zip(TITLES, (INK, SECOND, ACCENT), strict=True))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 0.9 + 0.2 * len(stages)))
        axes = figure.subplots()
        for row, (name, stage) in enumerate(stages):
            one = heads[name][stage]
            axes.plot([one["worst_tenth"].mean, one["best_tenth"].mean], [row, row], color=colours[stage], alpha=0.4, linewidth=5)
            axes.errorbar(one["mean"].mean, row, xerr=one["mean"].margin, fmt="o", color=colours[stage], label=TITLES[stage])
        middle = [(at + 1, name.partition("/")[2]) for at, (name, stage) in enumerate(stages) if stage == "before"]
        axes.set_yticks(*zip(*middle, strict=True), fontsize=8)
        axes.set(ylim=(len(stages) - 0.5, -0.5), xlabel="accuracy on devices' own held-out faces: mean, worst to best tenth")
        axes.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
        _save(figure, axes, path)
    return path
