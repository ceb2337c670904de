"""From a picture and boxes to a model's input, and from its answer to probabilities.

Everything that shows a model a whole picture calls it: the camera loop, capture and `POST /v1/predict`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.faces.light import relit
from models.preprocess import Box, Preprocessing


def model_inputs(preprocessing: Preprocessing, picture: NDArray[np.uint8], boxes: Sequence[Box]) -> NDArray[np.float32]:
    """(H, W, 3) uint8 and N boxes -> (N, 1, size, size) float32, made by the very functions that training uses.

    Only a face in bad light is given a training face's contrast in between (`models.faces.light`).
    """
    if not boxes:
        return np.empty((0, 1, preprocessing.size, preprocessing.size), dtype=np.float32)
    return preprocessing.normalise(np.stack([relit(preprocessing.crop(picture, box)) for box in boxes]))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, C) logits -> (N, C) probabilities."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float32)
