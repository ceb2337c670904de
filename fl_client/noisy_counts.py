"""Counts of a device's faces that go beside its update into a secure sum, under noise that was debited. `fl_client.device` asks.

Federated evaluation: faces that the model is right about (with the device's own head, in runs where it has one), and faces. The
class histogram: faces of each emotion. Server sees: their sums over the cohort, noisy.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import nn

from common.messages import TrainRequest
from common.privacy.histogram import class_histogram
from common.privacy.mechanisms import SecureRandom
from common.privacy.release import Release
from common.sum_encoding import MOST_FACES
from fl_client.client_spending import EVALUATION, HISTOGRAM
from models.evaluate import evaluate
from models.faces.faceset import FaceSet
from models.preprocess import Preprocessing


def count_releases(request: TrainRequest, rounds: int) -> dict[str, Release]:
    """What is debited for them, by what is added to the run's name: one histogram, and evaluations of so many rounds.

    They are of all faces, so at a sampling rate of 1.
    """
    found = dict[str, Release]()
    if request.privacy.private and request.histogram_noise is not None:
        found[HISTOGRAM] = Release(request.histogram_noise, 1.0, 1)
    if request.privacy.private and request.evaluation_noise is not None:
        found[EVALUATION] = Release(request.evaluation_noise, 1.0, rounds)
    return found


def noisy_counts(
    model: nn.Module, faces: FaceSet, preprocessing: Preprocessing, request: TrainRequest, random: Callable[[], SecureRandom]
) -> NDArray[np.float32] | None:
    """(2,), (C,) or (2 + C,) in units of `MOST_FACES`: evaluation first; None if nothing is asked for.

    One face more or less moves evaluation's pair by at most sqrt(2) in L2, and the histogram by at most 1.
    """
    if not request.upload.secure:
        return None
    private, found = request.privacy.private, list[NDArray[np.float64]]()
    if request.evaluation_noise is not None:
        confusion = evaluate(model, faces, preprocessing).confusion
        pair = np.array([np.trace(confusion), confusion.sum()], dtype=np.float64)
        found.append(pair + random().normal(2, request.evaluation_noise * math.sqrt(2)).numpy() if private else pair)
    if request.histogram_noise is not None:
        found.append(class_histogram(faces.targets, request.histogram_noise, random()) if private else faces.targets.sum(0))
    return (np.concatenate(found) / MOST_FACES).astype(np.float32) if found else None
