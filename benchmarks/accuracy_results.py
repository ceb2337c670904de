"""What the runs of `benchmarks.accuracy` came to: means over seeds with 95 % intervals, read from their folders, as tables."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from rich.table import Table

from benchmarks.accuracy_cells import CELLS
from common.console import out

T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
"""Student's t for a two-sided interval of 95 %, by degrees of freedom."""


@dataclass(frozen=True)
class Line:
    """One cell's results: means over seeds, and half the width of the 95 % interval where there are two or more.

    Attributes:
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


def _mean(runs: Sequence[dict[str, Any]], name: str) -> float | None:
    values = [run[name] for run in runs if run.get(name) is not None]
    return mean(values) if values else None


def read_lines(folder: Path) -> list[Line]:
    """What is finished, in the order of `CELLS`."""
    found = []
    for cell in CELLS:
        runs = [json.loads(path.read_bytes()) for path in sorted((folder / "runs" / cell.name).glob("seed-*/summary.json"))]
        if not runs:
            continue
        values = [run["test_accuracy"] for run in runs]
        degrees = len(values) - 1
        margin = T_95.get(degrees, 2.0) * stdev(values) / math.sqrt(len(values)) if degrees else None
        epsilons = [run["epsilon"] or run["client_epsilon"] for run in runs]
        found.append(
            Line(
                cell.name,
                len(runs),
                mean(values),
                mean(run["test_balanced_accuracy"] for run in runs),
                margin,
                max(epsilons) if all(epsilons) else None,
                _mean(runs, "device_accuracy_worst_tenth"),
                _mean(runs, "test_priors_shifted"),
                _mean(runs, "start_accuracy"),
                _mean(runs, "start_priors_shifted"),
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


def read_heads(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """By cell and stage, means over seeds of what `fl-sim personalise` found."""
    found = {}
    for cell in CELLS:
        runs = [json.loads(path.read_bytes()) for path in sorted((folder / "runs" / cell.name).glob("seed-*/personal.json"))]
        if runs:
            found[cell.name] = {
                stage: {name: mean(run[stage][name] for run in runs) for name in runs[0][stage]}
                for stage in ("before", "shifted", "after")
            }
    return found


def show_heads(heads: dict[str, dict[str, dict[str, float]]]) -> None:
    table = Table(title="Devices with a head of their own, on their held-out faces", title_justify="left")
    for heading in ("run", "model", "mean", "worst tenth", "best tenth", "balanced"):
        table.add_column(heading, justify="left" if heading in ("run", "model") else "right")
    for name, stages in heads.items():
        for stage, spread in stages.items():
            figures = (f"{spread[key]:.1%}" for key in ("mean", "worst_tenth", "best_tenth", "balanced"))
            table.add_row(name if stage == "before" else "", stage, *figures)
    out.print(table)
