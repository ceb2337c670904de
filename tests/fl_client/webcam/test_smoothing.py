import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from common.errors import ConfigError
from fl_client.webcam.smoothing import AS_IT_IS, SmoothingSettings, Steady, steadied

SETTINGS = SmoothingSettings(seconds=0.4, lead=0.1, least=0.4, slack=0.1)


def shares(values: list[float]) -> NDArray[np.float64]:
    weights = np.array(values) + 1e-3
    return weights / weights.sum()


opinions = st.lists(st.floats(0, 1), min_size=4, max_size=4).map(shares)
gaps = st.floats(0, 2)


@given(st.lists(st.tuples(opinions, gaps), min_size=1, max_size=12))
def test_the_average_is_a_distribution_between_the_opinions_it_was_given(
    history: list[tuple[NDArray[np.float64], float]],
) -> None:
    state = None
    for opinion, elapsed in history:
        state = steadied(state, opinion, elapsed, SETTINGS)
    assert state is not None
    told = np.array([opinion for opinion, _ in history])
    assert state.probabilities.sum() == pytest.approx(1)
    assert (state.probabilities >= told.min(0) - 1e-12).all()
    assert (state.probabilities <= told.max(0) + 1e-12).all()


@given(opinions, opinions, st.floats(0.01, 1), st.floats(0.05, 0.95))
def test_the_average_does_not_depend_on_the_frame_rate(
    first: NDArray[np.float64], then: NDArray[np.float64], elapsed: float, part: float
) -> None:
    start = steadied(None, first, 0, SETTINGS)
    once = steadied(start, then, elapsed, SETTINGS)
    twice = steadied(steadied(start, then, part * elapsed, SETTINGS), then, (1 - part) * elapsed, SETTINGS)
    np.testing.assert_allclose(once.probabilities, twice.probabilities, atol=1e-12)


@given(opinions, opinions)
def test_an_opinion_that_stays_wins_in_the_end(first: NDArray[np.float64], then: NDArray[np.float64]) -> None:
    state = steadied(None, first, 0, SETTINGS)
    for _ in range(100):
        state = steadied(state, then, 1 / 30, SETTINGS)
    np.testing.assert_allclose(state.probabilities, then, atol=1e-3)


@given(st.floats(-0.09, 0.09), st.lists(st.booleans(), min_size=1, max_size=30))
def test_two_classes_that_take_turns_by_less_than_the_lead_do_not_flicker(edge: float, turns: list[bool]) -> None:
    state = steadied(None, np.array([0.5, 0.45, 0.05]), 0, SETTINGS)
    for turn in turns:
        sign = edge / 2 if turn else -edge / 2
        state = steadied(state, np.array([0.475 + sign, 0.475 - sign, 0.05]), 1 / 30, SETTINGS)
        assert state.shown == 0


@given(st.permutations(range(4)), st.lists(st.tuples(opinions, gaps), min_size=1, max_size=6))
def test_the_order_of_the_classes_does_not_matter(order: list[int], history: list[tuple[NDArray[np.float64], float]]) -> None:
    plain: Steady | None = None
    moved: Steady | None = None
    for opinion, elapsed in history:
        if len(set(np.round(opinion, 9))) < 4:
            return
        plain, moved = steadied(plain, opinion, elapsed, SETTINGS), steadied(moved, opinion[order], elapsed, SETTINGS)
    assert plain is not None
    assert moved is not None
    np.testing.assert_allclose(plain.probabilities[order], moved.probabilities)
    assert (None if plain.shown is None else order.index(plain.shown)) == moved.shown


def test_a_clear_change_is_shown_and_a_single_odd_frame_is_not() -> None:
    happy, angry = np.array([0.9, 0.1]), np.array([0.05, 0.95])
    state = steadied(None, happy, 0, SETTINGS)
    odd = steadied(state, angry, 1 / 30, SETTINGS)
    assert odd.shown == 0
    for _ in range(20):
        state = steadied(state, angry, 1 / 30, SETTINGS)
    assert state.shown == 1


def test_what_no_class_explains_well_is_unsure_and_around_the_limit_it_does_not_flicker() -> None:
    plain = SmoothingSettings(seconds=0, least=0.5, slack=0.1)
    even, low, high = np.array([0.34, 0.33, 0.33]), np.array([0.45, 0.3, 0.25]), np.array([0.55, 0.25, 0.2])
    assert steadied(None, even, 0, plain).shown is None
    assert steadied(None, low, 0, plain).shown is None
    sure = steadied(None, high, 0, plain)
    assert sure.shown == 0
    still = steadied(sure, low, 1, plain)
    assert still.shown == 0
    gone = steadied(still, even, 1, plain)
    assert gone.shown is None
    assert steadied(gone, low, 1, plain).shown is None


@given(opinions, opinions)
def test_a_picture_that_stands_alone_is_taken_as_it_is(first: NDArray[np.float64], then: NDArray[np.float64]) -> None:
    state = steadied(steadied(None, first, 0, AS_IT_IS), then, 5, AS_IT_IS)
    np.testing.assert_array_equal(state.probabilities, then)
    assert state.shown is not None
    assert then[state.shown] == then.max()


@pytest.mark.parametrize("values", [{"seconds": -1}, {"seconds": float("nan")}, {"lead": 2}, {"least": -0.1}, {"slack": 1.5}])
def test_settings_that_make_no_sense_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must"):
        SmoothingSettings(**values)
