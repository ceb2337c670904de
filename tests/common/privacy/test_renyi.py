"""Our divergences are Opacus's, whose code they replace."""

import warnings

import numpy as np
import pytest
from opacus.accountants.analysis import rdp

from common.privacy.accountant import ORDERS
from common.privacy.renyi import one_step

SOME = [1.1, 1.5, 1.9, 2.0, 3.25, 4.75, 5.0, 17.0, 63.0, 256.0]


@pytest.mark.parametrize("rate", [1e-5, 0.01, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("sigma", [0.1, 0.4, 1.0, 3.0, 30.0, 100.0])
def test_divergences_are_those_of_opacus(rate: float, sigma: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = rdp.compute_rdp(q=rate, noise_multiplier=sigma, steps=1, orders=SOME)
        assert np.allclose(one_step(rate, sigma, SOME), expected, rtol=1e-6, atol=1e-12, equal_nan=True)


def test_at_every_order_of_the_accountant_too() -> None:
    expected = rdp.compute_rdp(q=0.1, noise_multiplier=1.1, steps=1, orders=ORDERS)
    found, known = one_step(0.1, 1.1, ORDERS), np.isfinite(expected)  # Opacus overflows at the largest orders.
    assert np.allclose(found[known], np.asarray(expected)[known], rtol=1e-8)
    assert bool(np.isfinite(found).all())


@pytest.mark.parametrize(("rate", "sigma"), [(0.0, 1.0), (1.0, 2.0), (0.5, 0.0)])
def test_the_edges_are_those_of_opacus(rate: float, sigma: float) -> None:
    assert np.array_equal(
        one_step(rate, sigma, SOME), np.asarray(rdp.compute_rdp(q=rate, noise_multiplier=sigma, steps=1, orders=SOME))
    )
