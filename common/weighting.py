"""Averaging by faces instead of by device: a device's update travels multiplied by its weight, and the weight beside it. Pure.

McMahan et al. 2017, "Communication-efficient learning of deep networks from decentralized data", algorithm 1: the mean of
n_k u_k over n. Of the sums of w_k u_k and of w_k anyone gets it who never saw one of either: so it goes through a secure sum.
`fl_client.device` weighs, `fl_server.aggregate` and `fl_server.strategy` divide.
"""

import numpy as np

from common.arrays import Arrays, Shapes
from common.config import TrainConfig
from common.errors import ReplyError

WEIGHT = "weight"
"""What the weight is called among an update's parameters, none of which has this name."""
ROUNDING = 1e-3
"""By so much may a weight that was sent in fewer bits be larger than 1."""


def uploaded_shapes(shapes: Shapes, config: TrainConfig) -> dict[str, tuple[int, ...]]:
    """What an update consists of, by name: the trained parameters that are shared and, in a mean by faces, the weight, (1,)."""
    return {**shapes, WEIGHT: (1,)} if config.weighting == "faces" else dict(shapes)


def weigh(update: Arrays, faces: int, config: TrainConfig) -> Arrays:
    """What a device sends of its update: that times w = min(faces, largest) / largest, and w; as it is in a mean by device.

    Args:
        faces: the coarse number of those it trained on, from 1, and not the exact one: whoever sees the update sees it.
    """
    if config.weighting == "equal":
        return update
    weight = np.float32(min(faces, config.largest_weight) / config.largest_weight)
    return {**{name: value * weight for name, value in update.items()}, WEIGHT: np.full(1, weight, dtype=np.float32)}


def unweigh(sent: Arrays) -> Arrays:
    """The inverse of `weigh`, of one device's or of a mean over devices: the parameters over the weight, float32.

    Raises:
        ReplyError: the weight is not in (0, 1].
    """
    if WEIGHT not in sent:
        return sent
    weight = float(sent[WEIGHT][0])
    if not 0 < weight <= 1 + ROUNDING:
        raise ReplyError(f"An update's weight is above 0 and at most 1; this one is {weight:.3g}.")
    return {name: (value / weight).astype(np.float32) for name, value in sent.items() if name != WEIGHT}
