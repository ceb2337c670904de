"""How good a model is on labelled faces. The server's central evaluation and the simulation's per-device figures call it."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from common.errors import DataError
from common.privacy.dpsgd.rows import even_rows, filled
from models.faces.faceset import FaceSet
from models.frozen import FeatureCache
from models.preprocess import Preprocessing

BATCH = 64
"""Faces at once. In larger batches a layer's values outgrow the caches, and the C library returns such blocks to the kernel
again and again: the default network takes 1.2 ms a face at 256 and 0.5 at 64."""


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


def evaluate(
    model: nn.Module, faces: FaceSet, preprocessing: Preprocessing, batch: int = BATCH, features: FeatureCache | None = None
) -> Evaluation:
    """Score `model` on `faces`, in evaluation mode, without gradients; the model's mode is restored.

    Args:
        features: keeps what frozen layers make of faces, for the next evaluation of a model that has the same ones.

    Raises:
        DataError: there are no faces.
    """
    if len(faces) == 0:
        raise DataError("There are no faces to evaluate on.")
    return judge(predict(model, faces, preprocessing, batch, features), faces.targets)


def predict(
    model: nn.Module, faces: FaceSet, preprocessing: Preprocessing, batch: int = BATCH, features: FeatureCache | None = None
) -> NDArray[np.float32]:
    """(N, C) logits, in evaluation mode, without gradients; the model's mode is restored."""
    was_training = model.training
    model.eval()
    found = []
    divided = None if features is None else features.divide(model, faces, preprocessing)
    with torch.no_grad():
        for start in range(0, len(faces), batch):
            rows = np.arange(start, min(start + batch, len(faces)))
            if divided is not None:
                inputs, network = divided.rows(rows), divided.rest
            else:
                pictures = torch.from_numpy(preprocessing.normalise(faces.images[rows]))
                inputs, network = pictures.contiguous(memory_format=torch.channels_last), model
            found.append(network(filled(inputs, even_rows(len(rows))))[: len(rows)].numpy())
    model.train(was_training)
    return np.concatenate(found) if found else np.empty((0, len(faces.classes)), dtype=np.float32)


def judge(logits: NDArray[np.float32], targets: NDArray[np.float32]) -> Evaluation:
    """Scores of (N, C) logits against (N, C) soft labels, N at least 1."""
    classes = logits.shape[1]
    confusion = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(confusion, (targets.argmax(1), logits.argmax(1)), 1)
    return Evaluation(float(F.cross_entropy(torch.from_numpy(logits), torch.from_numpy(targets))), confusion)
