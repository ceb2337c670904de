"""What a head of its own does for each device of a finished run: accuracy on the device's held-out faces, before and after.

`fl-sim personalise` calls `personalise_run`. In a run with `--personal-head` the heads are the devices' own, as training left
them; after any other each device fits one to its training faces, as `fl-client personalise` does. Nothing is published.
"""

import csv
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.table import Table

from common.arrays import Arrays
from common.canonical import encode
from common.errors import IntegrityError, RunError
from common.files import write_atomic
from common.plot_style import ACCENT, INK, SECOND, STYLE
from fl_client.own_head import read_head
from fl_client.personal import Personalised, PersonalSettings, personalise
from fl_server.checkpoint import Checkpoint
from fl_server.rounds import CHECKPOINT
from models.evaluate import Evaluation
from models.mobilenet import build_model
from models.preprocess import Preprocessing
from simulation.devices import SimulatedDevices
from simulation.population import make_population
from simulation.run import RunFolder

log = logging.getLogger("emofl.simulation")

JSON, CSV, PLOT = "personal.json", "personal.csv", "plots/personal.png"
STAGES = ("before", "shifted", "after")
TITLES = {"before": "global model", "shifted": "priors shifted", "after": "own head"}


@dataclass(frozen=True)
class Spread:
    """Devices' accuracies at one stage.

    Attributes:
        mean: of the devices, each counting alike.
        worst_tenth, best_tenth: mean of the lowest and of the highest tenth of the devices, of one at least.
        accuracy: of all held-out faces together.
        balanced: mean over the devices of the mean recall of the classes that the device has, which leaning towards its
            frequent classes does not raise. Over all faces together it would, because devices differ in what is frequent.
    """

    mean: float
    worst_tenth: float
    best_tenth: float
    accuracy: float
    balanced: float


