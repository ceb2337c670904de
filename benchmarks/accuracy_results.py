"""What the runs of `benchmarks.accuracy` came to: means over seeds with 95 % intervals, as tables."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Self

from rich.table import Table

from benchmarks.accuracy_cells import CELLS
from benchmarks.accuracy_figures import FRESH, Figures, Stages
from common.console import out

T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
"""Student's t for a two-sided interval of 95 %, by degrees of freedom."""

LABELS = {cell.name: cell.settings.get("data", {}).get("labels", "fer2013") for cell in CELLS}
"""Which labels a cell's faces have."""


@dataclass(frozen=True)
class Spread:
    """A figure over seeds.

    Attributes:
        mean: of the seeds.
        margin: half the width of the 95 % interval; None for a single seed.
    """

    mean: float
    margin: float | None

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Self | None:
        """None where a seed lacks the figure."""
        found = list(values)
        known = [value for value in found if value is not None]
        if not known or len(known) < len(found):
            return None
        degrees = len(known) - 1
        return cls(mean(known), T_95.get(degrees, 2.0) * stdev(known) / math.sqrt(len(known)) if degrees else None)

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} %" if self.margin is None else f"{100 * self.mean:.1f} ± {100 * self.margin:.1f} %"


Heads = dict[str, dict[str, dict[str, Spread]]]
"""By cell, then stage, then figure."""


@dataclass(frozen=True)
class Start:
    """The model before round 1, on the mean over seeds: accuracy, balanced, and both with priors shifted as in `Line`."""

    accuracy: float
    balanced: float | None
    shifted: float | None
    evened: float | None


@dataclass(frozen=True)
class Line:
    """One cell's results.

    Attributes:
        base: what the runs began with, as in `Run`.
        shifted: accuracy once class priors are shifted to the test faces' own.
        evened: balanced accuracy once they are shifted to equal frequencies.
        seeds: accuracy by seed.
    """

    name: str
    base: str
    seeds: dict[int, float]
    accuracy: Spread
    balanced: Spread
    shifted: Spread | None
    evened: Spread | None
    worst_tenth: Spread | None
    epsilon: float | None
    start: Start | None

    @property
    def base_words(self) -> str:
        """The base's day, or `none`."""
        return "none" if self.base == FRESH else self.base.removeprefix("base model of ").partition("T")[0]

    @property
    def labels(self) -> str:
        """`fer2013` or `ferplus`."""
        return str(LABELS[self.name])


def make_lines(figures: Figures) -> list[Line]:
    """A line for each cell that has runs."""
    found = []
    for name, runs in figures.items():
        accuracy = Spread.of(run.test_accuracy for run in runs)
        balanced = Spread.of(run.test_balanced_accuracy for run in runs)
        if accuracy is None or balanced is None:
            continue
        epsilons = [run.epsilon or run.client_epsilon for run in runs]
        spent = [epsilon for epsilon in epsilons if epsilon]
        start = _mean(run.start_accuracy for run in runs)
        found.append(
            Line(
                name,
                runs[0].base,
                {run.seed: run.test_accuracy for run in runs},
                accuracy,
                balanced,
                Spread.of(run.test_priors_shifted for run in runs),
                Spread.of(run.test_balanced_evened for run in runs),
                Spread.of(run.device_accuracy_worst_tenth for run in runs),
                max(spent) if len(spent) == len(runs) else None,
                None
                if start is None
                else Start(
                    start,
                    _mean(run.start_balanced_accuracy for run in runs),
                    _mean(run.start_priors_shifted for run in runs),
                    _mean(run.start_balanced_evened for run in runs),
                ),
            )
        )
    return found


def _mean(values: Iterable[float | None]) -> float | None:
    spread = Spread.of(values)
    return spread.mean if spread else None


def show_lines(lines: Sequence[Line]) -> None:
    table = Table(title="Federated runs, PrivateTest", title_justify="left", padding=0)
    headings = ("run", "seeds", "acc.", "±95 %", "bal.", "shifted", "evened", "start", "eps", "worst")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "run" else "right", overflow="fold")
    for line in lines:
        table.add_row(
            line.name,
            str(len(line.seeds)),
            f"{line.accuracy.mean:.1%}",
            "" if line.accuracy.margin is None else f"{line.accuracy.margin:.1%}",
            *("" if figure is None else f"{figure.mean:.1%}" for figure in (line.balanced, line.shifted, line.evened)),
            "" if line.start is None else f"{line.start.accuracy:.1%}",
            "" if line.epsilon is None else f"{line.epsilon:.2f}",
            "" if line.worst_tenth is None else f"{line.worst_tenth.mean:.1%}",
        )
    out.print(table)
    out.print(
        "bal.: balanced; shifted: accuracy with class priors shifted to the test faces'; evened: balanced accuracy with them "
        "shifted to equal frequencies; worst: mean of the worst tenth of devices."
    )


def make_heads(figures: Figures) -> Heads:
    """By cell and stage, over seeds, what `fl-sim personalise` found."""
    found: Heads = {}
    for name, runs in figures.items():
        if heads := [run.heads for run in runs if run.heads]:
            found[name] = {stage: _spreads([getattr(one, stage) for one in heads]) for stage in Stages.model_fields}
    return found


def _spreads(runs: Sequence[dict[str, float]]) -> dict[str, Spread]:
    spreads = {key: Spread.of(run[key] for run in runs) for key in runs[0]}
    return {key: spread for key, spread in spreads.items() if spread}


def show_heads(heads: Heads) -> None:
    table = Table(title="Devices with a head of their own, on their held-out faces", title_justify="left")
    for heading in ("run", "model", "mean", "worst tenth", "best tenth", "balanced"):
        table.add_column(heading, justify="left" if heading in ("run", "model") else "right")
    for name, stages in heads.items():
        for stage, figures in stages.items():
            words = (f"{figures[key].mean:.1%}" for key in ("mean", "worst_tenth", "best_tenth", "balanced"))
            table.add_row(name if stage == "before" else "", stage, *words)
    out.print(table)
