"""Pictures of what a device has spent: bars for the terminal, a PNG to keep. `fl_client.privacy_commands` draws them."""

import math
from datetime import datetime
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.dates as mpl_dates
from matplotlib.figure import Figure
from rich.progress_bar import ProgressBar
from rich.table import Table

from fl_client.spending import NEARLY, Survey
from fl_client.terminal import plain

INK, ACCENT, SECOND = "#30343b", "#2563a8", "#c2571a"
STYLE: Any = {
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e3e5e8",
    "axes.axisbelow": True,
    "figure.constrained_layout.use": True,
}
RUNS = 10
"""Bars in a terminal: the last runs."""


def bars(survey: Survey) -> Table:
    """Cumulative epsilon after each of the last runs, as a part of the ceiling."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(max_width=28, no_wrap=True)
    table.add_column(width=34)
    table.add_column(justify="right", no_wrap=True)
    runs = list(survey.runs())
    if len(runs) > RUNS:
        table.add_row(f"{len(runs) - RUNS} earlier runs", "", "", style="dim")
    for run, entries, epsilon in runs[-RUNS:]:
        part = min(1.0, epsilon / survey.ceiling)
        style = "red" if part > NEARLY else "green"
        bar = ProgressBar(total=1.0, completed=part, width=32, complete_style=style, finished_style=style)
        until = entries[-1].time[:10]
        value = "no epsilon" if math.isinf(epsilon) else f"{epsilon:.2f} of {survey.ceiling:g}"
        table.add_row(f"{until}  {plain(run, 16)}", bar, value)
    return table


def plot(survey: Survey, path: Path) -> None:
    """Cumulative epsilon over time with the owner's ceiling, and below it over the debits, coloured by run."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 5))
        over_time, over_debits = figure.subplots(2, 1)
        known = [
            (entry, epsilon) for entry, epsilon in zip(survey.entries, survey.epsilons, strict=True) if math.isfinite(epsilon)
        ]
        times: Any = [datetime.fromisoformat(entry.time) for entry, _ in known]
        epsilons = [epsilon for _, epsilon in known]
        over_time.plot(times, epsilons, color=ACCENT, drawstyle="steps-post", marker="o", markersize=3)
        over_time.set(xlabel="time of the debit, UTC", ylabel="cumulative epsilon")
        formatter: Any = mpl_dates.ConciseDateFormatter
        over_time.xaxis.set_major_formatter(formatter(over_time.xaxis.get_major_locator()))
        start = 0
        for number, (run, entries, _) in enumerate(survey.runs()):
            end = min(start + len(entries), len(known))
            label = f"{plain(run, 24)}: {len(entries)} round{'' if len(entries) == 1 else 's'}"
            over_debits.bar(range(start + 1, end + 1), epsilons[start:end], color=f"C{number % 10}", width=0.85, label=label)
            start += len(entries)
        over_debits.set(xlabel="debit", ylabel="cumulative epsilon")
        over_debits.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
        for axes in (over_time, over_debits):
            axes.axhline(survey.ceiling, color=SECOND, linewidth=1)
            axes.set_ylim(0, 1.12 * max([survey.ceiling, *epsilons]))
            axes.annotate(
                f"the owner's ceiling: {survey.ceiling:g}",
                (0.01, survey.ceiling),
                xycoords=("axes fraction", "data"),
                xytext=(0, 3),
                textcoords="offset points",
                color=SECOND,
                fontsize=8,
            )
        if len(known) < len(survey.entries):
            over_debits.set_title("then used without privacy: no epsilon holds", fontsize=9, color=SECOND)
        if 0 < sum(1 for _ in survey.runs()) <= 8:
            over_debits.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
        figure.suptitle(f"Privacy spent on this device's faces (record level, delta {survey.delta:g}, RDP)", fontsize=10)
        figure.savefig(path, dpi=110)
