"""The plainest classifier that can tell whether something about a face gives its emotion away."""

import cv2
import numpy as np
from numpy.typing import NDArray

CLASSES = 7


def ridge_accuracy(x: NDArray[np.float64], y: NDArray[np.int64], x_new: NDArray[np.float64], y_new: NDArray[np.int64]) -> float:
    """Accuracy on `x_new` of ridge regression from `x` onto one-hot `y`."""
    mean, scale = x.mean(0), x.std(0) + 1e-6
    x, x_new = (np.hstack([(v - mean) / scale, np.ones((len(v), 1))]) for v in (x, x_new))
    weights = np.linalg.solve(x.T @ x + 0.3 * len(x) * np.eye(x.shape[1]), x.T @ np.eye(CLASSES)[y])
    return float(((x_new @ weights).argmax(1) == y_new).mean())


def edges(images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(N, 48, 48) -> (N, F) histograms of oriented gradients."""
    hog = cv2.HOGDescriptor((48, 48), (16, 16), (8, 8), (8, 8), 9)
    return np.stack([np.asarray(hog.compute(image)).ravel() for image in images]).astype(np.float64)
