"""A moving average of the global model over the rounds: what is evaluated and published where `server.ema` asks for it.

De et al. 2022, section 3.3: the noise of single steps averages out, at no cost in privacy: it is made of released models.
The devices go on training from the last model itself. `fl_server.rounds` calls it; the average lives in the checkpoint.
"""

from collections.abc import Mapping

import numpy as np

from common.arrays import Arrays

KEY = "ema/"


def follow(weights: Arrays, remembered: Mapping[str, np.ndarray], decay: float, accepted: int) -> dict[str, np.ndarray]:
    """The average after one more accepted model, as entries for the checkpoint; empty with `decay` 0.

    Args:
        weights: the accepted model.
        remembered: the entries so far, among others.
        decay: largest part of the old average that stays; less at first, (1 + t) / (10 + t), so that the start is forgotten.
        accepted: t, the models before this one.
    """
    if not decay:
        return {}
    kept = min(decay, (1 + accepted) / (10 + accepted))
    found = {}
    for name, value in weights.items():
        old = remembered.get(KEY + name, value)
        mean = np.where(old == value, value, kept * old + (1 - kept) * value)  # rounding must not move what does not change
        found[KEY + name] = np.asarray(mean, dtype=np.float32)
    return found


def shown(weights: Arrays, remembered: Mapping[str, np.ndarray]) -> Arrays:
    """The model to evaluate and publish: the average where there is one."""
    return {name: np.asarray(remembered.get(KEY + name, value), dtype=np.float32) for name, value in weights.items()}
