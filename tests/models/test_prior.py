import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.errors import DataError
from models.prior import corrected_accuracy, even_shift, evened_balanced_accuracy, fitted_shift, prior_correct

PRIORS = arrays(np.float64, 4, elements=st.floats(0.01, 100))


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def world(n: int, prior: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points around one centre per class, and the classes they were drawn from."""
    random = np.random.default_rng(seed)
    labels = random.choice(len(prior), n, p=prior)
    return labels + random.normal(0, 0.9, n), labels


def posterior(points: np.ndarray, prior: np.ndarray) -> np.ndarray:
    """Of the class, by Bayes: what a perfect model says that learnt from `prior`."""
    density = np.exp(-((points[:, None] - np.arange(len(prior))) ** 2) / (2 * 0.9**2)) * prior
    return np.asarray(density / density.sum(1, keepdims=True))


@given(PRIORS, PRIORS)
def test_correcting_a_perfect_model_gives_the_perfect_model_of_the_other_prior(learnt: np.ndarray, wanted: np.ndarray) -> None:
    learnt, wanted = learnt / learnt.sum(), wanted / wanted.sum()
    points = np.linspace(-1, 4, 50)
    assert prior_correct(posterior(points, learnt), learnt, wanted) == pytest.approx(posterior(points, wanted), abs=1e-9)


@given(arrays(np.float64, (5, 4), elements=st.floats(-20, 20)), PRIORS, PRIORS)
def test_rows_still_sum_to_one_and_correcting_back_undoes_it(logits: np.ndarray, one: np.ndarray, other: np.ndarray) -> None:
    before = softmax(logits)
    there = prior_correct(before, one, other)
    assert there.sum(1) == pytest.approx(1)
    assert prior_correct(there, other, one) == pytest.approx(before, abs=1e-6)


def test_counts_and_frequencies_are_the_same_prior() -> None:
    rows = softmax(np.random.default_rng(0).normal(size=(6, 3)))
    found = prior_correct(rows, np.array([1, 2, 7]), np.array([5, 5, 10]))
    assert prior_correct(rows, np.array([0.1, 0.2, 0.7]), np.array([0.25, 0.25, 0.5])) == pytest.approx(found)


def test_the_correction_helps_where_frequencies_changed() -> None:
    learnt, there = np.full(4, 0.25), np.array([0.85, 0.05, 0.05, 0.05])
    points, labels = world(4000, there)
    plain = posterior(points, learnt)
    before = (plain.argmax(1) == labels).mean()
    after = (prior_correct(plain, learnt, there).argmax(1) == labels).mean()
    assert after > before + 0.05
    assert corrected_accuracy(plain, labels) > before + 0.05


@pytest.mark.parametrize("prior", [[1.0, -1.0, 1.0], [0.0, 0.0, 0.0], [np.nan, 1.0, 1.0], [1.0, 1.0]])
def test_what_is_no_prior_is_refused(prior: list[float]) -> None:
    with pytest.raises(DataError):
        prior_correct(np.full((2, 3), 1 / 3), np.ones(3), np.array(prior))


def test_a_fitted_shift_finds_the_frequencies_of_the_faces_it_is_fitted_to() -> None:
    learnt, there = np.full(4, 0.25), np.array([0.7, 0.1, 0.1, 0.1])
    points, labels = world(3000, there)
    logits = np.log(posterior(points, learnt))
    shift = fitted_shift(logits, np.eye(4)[labels])
    assert shift - shift.mean() == pytest.approx(np.log(there / learnt) - np.log(there / learnt).mean(), abs=0.2)
    points, labels = world(3000, there, seed=1)
    shifted = (np.log(posterior(points, learnt)) + shift).argmax(1)
    assert (shifted == labels).mean() > (posterior(points, learnt).argmax(1) == labels).mean() + 0.04


@given(arrays(np.float64, (6, 3), elements=st.floats(-5, 5)), arrays(np.float64, (6, 3), elements=st.floats(0.01, 1)))
def test_no_other_shift_fits_the_faces_better(logits: np.ndarray, raw: np.ndarray) -> None:
    targets = raw / raw.sum(1, keepdims=True)
    best = fitted_shift(logits, targets)

    def cost(shift: np.ndarray) -> float:
        return float(-(targets * np.log(softmax(logits + shift))).sum() + 0.5 * shift @ shift)

    for other in np.random.default_rng(0).normal(0, 0.3, (20, 3)):
        assert cost(best) <= cost(best + other) + 1e-6


def test_no_faces_are_refused() -> None:
    with pytest.raises(DataError):
        fitted_shift(np.empty((0, 3)), np.empty((0, 3)))


def test_evening_what_leans_to_frequent_classes_raises_the_balanced_accuracy() -> None:
    learnt = np.array([0.85, 0.05, 0.05, 0.05])
    points, labels = world(4000, learnt)
    plain = posterior(points, learnt)

    def balanced(rows: np.ndarray) -> float:
        return float(np.mean([(rows[labels == label].argmax(1) == label).mean() for label in range(4)]))

    found = evened_balanced_accuracy(plain, labels)
    assert found > balanced(plain) + 0.1
    assert found == pytest.approx(balanced(posterior(points, np.full(4, 0.25))), abs=0.01)
    few = labels != 3
    assert evened_balanced_accuracy(plain[few], labels[few]) == pytest.approx(
        np.mean(
            [
                (prior_correct(plain[few], plain[few].mean(0), np.ones(4))[labels[few] == k].argmax(1) == k).mean()
                for k in range(3)
            ]
        )
    )


@given(PRIORS, st.floats(0, 1))
def test_the_even_shift_is_the_correction_to_equal_frequencies_or_a_share_of_it(counts: np.ndarray, share: float) -> None:
    rows = softmax(np.random.default_rng(0).normal(size=(6, 4)))
    shifted = softmax(np.log(rows) + even_shift(counts, share))
    assert shifted == pytest.approx(prior_correct(rows, counts**share, np.ones(4)), abs=1e-4)
    assert even_shift(counts, 0.0) == pytest.approx(np.zeros(4))


def test_counts_of_any_size_are_evened_and_a_share_is_a_part() -> None:
    assert even_shift(np.array([1e308, 1e308, 5e307])) == pytest.approx(even_shift(np.array([2, 2, 1])))
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(DataError, match="between 0 and 1"):
            even_shift(np.ones(3), share)
