"""A head fitted to a device's own faces, after training, on that device: `fl-client personalise` and `fl-sim personalise`.

Nothing of it leaves the device, so no noise is added and nothing is debited; who can read its file may learn of the faces. Beside
it stands what a mere shift of class priors, fitted to the same faces, would do: a gain that this has too is no better model.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from common.arrays import Arrays
from common.errors import DataError, ModelError
from common.parameters import write_parameters
from fl_client.personal_settings import PersonalSettings as PersonalSettings
from models.evaluate import Evaluation, judge
from models.faces.faceset import FaceSet
from models.frozen import Kept, split_frozen
from models.preprocess import Preprocessing
from models.prior import fitted_shift
from models.subset import select_trainable


@dataclass(frozen=True)
class Personalised:
    """A head, and how good three models are on faces that it was not fitted to.

    Attributes:
        head: its parameters by name.
        before: the model as it came.
        shifted: the same logits plus the shift of class priors that suits the fitted faces best.
        after: the model with this head.
    """

    head: Arrays
    before: Evaluation
    shifted: Evaluation
    after: Evaluation

    @property
    def finite(self) -> bool:
        """Whether the head is made of finite numbers and its loss is one; else the fit has failed."""
        return math.isfinite(self.after.loss) and all(np.isfinite(value).all() for value in self.head.values())


def personalise(
    model: nn.Module,
    weights: Arrays,
    own: FaceSet,
    aside: FaceSet,
    preprocessing: Preprocessing,
    settings: PersonalSettings,
    *,
    start: Arrays | None = None,
) -> Personalised:
    """Fit a head to the faces `own` and judge it by `aside`.

    Args:
        model: the network of `weights`, all its parameters; left with the fitted head, in evaluation mode.
        start: a head that is there already; it is judged as it is, and nothing is fitted.

    Raises:
        DataError: there are no faces to fit, or none to judge by.
        ModelError: the network has no head of its own.
    """
    if not len(own) or not len(aside):
        raise DataError("A head of one's own needs faces to fit it to, and others to judge it by.")
    write_parameters(model, weights)
    select_trainable(model, "head")
    parts = split_frozen(model)
    if parts is None:
        raise ModelError("This network has no head apart from its other layers.")
    front, head = parts

    def features(faces: FaceSet) -> Tensor:
        return Kept().rows(np.arange(len(faces)), front, faces, preprocessing)

    model.eval()
    with torch.inference_mode():
        unseen, both = features(aside), features(mirrored(own))
        plain = head(unseen).numpy()
        shift = fitted_shift(head(both[: len(own)]).numpy(), own.targets)
    if start is None:
        shift_head(head, shift)
        fit_head(head, both.clone(), torch.from_numpy(np.tile(own.targets, (2, 1))), settings)
        start = {name: p.detach().numpy().copy() for name, p in model.named_parameters() if p.requires_grad}
    write_parameters(model, weights | start)
    with torch.inference_mode():
        personal = head(unseen).numpy()
    return Personalised(
        start,
        before=judge(plain, aside.targets),
        shifted=judge((plain + shift).astype(np.float32), aside.targets),
        after=judge(personal, aside.targets),
    )


def shift_head(head: nn.Module, shift: NDArray[np.float64]) -> None:
    """Add `shift` (C,) to all logits, by the last layer's bias. A fit that begins here need not find the priors again."""
    last = [layer for layer in head.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        last.bias.add_(torch.from_numpy(shift.astype(np.float32)))


def fit_head(head: nn.Module, features: Tensor, targets: Tensor, settings: PersonalSettings) -> None:
    """Minimise, in place, mean cross-entropy + pull / 2 E|f|^2 |w - w_0|^2 over the head's parameters w.

    Args:
        features: (N, K), what the head is given for each face; E|f|^2 is their mean squared length, so that the pull means the
            same for features of any size.
        targets: (N, C), soft labels.
    """
    parameters = list(head.parameters())
    begun = [p.detach().clone() for p in parameters]
    scale = float(features.square().sum(1).mean())
    optimiser = torch.optim.LBFGS(parameters, max_iter=settings.steps, history_size=10, line_search_fn="strong_wolfe")

    def cost() -> float:
        optimiser.zero_grad()
        moved = torch.stack([(p - was).square().sum() for p, was in zip(parameters, begun, strict=True)]).sum()
        value = F.cross_entropy(head(features), targets) + 0.5 * settings.pull * scale * moved
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    optimiser.step(cost)  # type: ignore[no-untyped-call]


def mirrored(faces: FaceSet) -> FaceSet:
    """The faces, then each of them in a mirror."""
    people = None if faces.people is None else np.tile(faces.people, 2)
    images = np.concatenate([faces.images, faces.images[:, :, ::-1]])
    return FaceSet(images, np.tile(faces.targets, (2, 1)), faces.classes, people)


def split_aside(faces: FaceSet, part: float, seed: int) -> tuple[FaceSet, FaceSet]:
    """Faces to fit and faces to judge by: `part` of each emotion's, rounded, is set aside.

    Raises:
        DataError: one of the two would be empty.
    """
    random, aside = np.random.default_rng(seed), []
    for one in np.unique(faces.labels):
        rows = random.permutation(np.flatnonzero(faces.labels == one))
        aside.append(rows[: round(part * len(rows))])
    taken = np.sort(np.concatenate(aside)) if aside else np.empty(0, dtype=np.int64)
    rest = np.setdiff1d(np.arange(len(faces)), taken)
    if not len(taken) or not len(rest):
        raise DataError(f"{len(faces)} faces are too few to fit a head to some of them and to judge it by others.")
    return faces.take(rest), faces.take(taken)
