"""Pictures of what a device has spent: bars for the terminal, a PNG to keep. `fl_client.privacy_commands` draws them."""

import math
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.dates as mpl_dates
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from common.plot_style import ACCENT, SECOND, STYLE
from fl_client.client_spending import ClientSurvey
from fl_client.spending import NEARLY, Survey
from fl_client.terminal import plain

RUNS = 10
"""Bars in a terminal: the last runs."""


def bars(survey: Survey) -> Table:
    """Cumulative epsilon after each of the last runs, as a part of the ceiling."""
    rows = [(f"{entries[-1].time[:10]}  {plain(run, 16)}", epsilon) for run, entries, epsilon in survey.runs()]
    return _bars(rows, survey.ceiling)


def client_bars(whole: ClientSurvey) -> Table:
    """Cumulative client-level epsilon with the promise of each of the last runs, as a part of the ceiling; there must be one."""
    added = accumulate(run.promise.epsilon for run in whole.runs)
    rows = [(f"{run.since[:10]}  {plain(run.name, 16)}", epsilon) for run, epsilon in zip(whole.runs, added, strict=True)]
    return _bars(rows, whole.ceiling or math.inf)


def _bars(rows: list[tuple[str, float]], ceiling: float) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(max_width=28, no_wrap=True)
    table.add_column(width=34)
    table.add_column(justify="right", no_wrap=True)
    if len(rows) > RUNS:
        table.add_row(f"{len(rows) - RUNS} earlier runs", "", "", style="dim")
    for name, epsilon in rows[-RUNS:]:
        part = min(1.0, epsilon / ceiling)
        style = "red" if part > NEARLY else "green"
        bar = ProgressBar(total=1.0, completed=part, width=32, complete_style=style, finished_style=style)
        table.add_row(escape(name), bar, "no epsilon" if math.isinf(epsilon) else f"{epsilon:.2f} of {ceiling:g}")
    return table


def plot(survey: Survey, path: Path) -> None:
    """Record level: cumulative epsilon over time with the owner's ceiling, and below it over the debits, coloured by run.

    Client level, where runs have made promises: a panel of its own, with its own ceiling.
    """
    whole = survey.whole
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 7.4 if whole.runs else 5))
        over_time, over_debits, *rest = figure.subplots(3 if whole.runs else 2, 1)
        _plot_records(survey, over_time, over_debits)
        over_time.set_title(f"each face by itself (record level, delta {survey.delta:g}, RDP)", fontsize=9, loc="left")
        for axes in rest:
            _plot_promises(whole, axes)
        figure.suptitle("Privacy spent on this device's faces", fontsize=10)
        figure.savefig(path, dpi=110)


def _plot_records(survey: Survey, over_time: Any, over_debits: Any) -> None:
    known = [(entry, epsilon) for entry, epsilon in zip(survey.entries, survey.epsilons, strict=True) if math.isfinite(epsilon)]
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
        axes.set_ylim(0, 1.12 * max([survey.ceiling, *epsilons]))
        _draw_ceiling(axes, survey.ceiling)
    if len(known) < len(survey.entries):
        over_debits.set_title("then used without privacy: no epsilon holds", fontsize=9, color=SECOND)
    if 0 < sum(1 for _ in survey.runs()) <= 8:
        over_debits.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))


def _plot_promises(whole: ClientSurvey, axes: Any) -> None:
    """Each run's promise on top of the earlier ones."""
    bottom, labels = 0.0, []
    for number, run in enumerate(whole.runs):
        shares = run.promise.mode == "distributed"
        axes.bar(
            number,
            run.promise.epsilon,
            bottom=bottom,
            width=0.6,
            color=ACCENT if shares else "white",
            edgecolor=ACCENT,
            hatch=None if shares else "//",
        )
        bottom += run.promise.epsilon
        labels.append(f"{plain(run.name, 12)}\n{run.taken} of {run.promise.rounds} rounds")
    some = range(0, len(labels), -(-len(labels) // 6))
    axes.set_xticks(list(some), [labels[number] for number in some], fontsize=8)
    axes.set_xlim(-0.6, max(2.5, len(labels) - 0.4))
    axes.set_ylim(0, 1.25 * max(whole.ceiling or 0.0, bottom))
    axes.set_ylabel("promised epsilon, added")
    without = f"; not promised anything by {len(whole.without)} more" if whole.without else ""
    axes.set_title(f"all faces together (client level, delta {whole.delta:.3g}){without}", fontsize=9, loc="left")
    meanings = {"noise by the devices:\nholds against the server": ACCENT, "noise by the server:\nif it keeps its word": "white"}
    patches = [
        Patch(facecolor=colour, edgecolor=ACCENT, hatch="//" if colour == "white" else None, label=meaning)
        for meaning, colour in meanings.items()
    ]
    axes.legend(handles=patches, frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    if whole.ceiling is not None:
        _draw_ceiling(axes, whole.ceiling)


def _draw_ceiling(axes: Any, ceiling: float) -> None:
    axes.axhline(ceiling, color=SECOND, linewidth=1)
    axes.annotate(
        f"the owner's ceiling: {ceiling:g}",
        (0.01, ceiling),
        xycoords=("axes fraction", "data"),
        xytext=(0, 3),
        textcoords="offset points",
        color=SECOND,
        fontsize=8,
    )
