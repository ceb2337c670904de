"""Class priors: what shifting them alone does to a model's probabilities, so that such a gain is told from a better model.

The reports of `simulation` and `benchmarks`, and personalisation, show it beside their figures. Pure.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp

from common.errors import DataError

Floats = NDArray[np.floating]
Numbers = NDArray[np.floating] | NDArray[np.integer]
LEAST = 1e-6
"""Below it a prior counts as this much: no class is ruled out for good."""


def prior_correct(probabilities: Floats, train_prior: Numbers, target_prior: Numbers) -> NDArray[np.float64]:
    """What a model would say if classes were as frequent as `target_prior` says, where it learnt from `train_prior`.

    p'(c | x) is proportional to p(c | x) target(c) / train(c) (Saerens et al. 2002, "Adjusting the outputs of a classifier to
    new a priori probabilities", equation 4); it needs no training.

    Args:
        probabilities: (N, C), each row summing to 1.
        train_prior, target_prior: (C,) counts or frequencies, in any unit. Of a device's faces only ones it may tell: public
            counts, or a histogram whose noise was debited.

    Raises:
        DataError: the shapes do not fit, or a prior is negative, infinite or zero throughout.
    """
    if probabilities.ndim != 2 or {train_prior.shape, target_prior.shape} != {probabilities.shape[1:]}:
        raise DataError(f"Probabilities {probabilities.shape} and priors {train_prior.shape}, {target_prior.shape} do not fit.")
    shift = np.log(_frequencies(target_prior)) - np.log(_frequencies(train_prior))
    corrected = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)) + shift
    return np.asarray(np.exp(corrected - logsumexp(corrected, axis=1, keepdims=True)))


def _frequencies(prior: Numbers) -> NDArray[np.float64]:
    values = np.asarray(prior, dtype=np.float64)
    if not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise DataError("A class prior has one number per class, none of them negative, and not all zero.")
    parts = values / values.max()
    return np.asarray(np.maximum(parts / parts.sum(), LEAST))


def corrected_accuracy(probabilities: Floats, labels: NDArray[np.int64]) -> float:
    """Accuracy once the mean prediction is shifted to the labels' own frequencies: what that shift alone makes of it.

    It looks at the labels it is scored on, so it may be compared with and must not be claimed.
    """
    frequencies = np.bincount(labels, minlength=probabilities.shape[1])
    return float((prior_correct(probabilities, probabilities.mean(0), frequencies).argmax(1) == labels).mean())


def evened_balanced_accuracy(probabilities: Floats, labels: NDArray[np.int64]) -> float:
    """Balanced accuracy, over the classes present, once each class's probability is divided by its mean over the faces: one step
    of Saerens et al. towards equal frequencies, and what such a shift alone makes of it.

    It looks at which faces it is scored on, though not at their labels, so it may be compared with and must not be claimed.
    """
    even = np.ones(probabilities.shape[1])
    right = prior_correct(probabilities, probabilities.mean(0), even).argmax(1) == labels
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def even_shift(counts: Numbers, share: float = 1.0) -> NDArray[np.float64]:
    """(C,) what is added to all logits to take the class frequencies of the training faces out of a model's answers.

    -share log(prior): post-hoc logit adjustment (Menon et al. 2021, "Long-tail learning via logit adjustment", section 4.1, whose
    tau is the share). It needs no training.

    Args:
        counts: (C,) faces of each class in training: public ones, or a histogram whose noise was debited.
        share: 0 leaves the answers as they are, 1 answers as if all classes were equally frequent.

    Raises:
        DataError: a count is negative or infinite, all are zero, or the share is no number from 0 to 1.
    """
    if not 0 <= share <= 1:
        raise DataError(f"A share lies between 0 and 1, not at {share:g}: 0 leaves the answers as they are.")
    return np.asarray(-share * np.log(_frequencies(counts)))


def fitted_shift(logits: Floats, targets: Floats) -> NDArray[np.float64]:
    """(C,) what added to all logits makes the (soft) targets most likely: the best that a shift of priors can do.

    Convex; 1/2 |shift|^2 is added to the summed cross-entropy, so that few faces move it little.

    Raises:
        DataError: there are no faces, or shapes differ.
    """
    if len(logits) == 0 or logits.shape != targets.shape:
        raise DataError(f"A shift is fitted to as many labels as logits, and to some: not {logits.shape} and {targets.shape}.")
    scores, wanted = np.asarray(logits, dtype=np.float64), np.asarray(targets, dtype=np.float64)

    def cost(shift: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        logs = log_softmax(scores + shift, axis=1)
        slope = (np.exp(logs) * wanted.sum(1, keepdims=True) - wanted).sum(0) + shift
        return float(-(wanted * logs).sum() + 0.5 * shift @ shift), slope

    return np.asarray(minimize(cost, np.zeros(scores.shape[1]), jac=True, method="L-BFGS-B").x)
