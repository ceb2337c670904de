"""Puts what was measured where people read it: the tables of docs/results.md, the pictures, and the figures they are made of."""

import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.accuracy_cells import CELLS
from benchmarks.accuracy_claims import Verdict, judge_claims
from benchmarks.accuracy_figures import Figures, write_figures
from benchmarks.accuracy_results import Heads, Line, make_heads, make_lines
from common.errors import ConfigError
from common.files import write_atomic

FIGURES, PAGE = "accuracy.json", "results.md"
MARKS = ("runs", "heads", "targets", "unplayed")


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
    tables = (runs_table(lines), heads_table(make_heads(figures)), targets_table(judge_claims(lines)), unplayed(figures))
    return dict(zip(MARKS, tables, strict=True))


def runs_table(lines: Sequence[Line]) -> str:
    rows = []
    for line in lines:
        accuracy = _percent(line.accuracy) if line.margin is None else f"{100 * line.accuracy:.1f} ± {100 * line.margin:.1f} %"
        others = (_percent(value) for value in (line.balanced, line.shifted, line.worst_tenth, line.start))
        epsilon = "" if line.epsilon is None else f"{line.epsilon:.2f}"
        rows.append((f"`{line.name}`", line.base_words, str(line.seeds), accuracy, *others, epsilon))
    headings = (
        "run",
        "base",
        "seeds",
        "accuracy",
        "balanced",
        "priors shifted",
        "worst tenth of devices",
        "before round 1",
        "epsilon",
    )
    return _table(headings, rows, 2)


def heads_table(heads: Heads) -> str:
    from simulation.personalise import TITLES

    keys = ("mean", "worst_tenth", "best_tenth", "balanced")
    rows = [
        (f"`{name}`" if stage == "before" else "", TITLES[stage], *(_percent(spread[key]) for key in keys))
        for name, stages in heads.items()
        for stage, spread in stages.items()
    ]
    return _table(("run", "model", "mean of devices", "worst tenth", "best tenth", "balanced"), rows, 2)


def targets_table(verdicts: Sequence[Verdict]) -> str:
    rows = []
    for one in verdicts:
        against = one.claim.against if " " in one.claim.against else f"`{one.claim.against}`"
        result = "" if one.above is None else "met" if one.met else "**missed**"
        rows.append((f"`{one.claim.cell}`", f"{one.wanted} {against}", one.measured, result, str(one.line.seeds)))
    return _table(("run", "target", "measured", "", "seeds"), rows, 4)


def unplayed(figures: Figures) -> str:
    """The cells that have no runs yet, in one line."""
    names = ", ".join(f"`{cell.name}`" for cell in CELLS if cell.name not in figures)
    return f"Not played: {names}.\n" if names else "Every run of `--list` was played.\n"


def _between(mark: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- {mark} -->\n).*?(<!-- /{mark} -->)", re.DOTALL)


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], left: int) -> str:
    rules = ["---"] * left + ["---:"] * (len(headings) - left)
    return "".join(f"| {' | '.join(row)} |\n" for row in (headings, rules, *rows))
