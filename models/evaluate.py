"""How good a model is on labelled faces. The server's central evaluation and the simulation's per-device figures call it."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from common.errors import DataError
from models.faces.faceset import FaceSet
from models.preprocess import Preprocessing


@dataclass(frozen=True)
class Evaluation:
    """Scores of one model on one face set.

    Attributes:
        loss: mean cross-entropy against the (soft) labels, in nats.
        confusion: (C, C) int64, row: labelled class, column: predicted class.
    """

    loss: float
    confusion: NDArray[np.int64]

    @property
    def examples(self) -> int:
        """How many faces were scored."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Part of the faces whose most likely label was predicted."""
        return float(np.trace(self.confusion) / self.confusion.sum())

    @property
    def recalls(self) -> NDArray[np.float64]:
        """(C,) accuracy within each labelled class; NaN for a class without faces."""
        totals = self.confusion.sum(1)
        return np.where(totals > 0, np.diag(self.confusion) / np.maximum(totals, 1), np.nan)

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall over the classes present: what a shift of class frequencies alone cannot raise."""
        return float(np.nanmean(self.recalls))


def evaluate(model: nn.Module, faces: FaceSet, preprocessing: Preprocessing, batch: int = 256) -> Evaluation:
    """Score `model` on `faces`, in evaluation mode, without gradients; the model's mode is restored.

    Raises:
        DataError: there are no faces.
    """
    if len(faces) == 0:
        raise DataError("There are no faces to evaluate on.")
    classes = len(faces.classes)
    confusion = np.zeros((classes, classes), dtype=np.int64)
    total, was_training = 0.0, model.training
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(faces), batch):
            rows = slice(start, start + batch)
            inputs = torch.from_numpy(preprocessing.normalise(faces.images[rows]))
            logits = model(inputs.contiguous(memory_format=torch.channels_last))
            targets = torch.from_numpy(faces.targets[rows])
            total += float(F.cross_entropy(logits, targets, reduction="sum"))
            np.add.at(confusion, (targets.argmax(1).numpy(), logits.argmax(1).numpy()), 1)
    model.train(was_training)
    return Evaluation(total / len(faces), confusion)
