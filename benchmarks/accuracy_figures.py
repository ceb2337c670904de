"""The figures of finished runs, which docs/accuracy.json keeps: they outlive the folder that the runs were played in."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from benchmarks.accuracy_cells import CELLS
from common.errors import ConfigError, RunError
from common.files import write_atomic
from models.starting_point import StartingPoint

FRESH = StartingPoint().name
"""What the manifests of runs from scratch call their start."""


EVENED = "evened.json"
Evened = dict[str, dict[str, dict[str, float]]]
"""What `accuracy_evened` writes: by whose counts (`noisy`, `public`), then share, then figure (`accuracy`, `balanced`)."""


class Stages(BaseModel):
    """Of own heads, as personal.json names them: figures with the model as it is, with its priors shifted, with the own head."""

    model_config = ConfigDict(frozen=True)

    before: dict[str, float]
    shifted: dict[str, float]
    after: dict[str, float]


class Run(BaseModel):
    """What one run came to: the figures of its summary.json, personal.json and evened.json.

    Attributes:
        base: what it began with, as its manifests call it, so `FRESH` or one half-data base. Another machine's rounding makes
            another base of the same recipe, and runs from different bases are not compared.
    """

    model_config = ConfigDict(frozen=True)

    seed: int
    base: str
    test_accuracy: float
    test_balanced_accuracy: float
    test_priors_shifted: float | None = None
    test_balanced_evened: float | None = None
    start_accuracy: float | None = None
    start_balanced_accuracy: float | None = None
    start_priors_shifted: float | None = None
    start_balanced_evened: float | None = None
    device_accuracy_worst_tenth: float | None = None
    epsilon: float | None = None
    client_epsilon: float | None = None
    heads: Stages | None = None
    evened: Evened | None = None


Figures = dict[str, list[Run]]
"""By name of the cell, in the order of `CELLS`."""
_FILE = TypeAdapter(Figures)


def begun(folder: Path, cell: str) -> Iterator[tuple[int, Path]]:
    """Seeds and folders of the cell's runs, finished or not; other folders beside them are none of its runs."""
    for path in sorted((folder / "runs" / cell).glob("seed-*")):
        number = path.name.removeprefix("seed-")
        if number.isdigit():
            yield int(number), path


def started_from(run: Path) -> str | None:
    """What a run began with, as its newest model's manifest says; None while it has published nothing."""
    registry = run / "registry"
    if not (registry / "LATEST").exists():
        return None
    newest = (registry / "LATEST").read_text().strip()
    return str(json.loads((registry / "versions" / newest / "manifest.json").read_bytes())["init"])


def read_complete(run: Path) -> dict[str, Any] | None:
    """The summary of a run that is finished and had every round accepted: with fewer, it is of something else than its cell."""
    path = run / "summary.json"
    if not path.exists():
        return None
    summary: dict[str, Any] = json.loads(path.read_bytes())
    return summary if summary["accepted_rounds"] == summary["rounds"] else None


def gather(folder: Path) -> Figures:
    """What is complete in the folder.

    Raises:
        RunError: a run's files are damaged.
    """
    found: Figures = {}
    for cell in CELLS:
        for seed, path in begun(folder, cell.name):
            try:
                summary = read_complete(path)
                if summary is None:
                    continue
                figures = summary | {"seed": seed, "base": started_from(path)}
                if (path / "personal.json").exists():
                    figures["heads"] = json.loads((path / "personal.json").read_bytes())
                if (path / EVENED).exists():
                    figures["evened"] = json.loads((path / EVENED).read_bytes())
                run = Run.model_validate(figures)
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise RunError(f"The figures of {path} cannot be read ({type(error).__name__}): move it away.") from error
            found.setdefault(cell.name, []).append(run)
    return found


def merge(known: Figures, found: Figures) -> Figures:
    """Both. Of a cell that has runs from different bases those from one remain: where there are more seeds, else what was found.

    Cells that are no more are left out.
    """
    merged: Figures = {}
    for cell in CELLS:
        new, old = found.get(cell.name, []), known.get(cell.name, [])
        if new and old and new[0].base != old[0].base:
            runs = new if len(new) >= len(old) else old
        else:
            by_seed = {run.seed: run for run in old}
            by_seed |= {run.seed: _completed(run, by_seed.get(run.seed)) for run in new}
            runs = [by_seed[seed] for seed in sorted(by_seed)]
        if runs:
            merged[cell.name] = runs
    return merged


def _completed(run: Run, known: Run | None) -> Run:
    """What was known of the same run stays where its folder does not tell it: older ones lack some figures."""
    if known is None or known.test_accuracy != run.test_accuracy:
        return run
    return Run.model_validate(known.model_dump() | run.model_dump(exclude_none=True))


def read_figures(path: Path) -> Figures:
    """The figures in the file; none where there is no file.

    Raises:
        ConfigError: it holds something else.
    """
    if not path.exists():
        return {}
    try:
        return _FILE.validate_json(path.read_bytes())
    except ValidationError as error:
        raise ConfigError(f"{path} does not hold the figures of runs: move it away, and it is written anew.") from error


def write_figures(path: Path, figures: Figures) -> None:
    """One line for each run."""
    cells = (
        f"{json.dumps(name)}: [\n" + ",\n".join(run.model_dump_json(exclude_none=True) for run in runs) + "\n]"
        for name, runs in figures.items()
    )
    write_atomic(path, ("{\n" + ",\n".join(cells) + "\n}\n").encode())
