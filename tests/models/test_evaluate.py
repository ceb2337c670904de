import numpy as np
import pytest
import torch
from torch import nn

from common.emotions import EMOTIONS_7
from common.errors import DataError
from models.evaluate import evaluate
from models.faces.faceset import FaceSet, one_hot
from models.preprocess import Preprocessing


class AlwaysFirst(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.zeros(len(x), dtype=torch.int64), 7).float() * 10


def faces(labels: list[int]) -> FaceSet:
    return FaceSet(np.zeros((len(labels), 48, 48), np.uint8), one_hot(np.array(labels, dtype=np.int64), 7), EMOTIONS_7)


def test_always_naming_one_class_has_its_share_as_accuracy_and_an_even_share_as_balanced_accuracy() -> None:
    scores = evaluate(AlwaysFirst(), faces([0] * 8 + [1, 2]), Preprocessing())
    assert scores.accuracy == pytest.approx(0.8)
    assert scores.balanced_accuracy == pytest.approx(1 / 3)
    assert scores.examples == 10
    assert scores.confusion[1, 0] == 1


def test_a_class_without_faces_does_not_count() -> None:
    scores = evaluate(AlwaysFirst(), faces([0, 0]), Preprocessing())
    assert np.isnan(scores.recalls[1:]).all()
    assert scores.balanced_accuracy == 1.0


def test_batches_do_not_change_the_scores_and_the_mode_is_restored() -> None:
    model = AlwaysFirst().train()
    whole, split = (evaluate(model, faces([0, 1, 2, 0, 0]), Preprocessing(), batch=size) for size in (256, 2))
    assert whole.loss == pytest.approx(split.loss)
    assert (whole.confusion == split.confusion).all()
    assert model.training


def test_no_faces_is_one_sentence() -> None:
    with pytest.raises(DataError, match="no faces to evaluate"):
        evaluate(AlwaysFirst(), faces([]), Preprocessing())
