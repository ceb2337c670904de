from decimal import Decimal, localcontext
from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from common.errors import ConfigError
from common.privacy.client_level.samplers import PoissonTable, Skellam
from common.privacy.mechanisms import SecureRandom

KEY = bytes(range(32))


class Scripted(SecureRandom):
    """Hands out the given 64-bit words, one by one."""

    def __init__(self, words: list[int]) -> None:
        self._words = list(words)

    def uint64(self, count: int) -> NDArray[np.uint64]:
        taken, self._words = self._words[:count], self._words[count:]
        return np.array(taken, dtype=np.uint64)


def exact_distribution(rate: float, most: int) -> list[Decimal]:
    """P[X <= k] for k up to `most`, from e^-rate rate^k / k! with 80 digits: another formula than the table's."""
    with localcontext() as context:
        context.prec = 80
        term = (-Decimal(rate)).exp()
        total, values = Decimal(0), []
        for k in range(most + 1):
            total += term
            values.append(total)
            term = term * Decimal(rate) / (k + 1)
        return values


@pytest.mark.parametrize("rate", [0.003, 0.5, 1.0, 7.25, 40.0, 600.5])
def test_thresholds_are_the_distribution_function_to_127_bits(rate: float) -> None:
    table = PoissonTable(rate)
    exact = exact_distribution(rate, table.most)
    with localcontext() as context:
        context.prec = 80
        for place, (upper, lower) in enumerate(zip(table._upper, table._lower, strict=True)):
            threshold = Decimal((int(upper) << 64) + int(lower))
            assert abs(threshold - exact[table.least + place] * 2**128) < 2


@pytest.mark.parametrize("rate", [0.003, 0.5, 7.25, 600.5, 2.0**20, 2.0**27])
def test_what_lies_outside_the_table_has_no_mass_to_speak_of(rate: float) -> None:
    table = PoissonTable(rate)
    poisson = stats.poisson(rate)
    assert table.least == 0 or poisson.logcdf(table.least - 1) / np.log(2) < -127
    assert poisson.logsf(table.most) / np.log(2) < -127
    assert len(table._upper) < 2**19


def test_a_word_that_ties_with_a_threshold_is_settled_by_further_bits() -> None:
    table = PoissonTable(5.0)
    for place in (3, 8):
        upper, lower = int(table._upper[place]), int(table._lower[place])
        below = table.draw(1, Scripted([upper, lower - 1]))
        at = table.draw(1, Scripted([upper, lower]))
        assert at[0] == below[0] + 1 == table.least + place + 1
        assert table.draw(1, Scripted([upper - 1])) == below
        assert table.draw(1, Scripted([upper + 1])) == at


def test_the_extreme_words_give_the_extreme_values() -> None:
    table = PoissonTable(600.5)
    assert table.draw(1, Scripted([0, 0]))[0] == table.least
    assert table.draw(1, Scripted([2**64 - 1, 2**64 - 1]))[0] == table.most


@pytest.mark.parametrize("variance", [0.04, 0.7, 3.0, 50.0, 2500.0])
def test_draws_fit_the_skellam_distribution(variance: float) -> None:
    values = Skellam(variance).draw(400_000, SecureRandom(KEY))
    law = stats.skellam(variance / 2, variance / 2)
    spread = int(5 * variance**0.5) + 2
    middle = np.arange(-spread, spread + 1)
    expected = np.concatenate([[law.cdf(-spread - 1)], law.pmf(middle), [law.sf(spread)]]) * len(values)
    found = np.bincount(np.clip(values, -spread - 1, spread + 1) + spread + 1, minlength=len(expected))
    common = expected >= 8
    observed = np.append(found[common], found[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum())
    assert stats.chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue > 1e-4
    assert abs(values.mean()) < 5 * (variance / len(values)) ** 0.5


def test_draws_of_a_large_variance_fit_the_normal_limit() -> None:
    values = Skellam(4000.0**2).draw(200_000, SecureRandom(KEY))
    assert stats.kstest((values + np.random.default_rng(0).uniform(-0.5, 0.5, len(values))) / 4000.0, "norm").pvalue > 1e-3


def test_neighbouring_draws_are_independent() -> None:
    values = Skellam(100.0).draw(200_000, SecureRandom(KEY)).astype(float)
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.02
    assert abs(np.corrcoef(values[1:] ** 2, values[:-1] ** 2)[0, 1]) < 0.02


def test_two_fresh_sources_give_different_noise() -> None:
    skellam = Skellam(100.0)
    assert not np.array_equal(skellam.draw(100, SecureRandom()), skellam.draw(100, SecureRandom()))


def test_shares_of_many_devices_are_skellam_noise_of_the_summed_variance() -> None:
    random = SecureRandom(KEY)
    total = np.sum([Skellam(2.5).draw(50_000, random) for _ in range(20)], axis=0)
    law = stats.skellam(25.0, 25.0)
    edges = np.arange(-25, 26)
    expected = np.concatenate([[law.cdf(-26)], law.pmf(edges), [law.sf(25)]]) * len(total)
    found = np.bincount(np.clip(total, -26, 26) + 26, minlength=len(expected))
    assert stats.chisquare(found, expected * found.sum() / expected.sum()).pvalue > 1e-4


@settings(max_examples=30, deadline=None)
@given(st.floats(1e-6, 1e6))
def test_no_value_can_exceed_the_stated_largest(variance: float) -> None:
    table = PoissonTable(variance / 2)
    assert table.most - table.least <= Skellam(variance).largest


def test_the_stated_error_follows_from_the_sizes() -> None:
    """K < 2^19 entries of 2^-126 each: half their sum is below 2^-108 a draw, so 2^-107 for two."""
    assert log2(2**19 * 2.0**-126 / 2) <= -108


@pytest.mark.parametrize("variance", [0.0, -1.0, 2.0**28 + 64, float("nan"), float("inf")])
def test_a_variance_that_cannot_be_drawn_is_refused(variance: float) -> None:
    with pytest.raises(ConfigError, match="variance"):
        Skellam(variance)
