"""How good the two heads are on a public split: accuracy, balanced accuracy, per class, and calibration."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from common.emotions import EMOTIONS_7, EMOTIONS_8
from common.errors import DataError
from models.evaluate import BATCH, Evaluation, judge
from models.faces.faceset import one_hot
from models.preprocess import Preprocessing
from models.pretraining.data import FER2013, FERPLUS, TwiceLabelled
from models.pretraining.heads import ROWS

BINS = 15
"""Of confidence, for the calibration error."""


@dataclass(frozen=True)
class HeadScores:
    """One head on one split.

    Attributes:
        classes: its emotions, in the order of its logits.
        evaluation: mean cross-entropy against the head's (soft) targets, and the confusion matrix.
        calibration_error: see `calibration_error`.
        confidence: mean probability of the predicted class.
    """

    classes: tuple[str, ...]
    evaluation: Evaluation
    calibration_error: float
    confidence: float

    def record(self) -> dict[str, Any]:
        """Plain values, for the run's files and the model card."""
        found = self.evaluation
        return {
            "examples": found.examples,
            "accuracy": found.accuracy,
            "balanced_accuracy": found.balanced_accuracy,
            "loss": found.loss,
            "calibration_error": self.calibration_error,
            "confidence": self.confidence,
            "recalls": {
                name: None if np.isnan(recall) else float(recall)
                for name, recall in zip(self.classes, found.recalls, strict=True)
            },
            "confusion": found.confusion.tolist(),
            "classes": list(self.classes),
        }


def predict(network: nn.Module, faces: NDArray[np.uint8], batch: int = BATCH) -> NDArray[np.float32]:
    """(N, S, S) uint8 -> (N, C) logits, in evaluation mode, without gradients; the network's mode is restored."""
    preprocessing, was_training = Preprocessing(), network.training
    device = next(network.parameters()).device
    network.eval()
    found = []
    with torch.inference_mode():
        for start in range(0, len(faces), batch):
            inputs = torch.from_numpy(preprocessing.normalise(faces[start : start + batch])).to(device)
            found.append(network(inputs.contiguous(memory_format=torch.channels_last)).cpu().numpy())
    network.train(was_training)
    return np.concatenate(found)


def score(network: nn.Module, split: TwiceLabelled) -> dict[str, HeadScores]:
    """Both heads of a network with 15 logits on one split; FER+'s on the faces with a FER+ target alone.

    Raises:
        DataError: no face has a FER+ target.
    """
    return _score(predict(network, split.images), split)


def _score(logits: NDArray[np.float32], split: TwiceLabelled) -> dict[str, HeadScores]:
    voted = split.voted
    if not voted.any():
        raise DataError("No face of this split has a FER+ label, so the base model cannot be judged on it.")
    return {
        FERPLUS: score_head(logits[voted][:, ROWS[FERPLUS]], split.votes[voted], EMOTIONS_8),
        FER2013: score_head(logits[:, ROWS[FER2013]], one_hot(split.labels, len(EMOTIONS_7)), EMOTIONS_7),
    }


def score_apart(network: nn.Module, split: TwiceLabelled, training: TwiceLabelled) -> tuple[dict[str, Any], dict[str, Any]]:
    """As plain values: `score`; and the number of `copies` of training faces with the scores of the others, if any can be scored.

    Raises:
        DataError: as `score`.
    """
    logits, copies = predict(network, split.images), split.copies_of(training)
    unseen = split.take(~copies)
    others = _score(logits[~copies], unseen) if unseen.voted.any() else {}
    whole = {head: scores.record() for head, scores in _score(logits, split).items()}
    return whole, {"copies": int(copies.sum())} | {head: scores.record() for head, scores in others.items()}


def score_head(logits: NDArray[np.float32], targets: NDArray[np.float32], classes: tuple[str, ...]) -> HeadScores:
    """Scores of (N, C) logits against (N, C) target distributions, whose largest entry is the label."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    log_shares = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    confidence = np.exp(log_shares.max(1))
    error = calibration_error(confidence, logits.argmax(1) == targets.argmax(1))
    return HeadScores(classes, judge(logits, targets), error, float(confidence.mean()))


def calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Expected calibration error (Naeini et al. 2015; Guo et al. 2017, equation 3) with `BINS` bins of equal width.

    The mean over bins, weighted by their size, of the distance between mean confidence and part that is right. 0 to 1.
    """
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(bins, weights=confidence - right, minlength=BINS)
    return float(np.abs(gaps).sum() / len(confidence))
