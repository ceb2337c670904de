"""The federated runs that `benchmarks.accuracy` measures, each a name and the settings that `fl-sim run` takes."""

from dataclasses import dataclass, field
from typing import Any

from common.config import RunConfig, merge_settings
from common.emotions import EMOTIONS_7, EMOTIONS_8
from simulation.run_command import settle

ROUNDS, CLIENTS, ALPHA = 30, 20, 0.3
"""As the targets say: 30 rounds, 20 devices, alpha 0.3."""
HALF = "half"
"""Stands for the base model that learnt from one half of the data; the run's devices hold the other half."""

FER2013 = dict(zip(EMOTIONS_7, (3958, 435, 4070, 7185, 4805, 3169, 4939), strict=True))
FERPLUS = dict(zip(EMOTIONS_8, (8409, 7265, 3096, 3270, 2033, 162, 649, 177), strict=True))
"""Public class counts of the Training faces: `FaceSet.targets` summed, for FER+ soft votes."""


@dataclass(frozen=True)
class Cell:
    """One line of the results.

    Attributes:
        name: `group/what`, for `--only`.
        settings: nested, over those that all cells share.
        personal: afterwards each device gets a head of its own, and is judged before and after.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    personal: bool = False

    def config(self, data: str, base: str, seed: int) -> RunConfig:
        """The run of one seed.

        Args:
            data: fer2013.csv of the half that is federated.
            base: the folder of the half-data base.
        """
        shared: dict[str, Any] = {
            "data": {"path": data, "clients": CLIENTS, "alpha": ALPHA},
            "server": {"rounds": ROUNDS},
            "train": {"learning_rate": 0.01},
            "privacy": {"private": False},
            "init": HALF,
            "seed": seed,
        }
        values = merge_settings(shared, self.settings)
        return settle(values | {"init": base if values["init"] == HALF else values["init"]})


def _skew() -> list[Cell]:
    scratch = {"init": "scratch", "train": {"learning_rate": 0.05}}
    alone: dict[str, Any] = {
        "data": {"clients": 1, "scheme": "iid"},
        "server": {"min_replies": 1},
        "upload": {"secure": False},
    }
    found = [Cell("central/base", alone), Cell("central/scratch", alone | scratch)]
    for clients in (20, 100):
        for alpha in (0.1, 0.3, 1.0, None):
            data = {"clients": clients} | ({"scheme": "iid"} if alpha is None else {"alpha": alpha})
            where = f"{'iid' if alpha is None else f'alpha-{alpha:g}'}-{clients}"
            found.append(Cell(f"fedavg/base-{where}", {"data": data}))
            found.append(Cell(f"fedavg/scratch-{where}", {"data": data} | scratch))
    return found


def _private(epsilon: float | None, trainable: str) -> dict[str, Any]:
    """Large lots and few steps, as De et al. 2022 found best under DP; without epsilon the same run without noise."""
    return {
        "privacy": {"private": epsilon is not None} | ({"epsilon": epsilon} if epsilon else {}),
        "model": {"trainable": trainable},
        "train": {"batch_size": 256, "local_steps": 2, "learning_rate": 0.2, "momentum": 0.0},
    }


def _record_level() -> list[Cell]:
    found = []
    for trainable in ("head", "last-block", "full"):
        for epsilon in (None, 1.0, 2.0, 4.0, 8.0):
            name = f"record/{trainable}-{'no-dp' if epsilon is None else f'epsilon-{epsilon:g}'}"
            found.append(Cell(name, _private(epsilon, trainable)))
    return found


def _client_level() -> list[Cell]:
    found = []
    for clients in (100, 1000):
        data = {"data": {"clients": clients, "scheme": "iid"}, "server": {"cohort": min(clients, 100)}}
        plain = {"model": {"trainable": "head"}, "train": {"learning_rate": 0.05}}
        found.append(Cell(f"client/none-{clients}", data | plain))
        for mode in ("central", "distributed"):
            for epsilon in (2.0, 8.0):
                level = {"mode": mode, "epsilon": epsilon, "clip": 0.5}
                found.append(Cell(f"client/{mode}-epsilon-{epsilon:g}-{clients}", data | plain | {"client_level": level}))
    return found


def _others() -> list[Cell]:
    skewed = {"data": {"alpha": 0.1}}
    return [
        Cell("optimiser/fedavg", skewed),
        Cell("optimiser/fedprox", skewed | {"server": {"strategy": "fedprox"}, "train": {"proximal_mu": 0.01}}),
        Cell("optimiser/fedavgm", skewed | {"server": {"strategy": "fedavgm"}}),
        Cell("optimiser/fedadam", skewed | {"server": {"strategy": "fedadam"}}),
        Cell("upload/int16-secure", {"upload": {"precision": "int16"}}),
        Cell("upload/float16", {"upload": {"precision": "float16", "secure": False}}),
        Cell("upload/int8", {"upload": {"precision": "int8", "secure": False}}),
    ]


def _losses() -> list[Cell]:
    """Class imbalance and label noise; plain cross-entropy at alpha 0.3 is `fedavg/base-alpha-0.3-20`."""
    found = [Cell("loss/ferplus-cross-entropy", {"data": {"labels": "ferplus"}})]
    private = _private(8.0, "last-block")
    for loss in ("class-balanced", "logit-adjusted"):
        train = {"loss": loss, "class_counts": FER2013}
        found.append(Cell(f"loss/{loss}", {"train": train}))
        found.append(Cell(f"loss/{loss}-epsilon-8", merge_settings(private, {"train": train})))
        asked = {"train": {"loss": loss}, "evaluation": {"class_histogram": True}}
        found.append(Cell(f"loss/{loss}-histogram-epsilon-8", merge_settings(private, asked)))
        soft = {"train": {"loss": loss, "class_counts": FERPLUS}, "data": {"labels": "ferplus"}}
        found.append(Cell(f"loss/ferplus-{loss}", soft))
    return found


def _personal() -> list[Cell]:
    """A head fitted after training, and one that never left its device during it."""
    found = []
    for alpha in (0.1, 0.3):
        data = {"data": {"alpha": alpha, "holdout": 0.2}}
        kept = {"train": {"local_layers": "head"}}
        found.append(Cell(f"personal/fitted-alpha-{alpha:g}", data, personal=True))
        found.append(Cell(f"personal/kept-alpha-{alpha:g}", data | kept, personal=True))
        private = merge_settings(_private(8.0, "last-block"), data)
        found.append(Cell(f"personal/fitted-alpha-{alpha:g}-epsilon-8", private, personal=True))
        found.append(Cell(f"personal/kept-alpha-{alpha:g}-epsilon-8", merge_settings(private, kept), personal=True))
    return found


CELLS: tuple[Cell, ...] = (*_skew(), *_record_level(), *_client_level(), *_others(), *_losses(), *_personal())


@dataclass(frozen=True)
class Claim:
    """That one cell is at most `points` below another; negative: at least so much above."""

    cell: str
    against: str
    points: float


BASE = "base"
"""The half-data base as it is, before any round."""

CLAIMS = (
    Claim("fedavg/base-alpha-0.3-20", "central/base", 1.5),
    Claim("fedavg/base-alpha-0.3-20", BASE, -2.0),
    *(Claim(f"record/{part}-epsilon-8", f"record/{part}-no-dp", 1.0) for part in ("head", "last-block", "full")),
    *(Claim(f"record/{part}-epsilon-2", f"record/{part}-no-dp", 2.0) for part in ("head", "last-block", "full")),
    Claim("client/central-epsilon-8-1000", "client/none-1000", 2.0),
    Claim("client/distributed-epsilon-8-1000", "client/none-1000", 2.0),
)
"""What federated runs should reach, in points of accuracy."""
