"""What the runs of `benchmarks.accuracy` came to: means over seeds with 95 % intervals, as tables."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from rich.table import Table

from benchmarks.accuracy_figures import FRESH, Figures, Stages
from common.console import out

T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
"""Student's t for a two-sided interval of 95 %, by degrees of freedom."""

Heads = dict[str, dict[str, dict[str, float]]]
"""By cell, then stage, then figure."""


@dataclass(frozen=True)
class Line:
    """One cell's results: means over seeds, and half the width of the 95 % interval where there are two or more.

    Attributes:
        base: what the runs began with, as in `Run`.
        start: accuracy before round 1.
        shifted, start_shifted: accuracy after, and before round 1, once class priors are shifted to the test faces' own.
    """

    name: str
    seeds: int
    accuracy: float
    balanced: float
    margin: float | None
    epsilon: float | None
    worst_tenth: float | None
    shifted: float | None = None
    start: float | None = None
    start_shifted: float | None = None
    base: str = FRESH

    @property
    def base_words(self) -> str:
        """The base's day, or `none`."""
        return "none" if self.base == FRESH else self.base.removeprefix("base model of ").partition("T")[0]


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def make_lines(figures: Figures) -> list[Line]:
    """A line for each cell that has runs."""
    found = []
    for name, runs in figures.items():
        values = [run.test_accuracy for run in runs]
        degrees = len(values) - 1
        epsilons = [run.epsilon or run.client_epsilon for run in runs]
        spent = [epsilon for epsilon in epsilons if epsilon]
        found.append(
            Line(
                name,
                len(runs),
                mean(values),
                mean(run.test_balanced_accuracy for run in runs),
                T_95.get(degrees, 2.0) * stdev(values) / math.sqrt(len(values)) if degrees else None,
                max(spent) if len(spent) == len(runs) else None,
                _mean(run.device_accuracy_worst_tenth for run in runs),
                _mean(run.test_priors_shifted for run in runs),
                _mean(run.start_accuracy for run in runs),
                _mean(run.start_priors_shifted for run in runs),
                runs[0].base,
            )
        )
    return found


def show_lines(lines: Sequence[Line]) -> None:
    table = Table(title="Federated runs, PrivateTest", title_justify="left", padding=0)
    headings = ("run", "seeds", "acc.", "±95 %", "bal.", "shifted", "start", "eps", "worst")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "run" else "right", overflow="fold")
    for line in lines:
        table.add_row(
            line.name,
            str(line.seeds),
            f"{line.accuracy:.1%}",
            "" if line.margin is None else f"{line.margin:.1%}",
            f"{line.balanced:.1%}",
            "" if line.shifted is None else f"{line.shifted:.1%}",
            "" if line.start is None else f"{line.start:.1%}",
            "" if line.epsilon is None else f"{line.epsilon:.2f}",
            "" if line.worst_tenth is None else f"{line.worst_tenth:.1%}",
        )
    out.print(table)
    out.print("bal.: balanced; shifted: with class priors shifted to the test faces'; worst: mean of the worst tenth of devices.")


def make_heads(figures: Figures) -> Heads:
    """By cell and stage, means over seeds of what `fl-sim personalise` found."""
    found: Heads = {}
    for name, runs in figures.items():
        if heads := [run.heads for run in runs if run.heads]:
            found[name] = {stage: _mean_figures([getattr(one, stage) for one in heads]) for stage in Stages.model_fields}
    return found


def _mean_figures(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    return {key: mean(run[key] for run in runs) for key in runs[0]}


def show_heads(heads: Heads) -> None:
    table = Table(title="Devices with a head of their own, on their held-out faces", title_justify="left")
    for heading in ("run", "model", "mean", "worst tenth", "best tenth", "balanced"):
        table.add_column(heading, justify="left" if heading in ("run", "model") else "right")
    for name, stages in heads.items():
        for stage, spread in stages.items():
            figures = (f"{spread[key]:.1%}" for key in ("mean", "worst_tenth", "best_tenth", "balanced"))
            table.add_row(name if stage == "before" else "", stage, *figures)
    out.print(table)
