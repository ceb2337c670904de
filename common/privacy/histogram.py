"""How many faces of each class one holder has, under differential privacy. Pure; devices call it once, after the debit.

Privacy unit one record, add/remove neighbours: a face adds its (soft) label, a row of non-negative numbers that sum to 1, so one
more or less moves the histogram by at most `SENSITIVITY` in L2. With noise z the cost is that of `Release(z, 1.0, 1)`.
"""

import numpy as np
from numpy.typing import NDArray

from common.errors import PrivacyError
from common.privacy.mechanisms import SecureRandom

SENSITIVITY = 1.0


def class_histogram(targets: NDArray[np.float32], noise_multiplier: float, random: SecureRandom) -> NDArray[np.float64]:
    """(N, C) soft labels -> (C,) their sum plus Gaussian noise of standard deviation `noise_multiplier` times `SENSITIVITY`.

    It may be negative: whoever uses it after adding up cuts it off, not the holder, whose cutting would bias the sum.

    Raises:
        PrivacyError: a row is no distribution, so that the sensitivity would not hold.
    """
    if targets.ndim != 2 or not (targets >= 0).all() or not np.allclose(targets.sum(1), 1.0, atol=1e-3):
        raise PrivacyError("A histogram counts labels that are not negative and sum to 1; these do not.")
    noise = random.normal(targets.shape[1], noise_multiplier * SENSITIVITY).numpy()
    return np.asarray(targets.sum(0, dtype=np.float64) + noise)
