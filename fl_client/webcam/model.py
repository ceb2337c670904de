"""What the loop needs of a published model, and of the place where newer ones appear.

The rest of the loop sees `LoopModel` only; `registry.py` makes one from a verified version.
"""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fl_client.webcam.badge import Badge, Tone
from models.preprocess import Preprocessing


@dataclass(frozen=True)
class LoopModel:
    """A verified model, as the loop uses it.

    Attributes:
        classes: C names, in the order of the logits.
        preprocessing: how a face box becomes an input.
        onnx: the ONNX file: (N, 1, size, size) float32 -> (N, C) float32 logits.
        version: for the screen, as in "run abc round 12 #34".
        privacy: for the screen, as in "record-level epsilon 8", or "NON-PRIVATE".
        private: whether differential privacy protects whoever it was trained on.
        promise: the privacy statement in full.
        signer: fingerprint of the key that signed it, for people to compare.
        badge: what the screen says of all that; None: `privacy` alone.
        counts: (C,) faces of each class in training, public or noisy, all above 0; None where nobody says.
        shift: (C,) added to the logits of each face, None for the model's own answers.
    """

    classes: tuple[str, ...]
    preprocessing: Preprocessing
    onnx: bytes
    version: str
    privacy: str
    private: bool
    promise: str = ""
    signer: str = ""
    badge: Badge | None = None
    counts: NDArray[np.float64] | None = field(default=None, compare=False)
    shift: NDArray[np.float32] | None = field(default=None, compare=False)

    @property
    def seal(self) -> Badge:
        """The badge for the screen."""
        return self.badge or Badge((self.privacy,), Tone.PRIVATE if self.private else Tone.ALARM)


class ModelSource(Protocol):
    """Where versions come from. Whatever it returns was verified."""

    def newest(self) -> LoopModel:
        """The newest version.

        Raises:
            IntegrityError: there is none, or its signature or a hash does not hold.
        """
        ...

    def newer(self) -> LoopModel | None:
        """A version published after the last one that this source returned, or None.

        Cheap when there is none: it is asked twice a second.

        Raises:
            EmoflError: the newer version is refused.
        """
        ...
