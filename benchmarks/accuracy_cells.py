"""The federated runs that `benchmarks.accuracy` measures, each a name and the settings that `fl-sim run` takes."""

from dataclasses import dataclass, field
from typing import Any

from common.config import RunConfig, merge_settings
from models.class_counts import FER2013, FERPLUS
from simulation.run_command import settle

ROUNDS, CLIENTS, ALPHA = 30, 20, 0.3
"""As the targets say: 30 rounds, 20 devices, alpha 0.3."""
PARTS = ("last-layer", "head", "last-block", "full")
HALF = "half"
"""Stands for the base model that learnt from one half of the data; the run's devices hold the other half."""

LEARNS = {
    "base": "base",
    "votes": "votes",
    "votes-momentum": "votes",
    "votes-4-epochs": "votes-4-epochs",
    "votes-4-epochs-momentum": "votes-4-epochs",
    "votes-4-epochs-adamw": "votes-4-epochs-adamw",
}
"""Ways to train the whole network, and the `central` run that each is held against."""


@dataclass(frozen=True)
class Cell:
    """One line of the results.

    Attributes:
        name: `group/what`, for `--only`.
        settings: nested, over those that all cells share.
        personal: afterwards each device gets a head of its own, and is judged before and after.
        evened: afterwards the devices' noisy class counts are taken out of the model's answers.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    personal: bool = False
    evened: bool = False

    def config(self, data: str, base: str, seed: int) -> RunConfig:
        """The run of one seed.

        Args:
            data: fer2013.csv of the half that is federated.
            base: the folder of the half-data base.
        """
        shared: dict[str, Any] = {
            "data": {"path": data, "clients": CLIENTS, "alpha": ALPHA},
            "server": {"rounds": ROUNDS, "keep_models": 1},
            "train": {"learning_rate": 0.01},
            "privacy": {"private": False},
            "init": HALF,
            "seed": seed,
        }
        values = merge_settings(shared, self.settings)
        return settle(values | {"init": base if values["init"] == HALF else values["init"]})


BLOCK: dict[str, Any] = {
    "model": {"trainable": "last-block"},
    "train": {"augment": False, "batch_size": 64},
    "upload": {"secure": False},
}
"""The last block alone, on features that are computed once: a tenth of the work of training everything. The sum is taken in the
open, since a secure one adds the same numbers; `upload/int16-secure` shows what rounding for it costs."""

SCRATCH: dict[str, Any] = {
    "init": "scratch",
    "model": {"name": "mobilenet_v2_tiny", "stem_stride": 2},
    "upload": {"secure": False},
}
"""From nothing: the small network, which learns in few steps."""


def _skew() -> list[Cell]:
    alone: dict[str, Any] = {
        "data": {"clients": 1, "scheme": "iid"},
        "server": {"min_replies": 1},
        "upload": {"secure": False},
    }
    full = {"train": {"batch_size": 64, "learning_rate": 0.02}, "upload": {"secure": False}}
    votes = merge_settings(full, {"data": {"labels": "ferplus"}, "train": {"decay": 0.01}})
    starts: dict[str, dict[str, Any]] = {"base": full, "votes": votes, "block": BLOCK, "scratch": SCRATCH}
    # The base lacks training rather than faces: so once more with four passes a round.
    longer = merge_settings(votes, {"train": {"local_epochs": 4.0}})
    adamw = {"train": {"optimiser": "adamw", "learning_rate": 0.001}}
    central = starts | {"votes-4-epochs": longer, "votes-4-epochs-adamw": merge_settings(longer, adamw)}
    found = [Cell(f"central/{start}", merge_settings(alone, settings)) for start, settings in central.items()]
    # A mean of twenty models bears more noise in each of them than a single model does.
    shared = {"train": {"batch_size": 32, "learning_rate": 0.03}}
    starts["votes"], longer = merge_settings(votes, shared), merge_settings(longer, shared)
    for start, settings in starts.items():
        for clients in (20,) if start == "base" else (20, 100):  # what 100 do to the whole network, `votes` shows
            for alpha in (0.1, 0.3, 1.0, None):
                data = {"clients": clients} | ({"scheme": "iid"} if alpha is None else {"alpha": alpha})
                where = f"{'iid' if alpha is None else f'alpha-{alpha:g}'}-{clients}"
                found.append(Cell(f"fedavg/{start}-{where}", merge_settings(settings, {"data": data})))
    # The server's momentum lengthens the few steps that 30 means are; 0.9 overshoots.
    momentum = {"server": {"strategy": "fedavgm", "server_momentum": 0.7}}
    starts["votes-momentum"] = merge_settings(starts["votes"], momentum)
    starts["votes-4-epochs"] = longer
    starts["votes-4-epochs-momentum"] = merge_settings(longer, momentum)
    starts["votes-4-epochs-adamw"] = merge_settings(longer, adamw)
    for start in (*LEARNS, "block"):
        counts = FERPLUS if start.startswith("votes") else FER2013
        calibrated = {"train": {"loss": "calibrated", "class_counts": counts}}
        for alpha in (0.1, 0.3) if start in ("base", "votes", "block") else (0.3,):
            settings = merge_settings(starts[start], {"data": {"alpha": alpha}} | calibrated)
            found.append(Cell(f"fedavg/{start}-calibrated-alpha-{alpha:g}-20", settings))
    return found


def _private(epsilon: float | None, trainable: str) -> dict[str, Any]:
    """Large lots and few steps, as De et al. 2022 found best under DP; without epsilon the same run without noise."""
    return {
        "privacy": {"private": epsilon is not None} | ({"epsilon": epsilon} if epsilon else {}),
        "model": {"trainable": trainable},
        "train": {"batch_size": 256, "local_steps": 2, "learning_rate": 0.05, "momentum": 0.0, "augment": trainable == "full"},
        "upload": {"secure": False},
    }


def _record_level() -> list[Cell]:
    found = []
    for trainable in PARTS:
        for epsilon in (None, 1.0, 2.0, 4.0, 8.0):
            name = f"record/{trainable}-{'no-dp' if epsilon is None else f'epsilon-{epsilon:g}'}"
            found.append(Cell(name, _private(epsilon, trainable)))
    variants: dict[str, dict[str, Any]] = {
        "augmented": {"train": {"augment": True}},
        "augmented-4": {"train": {"augment": True, "augmentations": 4}},
        "ema": {"server": {"ema": 0.9}},
    }
    for name, settings in variants.items():
        found.append(Cell(f"record/last-block-epsilon-8-{name}", merge_settings(_private(8.0, "last-block"), settings)))
    return found


def _client_level() -> list[Cell]:
    found = []
    for clients in (100, 1000):
        plain: dict[str, Any] = {
            "data": {"clients": clients, "scheme": "iid"},
            "server": {"cohort": min(clients, 100)},
            "model": {"trainable": "last-layer"},
            "train": {"learning_rate": 0.05, "augment": False},
        }
        found.append(Cell(f"client/none-{clients}", merge_settings(plain, {"upload": {"secure": False}})))
        for mode in ("central", "distributed"):
            for epsilon in (2.0, 8.0):
                level = {"mode": mode, "epsilon": epsilon, "clip": 0.1}
                found.append(Cell(f"client/{mode}-epsilon-{epsilon:g}-{clients}", plain | {"client_level": level}))
    return found


def _others() -> list[Cell]:
    skewed = merge_settings(BLOCK, {"data": {"alpha": 0.1}})
    optimisers: dict[str, dict[str, Any]] = {
        "fedavg": {},
        "fedprox": {"server": {"strategy": "fedprox"}, "train": {"proximal_mu": 0.01}},
        "fedavgm": {"server": {"strategy": "fedavgm"}},
        "fedadam": {"server": {"strategy": "fedadam"}},
    }
    uploads: dict[str, dict[str, Any]] = {
        "int16-secure": {"secure": True, "precision": "int16"},
        "float16": {"precision": "float16"},
        "int8": {"precision": "int8"},
    }
    return [
        *(Cell(f"optimiser/{name}", merge_settings(skewed, settings)) for name, settings in optimisers.items()),
        *(Cell(f"upload/{name}", merge_settings(BLOCK, {"upload": upload})) for name, upload in uploads.items()),
    ]


def _losses() -> list[Cell]:
    """Class imbalance and label noise; plain cross-entropy at alpha 0.3 is `fedavg/block-alpha-0.3-20`."""
    found = [Cell("loss/ferplus-cross-entropy", merge_settings(BLOCK, {"data": {"labels": "ferplus"}}))]
    private = _private(8.0, "last-block")
    counted: dict[str, Any] = {"evaluation": {"class_histogram": True}, "upload": {"secure": True}}
    for loss in ("class-balanced", "logit-adjusted"):
        train = {"train": {"loss": loss, "class_counts": FER2013}}
        found.append(Cell(f"loss/{loss}", merge_settings(BLOCK, train)))
        found.append(Cell(f"loss/{loss}-epsilon-8", merge_settings(private, train)))
        asked = counted | {"train": {"loss": loss}}
        found.append(Cell(f"loss/{loss}-histogram-epsilon-8", merge_settings(private, asked)))
        soft = {"train": {"loss": loss, "class_counts": FERPLUS}, "data": {"labels": "ferplus"}}
        found.append(Cell(f"loss/ferplus-{loss}", merge_settings(BLOCK, soft)))
    # Correction at inference instead, with plain cross-entropy.
    for prefix, labels in (("", "fer2013"), ("ferplus-", "ferplus")):
        settings = merge_settings(private, counted | {"data": {"labels": labels}})
        found.append(Cell(f"loss/{prefix}cross-entropy-histogram-epsilon-8", settings, evened=True))
    return found


def _personal() -> list[Cell]:
    """A head fitted after training, and one that never left its device during it."""
    found = []
    for alpha in (0.1, 0.3):
        data = {"data": {"alpha": alpha, "holdout": 0.2}}
        kept = {"train": {"local_layers": "head"}}
        for suffix, settings in (("", BLOCK), ("-epsilon-8", _private(8.0, "last-block"))):
            dealt = merge_settings(settings, data)
            found.append(Cell(f"personal/fitted-alpha-{alpha:g}{suffix}", dealt, personal=True))
            found.append(Cell(f"personal/kept-alpha-{alpha:g}{suffix}", merge_settings(dealt, kept), personal=True))
    return found


CELLS: tuple[Cell, ...] = (*_skew(), *_record_level(), *_client_level(), *_others(), *_losses(), *_personal())


@dataclass(frozen=True)
class Claim:
    """That one cell is at most `points` below another; negative: at least so much above."""

    cell: str
    against: str
    points: float


START = "its own start"
"""What the cell's own runs began with: the half-data base as it is."""

_NAMES = {cell.name for cell in CELLS}
CLAIMS = (
    *(
        claim
        for start, twin in LEARNS.items()
        for cell in (f"fedavg/{start}-alpha-0.3-20", f"fedavg/{start}-calibrated-alpha-0.3-20")
        if cell in _NAMES
        for claim in (Claim(cell, f"central/{twin}", 1.5), Claim(cell, START, -2.0))
    ),
    *(Claim(f"record/{part}-epsilon-8", f"record/{part}-no-dp", 1.0) for part in PARTS),
    *(Claim(f"record/{part}-epsilon-2", f"record/{part}-no-dp", 2.0) for part in PARTS),
    Claim("client/central-epsilon-8-1000", "client/none-1000", 2.0),
    Claim("client/distributed-epsilon-8-1000", "client/none-1000", 2.0),
)
"""What federated runs should reach, in points of accuracy."""