@dataclass(frozen=True)
class Outcome:
    """All devices that have faces to judge by.

    Attributes:
        devices: their numbers.
        fitted: faces that each head was fitted to.
        found: what came of each.
        kept: the heads are those that the run trained, and none was fitted afterwards.
    """

    devices: tuple[int, ...]
    fitted: tuple[int, ...]
    found: tuple[Personalised, ...]
    kept: bool

    def accuracies(self, stage: str) -> NDArray[np.float64]:
        """Of each device."""
        return np.array([self._at(one, stage).accuracy for one in self.found])

    def spread(self, stage: str) -> Spread:
        """Of all devices at a stage of `STAGES`."""
        ordered = np.sort(self.accuracies(stage))
        tenth = max(1, len(ordered) // 10)
        stages = [self._at(one, stage) for one in self.found]
        together = np.sum([one.confusion for one in stages], axis=0)
        return Spread(
            mean=float(ordered.mean()),
            worst_tenth=float(ordered[:tenth].mean()),
            best_tenth=float(ordered[-tenth:].mean()),
            accuracy=float(np.trace(together) / together.sum()),
            balanced=float(np.mean([one.balanced_accuracy for one in stages])),
        )

    @property
    def worse_off(self) -> int:
        """Devices whose accuracy fell."""
        return int((self.accuracies("after") < self.accuracies("before")).sum())

    @staticmethod
    def _at(one: Personalised, stage: str) -> Evaluation:
        evaluation: Evaluation = getattr(one, stage)
        return evaluation


def personalise_run(folder: RunFolder, settings: PersonalSettings, tick: Callable[[], None] = lambda: None) -> Outcome:
    """Give each device of a run its own head, and judge it.

    Args:
        settings: of the fit; `aside` is the run's own holdout here.
        tick: called after each device.

    Raises:
        RunError: the run has no model, or its devices kept no faces aside.
    """
    config = folder.config
    if not (folder.path / CHECKPOINT).exists():
        raise RunError(f"{folder.path} holds no model: no round of it has finished.")
    weights = Checkpoint.load(folder.path / CHECKPOINT).shown()
    population = make_population(config.data, config.model, config.seed)
    devices = SimulatedDevices(config, folder.path / "devices")
    kept = config.train.local_layers == "head"
    numbers = tuple(number for number, rows in enumerate(population.holdout) if len(rows))
    if not numbers:
        raise RunError("The devices of this run kept no faces aside (data.holdout), so nothing tells whether a head is better.")
    model, found = build_model(config.model), []
    for number in numbers:
        aside = population.faces.take(population.holdout[number])
        start = own_head(devices, number, weights) if kept else None
        found.append(personalise(model, weights, population.device(number), aside, Preprocessing(), settings, start=start))
        tick()
    return Outcome(numbers, tuple(len(population.training[number]) for number in numbers), tuple(found), kept)


def own_head(devices: SimulatedDevices, number: int, weights: Arrays) -> Arrays:
    """The head that a device kept in its run; nothing in its place if it never took part, or what is there is no head."""
    try:
        head = read_head(devices.own_head(number))
    except IntegrityError as error:
        log.warning("%s Device %d is judged with the server's head.", error, number)
        return {}
    return dict(head.arrays) if head is not None and head.fits(weights) else {}


def write_outcome(folder: Path, outcome: Outcome, settings: PersonalSettings) -> dict[str, Any]:
    """personal.json, personal.csv and plots/personal.png in the run's folder; returns what the JSON holds."""
    values: dict[str, Any] = {
        "kept_in_the_run": outcome.kept,
        "settings": None if outcome.kept else settings.model_dump(exclude={"aside"}),
        "devices": len(outcome.devices),
        "held_out_faces": int(sum(one.before.examples for one in outcome.found)),
        "worse_off": outcome.worse_off,
        "per_device": [
            {"device": number, "fitted": fitted, "held_out": one.before.examples}
            | {stage: getattr(one, stage).accuracy for stage in STAGES}
            for number, fitted, one in zip(outcome.devices, outcome.fitted, outcome.found, strict=True)
        ],
    } | {stage: vars(outcome.spread(stage)) for stage in STAGES}
    write_atomic(folder / JSON, encode(values))
    text = io.StringIO()
    rows = csv.DictWriter(text, ["device", "fitted", "held_out", *STAGES], lineterminator="\n")
    rows.writeheader()
    rows.writerows(values["per_device"])
    write_atomic(folder / CSV, text.getvalue().encode())
    (folder / PLOT).parent.mkdir(exist_ok=True)
    plot_outcome(outcome, folder / PLOT)
    return values


def outcome_table(outcome: Outcome) -> Table:
    """The distribution over devices, for a terminal."""
    table = Table(title="Accuracy on the devices' own held-out faces", title_justify="left")
    table.add_column("model", style="bold", no_wrap=True)
    for heading in ("mean", "worst tenth", "best tenth", "all faces", "balanced"):
        table.add_column(heading, justify="right")
    for stage in STAGES:
        spread = outcome.spread(stage)
        table.add_row(
            TITLES[stage],
            *(f"{value:.1%}" for value in (spread.mean, spread.worst_tenth, spread.best_tenth, spread.accuracy, spread.balanced)),
        )
    return table


def plot_outcome(outcome: Outcome, path: Path) -> Path:
    """Each stage's accuracies, devices ordered by their accuracy at that stage: three distributions in one picture."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 4))
        axes = figure.subplots()
        looks = {"before": (INK, ":"), "shifted": (SECOND, "--"), "after": (ACCENT, "-")}
        for stage, (colour, line) in looks.items():
            ordered = np.sort(outcome.accuracies(stage))
            parts = (np.arange(len(ordered)) + 0.5) / len(ordered)
            label = f"{TITLES[stage]}: mean {ordered.mean():.1%}"
            axes.plot(parts, ordered, color=colour, linestyle=line, marker="o", markersize=3, label=label)
        axes.set(xlabel="devices, lowest first", ylabel="accuracy on own held-out faces", xlim=(0, 1), ylim=(0, 1))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(mpl.ticker.PercentFormatter(1))
        axes.legend(frameon=False, fontsize=8, loc="upper left")
        figure.savefig(path, dpi=110)
    return path
