"""Puts what was measured where people read it: the tables of docs/results.md, the pictures, and the figures they are made of."""

import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.accuracy_cells import CELLS
from benchmarks.accuracy_claims import Verdict, judge_claims
from benchmarks.accuracy_figures import Figures, write_figures
from benchmarks.accuracy_results import Heads, Line, Spread, make_heads, make_lines
from common.errors import ConfigError
from common.files import write_atomic

FIGURES, PAGE = "accuracy.json", "results.md"
MARKS = ("starts", "runs", "heads", "evened", "targets", "unplayed")


def read_page(docs: Path) -> str:
    """The page that the tables go into.

    Raises:
        ConfigError: it is not there, or lacks the two marks of one of its parts.
    """
    page = docs / PAGE
    text = page.read_text() if page.exists() else ""
    for mark in MARKS:
        if not _between(mark).search(text):
            raise ConfigError(f"{page} needs the lines <!-- {mark} --> and <!-- /{mark} -->, between which it is written.")
    return text


def publish(docs: Path, figures: Figures, plots: Sequence[Path]) -> None:
    """Rewrite accuracy.json, the tables of results.md, and the pictures that the page shows.

    Raises:
        ConfigError: as in `read_page`.
    """
    text = read_page(docs)
    for mark, table in make_tables(figures).items():
        text = _between(mark).sub(lambda found, table=table: f"{found[1]}{table}{found[2]}", text)  # type: ignore[misc]
    write_figures(docs / FIGURES, figures)
    write_atomic(docs / PAGE, text.encode())
    for plot in plots:
        if (name := f"images/accuracy_{plot.name}") in text:
            shutil.copyfile(plot, docs / name)


def make_tables(figures: Figures) -> dict[str, str]:
    """By mark, in Markdown."""
    lines = make_lines(figures)
    heads, verdicts = make_heads(figures), judge_claims(lines)
    above = (starts_table(lines), runs_table(lines), heads_table(heads), evened_table(figures))
    return dict(zip(MARKS, (*above, targets_table(verdicts), unplayed(figures)), strict=True))


LABEL_SETS = {"fer2013": "FER2013's labels", "ferplus": "FER+'s votes"}


def starts_table(lines: Sequence[Line]) -> str:
    """What runs from a base begin with: the same for all that have one base and one set of labels."""
    found = {}
    for line in lines:
        if line.start is not None and line.base_words != "none":
            start = (line.start.accuracy, line.start.balanced, line.start.shifted, line.start.evened)
            found[line.base_words, LABEL_SETS[line.labels]] = tuple(_percent(value) for value in start)
    rows = [(*key, *figures) for key, figures in sorted(found.items())]
    return _table(("base", "labels", "accuracy", "balanced", "priors shifted", "balanced, priors evened"), rows, 2)


def runs_table(lines: Sequence[Line]) -> str:
    rows = []
    for line in lines:
        figures = (line.accuracy, line.balanced, line.shifted, line.evened, line.worst_tenth)
        start = "" if line.start is None else _percent(line.start.accuracy)
        epsilon = "" if line.epsilon is None else f"{line.epsilon:.2f}"
        rows.append((f"`{line.name}`", line.base_words, str(len(line.seeds)), *map(_words, figures), start, epsilon))
    headings = (
        "run",
        "base",
        "seeds",
        "accuracy",
        "balanced",
        "priors shifted",
        "balanced, priors evened",
        "worst tenth of devices",
        "before round 1",
        "epsilon",
    )
    return _table(headings, rows, 2)


def heads_table(heads: Heads) -> str:
    from simulation.personalise import TITLES

    keys = ("mean", "worst_tenth", "best_tenth", "balanced")
    rows = [
        (f"`{name}`" if stage == "before" else "", TITLES[stage], *(str(figures[key]) for key in keys))
        for name, stages in heads.items()
        for stage, figures in stages.items()
    ]
    return _table(("run", "model", "mean of devices", "worst tenth", "best tenth", "balanced"), rows, 2)


def evened_table(figures: Figures) -> str:
    """What each share of the correction makes of runs whose models carry class counts."""
    rows = []
    for name, runs in figures.items():
        known = [run.evened for run in runs if run.evened]
        for share in known[0]["noisy"] if known else ():
            spreads = [
                Spread.of(one[whose][share][figure] for one in known)
                for whose in ("noisy", "public")
                for figure in ("accuracy", "balanced")
            ]
            rows.append((f"`{name}`" if share == "0" else "", share, *map(_words, spreads)))
    headings = ("run", "share", "accuracy, noisy counts", "balanced", "accuracy, public counts", "balanced")
    return _table(headings, rows, 1)


def targets_table(verdicts: Sequence[Verdict]) -> str:
    rows = []
    for one in verdicts:
        against = one.claim.against if " " in one.claim.against else f"`{one.claim.against}`"
        result = "" if one.above is None else "met" if one.met else "**missed**"
        rows.append((f"`{one.claim.cell}`", f"{one.wanted} {against}", one.measured, result, str(len(one.line.seeds))))
    return _table(("run", "target", "measured", "", "seeds"), rows, 4)


def unplayed(figures: Figures) -> str:
    """The cells that have no runs yet, in one line."""
    names = ", ".join(f"`{cell.name}`" for cell in CELLS if cell.name not in figures)
    return f"Not played: {names}.\n" if names else "Every run of `--list` was played.\n"


def _between(mark: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.DOTALL)


def _words(figure: Spread | None) -> str:
    return "" if figure is None else str(figure)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> str:
    rules = ["---"] * left + ["---:"] * (len(headings) - left)
    return "".join(f"| {' | '.join(row)} |\n" for row in (headings, rules, *rows))
