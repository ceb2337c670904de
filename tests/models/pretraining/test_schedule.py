from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.pretraining.recipe import Recipe
from models.pretraining.schedule import batch_rows, ema_decay, plan, step_seed
from models.pretraining.training import Training
from tests.models.pretraining.tiny import TINY, faces

RECIPE = Recipe(batch_size=10, warm_up=100, decay=0.2, learning_rate=0.5)


def test_the_rate_rises_stays_and_falls_to_zero() -> None:
    schedule = plan(RECIPE, 1000)
    rates = [schedule.rate(step) for step in range(schedule.steps)]
    assert (schedule.steps, schedule.decay_from) == (100, 80)
    assert rates[:10] == pytest.approx([0.05 * i for i in range(1, 11)])
    assert set(rates[10:81]) == {0.5}
    assert all(a > b for a, b in pairwise(rates[80:]))
    assert rates[85] == pytest.approx(0.5 * (1 - 0.25**0.5))
    assert 0 < rates[-1] < 0.02


@given(st.integers(1, 10**6), st.integers(0, 10**4))
def test_the_fall_never_begins_before_it_may(images: int, not_before: int) -> None:
    schedule = plan(RECIPE, images, not_before)
    assert schedule.decay_from >= not_before
    assert all(0 <= schedule.rate(step) <= 0.5 for step in (0, schedule.decay_from, max(0, schedule.steps - 1)))


@given(st.integers(1, 50), st.integers(1, 20), st.integers(0, 5))
def test_a_pass_shows_no_face_twice(count: int, batch: int, seed: int) -> None:
    steps = count // min(batch, count)
    seen = np.concatenate([batch_rows(step, count, batch, seed) for step in range(steps)])
    assert len(np.unique(seen)) == len(seen) == steps * min(batch, count)


def test_every_pass_has_another_order() -> None:
    assert not np.array_equal(batch_rows(0, 100, 100, 0), batch_rows(1, 100, 100, 0))
    assert not np.array_equal(batch_rows(0, 100, 100, 0), batch_rows(0, 100, 100, 1))
    assert np.array_equal(batch_rows(7, 100, 30, 3), batch_rows(7, 100, 30, 3))


def test_seeds_differ_by_step_and_purpose() -> None:
    seeds = {step_seed(seed, step, purpose) for seed in range(3) for step in range(3) for purpose in range(3)}
    assert len(seeds) == 27
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_average_forgets_its_random_start_first_and_then_moves_slowly() -> None:
    assert [ema_decay(0.998, step) for step in (0, 90, 10**6)] == pytest.approx([0.1, 0.91, 0.998])
    assert ema_decay(0.0, 5) == 0.0


def test_the_average_is_that_of_its_formula() -> None:
    training, data = Training(TINY), faces(40, 1)
    name = "features.0.0.weight"
    expected = training.average.get_parameter(name).double().clone()
    for step in range(4):
        training.step(step, 0.01, data)
        decay = (1 + step) / (10 + step)
        expected = decay * expected + (1 - decay) * training.network.get_parameter(name).detach().double()
    assert torch.allclose(training.average.get_parameter(name).double(), expected, atol=1e-6)
    assert not torch.allclose(training.average.get_parameter(name), training.network.get_parameter(name).detach(), atol=1e-6)


def test_training_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Training(TINY).step(0, 0.01, faces(40, 1))
    assert torch.equal(torch.rand(3), expected)
