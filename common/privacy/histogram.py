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

    It may be negative: whoever uses it after adding up cuts it off, not the holder, whose cutting would bias the sum. A row that
    sums to a little more than 1, by rounding, counts as 1.

    Raises:
        PrivacyError: a row is no distribution, so that the sensitivity would not hold.
    """
    if targets.ndim != 2 or not (targets >= 0).all() or not np.allclose(targets.sum(1), 1.0, atol=1e-3):
        raise PrivacyError("A histogram counts labels that are not negative and sum to 1; these do not.")
    rows = targets.astype(np.float64)
    rows /= np.maximum(rows.sum(1, keepdims=True), 1)
    noise = random.normal(targets.shape[1], noise_multiplier * SENSITIVITY).numpy()
    return np.asarray(rows.sum(0) + noise)
