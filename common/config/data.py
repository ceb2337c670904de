"""Where a simulation's faces come from."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from common.config.base import Settings

Scheme = Literal["iid", "dirichlet", "one-class-poor", "quantity", "by-person"]
"""How faces are dealt; `simulation.partition` says what each means."""

MOST_DRAWN = 1_000_000
"""Faces to draw: 2.3 GB of pictures."""


class DataConfig(Settings):
    """Where a simulation's faces come from and how devices differ.

    Attributes:
        path: fer2013.csv, a folder that holds it, a folder of emotions, or None for drawn faces.
        labels: `fer2013` (7 classes) or `ferplus` (8 classes, soft votes).
        drawn: how many training faces to draw when there is no path.
        clients: simulated devices.
        scheme: `iid`, `dirichlet`, `one-class-poor`, `quantity` or `by-person`.
        alpha: Dirichlet concentration; smaller is more skewed.
        holdout: part of each device's faces kept aside for its own accuracy.
    """

    path: Path | None = None
    labels: Literal["fer2013", "ferplus"] = "fer2013"
    drawn: int = Field(default=6000, ge=100, le=MOST_DRAWN)
    clients: int = Field(default=20, ge=1)
    scheme: Scheme = "dirichlet"
    alpha: float = Field(default=0.3, gt=0)
    holdout: float = Field(default=0.1, ge=0, lt=1)
