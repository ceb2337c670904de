import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import DataError
from models.pretraining.data import TwiceLabelled
from models.pretraining.heads import build_two_heads
from models.pretraining.scores import calibration_error, score, score_head
from tests.models.pretraining.tiny import TINY, faces


def test_a_model_that_is_as_often_right_as_it_says_has_no_calibration_error() -> None:
    confidence = np.full(100, 0.75)
    assert calibration_error(confidence, np.arange(100) < 75) == pytest.approx(0.0)
    assert calibration_error(confidence, np.arange(100) < 50) == pytest.approx(0.25)
    assert calibration_error(np.ones(4), np.zeros(4, dtype=np.bool_)) == 1.0


def test_errors_in_opposite_directions_do_not_cancel_between_bins() -> None:
    confidence = np.repeat([0.5, 0.9], 10)
    right = np.concatenate([np.ones(10, dtype=np.bool_), np.arange(10) < 4])
    assert calibration_error(confidence, right) == pytest.approx(0.5)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_the_calibration_error_is_between_the_overall_gap_and_one(pairs: list[tuple[float, bool]]) -> None:
    confidence, right = np.array([c for c, _ in pairs]), np.array([r for _, r in pairs])
    found = calibration_error(confidence, right)
    assert abs(confidence.mean() - right.mean()) - 1e-9 <= found <= 1


def test_scores_are_those_of_a_hand_worked_case() -> None:
    targets = np.array([[0.6, 0.4, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0]], dtype=np.float32)
    logits = np.log(np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.8, 0.1, 0.1], [0.6, 0.2, 0.2]], dtype=np.float32))
    found = score_head(logits, targets, ("anger", "fear", "neutral"))
    assert found.evaluation.confusion.tolist() == [[2, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert found.evaluation.accuracy == 0.75
    assert found.evaluation.balanced_accuracy == 0.75
    expected = -(0.6 * np.log(0.5) + 0.4 * np.log(0.25) + np.log(0.8) + np.log(0.1) + np.log(0.6)) / 4
    assert found.evaluation.loss == pytest.approx(expected, rel=1e-5)
    assert found.confidence == pytest.approx((0.5 + 0.8 + 0.8 + 0.6) / 4, rel=1e-5)
    record = found.record()
    assert record["recalls"] == {"anger": 1.0, "fear": 0.5, "neutral": None}


def test_a_split_without_votes_cannot_be_scored() -> None:
    data = faces(4, 1)
    blank = TwiceLabelled(data.images, np.zeros_like(data.votes), data.labels)
    with pytest.raises(DataError, match="No face"):
        score(build_two_heads(TINY), blank)
