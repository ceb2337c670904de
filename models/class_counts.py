"""How many faces of each class a model learnt from: public tables, and where a manifest tells it.

`fl_server.publisher` writes it, the camera loop reads it to even out answers (`models.prior.even_shift`).
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.emotions import EMOTIONS_7, EMOTIONS_8

FER2013: Final = dict(zip(EMOTIONS_7, (3958, 435, 4070, 7185, 4805, 3169, 4939), strict=True))
FERPLUS: Final = dict(zip(EMOTIONS_8, (8409, 7265, 3096, 3270, 2033, 162, 649, 177), strict=True))
"""Public class counts of the Training faces: `FaceSet.targets` summed, for FER+ soft votes, of the 25,060 majority (M8) rows."""

BASE: Final = dict(zip(EMOTIONS_8, (9467, 7518, 3488, 4016, 2467, 288, 875, 298), strict=True))
"""Of the shipped base's FER+ head: the votes' shares summed over the 28,416 Training rows that it learnt from."""

PREFIX = "faces/"


def as_metrics(counts: Mapping[str, float]) -> dict[str, float]:
    """`ModelFacts.metrics` that tell `counts`: public ones, or a histogram whose noise was debited. Everybody may read them."""
    return {f"{PREFIX}{name}": float(count) for name, count in counts.items()}


def counts_in(metrics: Mapping[str, float], classes: tuple[str, ...]) -> NDArray[np.float64] | None:
    """(C,) faces of each class, all above 0, in the order of `classes`; None where the metrics do not tell it of each."""
    found = np.array([metrics.get(f"{PREFIX}{name}", 0.0) for name in classes])
    return found if (found > 0).all() else None
