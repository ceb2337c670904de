import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.arrays import Arrays
from common.errors import ReplyError
from fl_server.aggregate import RunningMean, UpdateShape

SHAPE = UpdateShape({"a": (2, 3), "b": (4,)}, max_norm=1000.0)


def split(flat: np.ndarray) -> Arrays:
    return {"b": flat[6:].astype(np.float32), "a": flat[:6].reshape(2, 3).astype(np.float32)}


flats = arrays(np.float32, 10, elements=st.floats(-100, 100, width=32))


@settings(max_examples=100, deadline=None)
@given(st.lists(flats, min_size=1, max_size=8))
def test_the_mean_is_the_mean_with_equal_weights(updates: list[np.ndarray]) -> None:
    mean = RunningMean(SHAPE)
    for update in updates:
        mean.add(split(update))
    expected = np.mean([u.astype(np.float64) for u in updates], axis=0)
    got = mean.mean()
    assert list(got) == ["a", "b"]
    assert np.allclose(np.concatenate([got["a"].ravel(), got["b"]]), expected, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.lists(flats, min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_not_one_bit(updates: list[np.ndarray], random: object) -> None:
    shuffled = list(updates)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = RunningMean(SHAPE), RunningMean(SHAPE)
    for one, other in zip(updates, shuffled, strict=True):
        first.add(split(one))
        second.add(split(other))
    assert all(np.array_equal(first.mean()[name], second.mean()[name]) for name in SHAPE.shapes)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_a_bad_update_is_refused_and_leaves_the_sum_as_it_was(value: float) -> None:
    mean = RunningMean(SHAPE)
    mean.add(split(np.ones(10)))
    bad = np.ones(10)
    bad[3] = value
    with pytest.raises(ReplyError):
        mean.add(split(bad))
    assert mean.count == 1
    assert np.array_equal(mean.mean()["b"], np.ones(4, np.float32))


def test_the_norm_is_over_all_parameters_together() -> None:
    tight = RunningMean(UpdateShape(SHAPE.shapes, max_norm=3.0))
    assert tight.add(split(np.full(10, 0.9))) == pytest.approx(0.9 * 10**0.5)
    with pytest.raises(ReplyError, match=r"norm is 3\.16; at most 3"):
        tight.add(split(np.ones(10)))


def test_the_largest_updates_of_a_large_cohort_do_not_overflow() -> None:
    mean = RunningMean(UpdateShape({"a": (1,)}, max_norm=1000.0))
    for _ in range(5000):
        mean.add({"a": np.array([1000.0], np.float32)})
    assert mean.mean()["a"][0] == 1000.0


def test_nothing_has_no_mean() -> None:
    with pytest.raises(ReplyError):
        RunningMean(SHAPE).mean()
