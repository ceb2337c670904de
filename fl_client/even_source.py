"""Published models whose answers take out how frequent each emotion was in training: `fl-client webcam --even-classes SHARE`."""

from dataclasses import dataclass, replace

import numpy as np

from common.errors import ConfigError
from fl_client.webcam.model import LoopModel, ModelSource


@dataclass(frozen=True)
class EvenSource:
    """A `ModelSource` over another.

    Attributes:
        source: gives verified models.
        share: above 0, at most 1, see `models.prior.even_shift`.
    """

    source: ModelSource
    share: float

    def newest(self) -> LoopModel:
        """As `ModelSource`.

        Raises:
            ConfigError: the model does not say how many faces of each class it learnt from.
        """
        return self._evened(self.source.newest())

    def newer(self) -> LoopModel | None:
        """As `ModelSource`; a version without class counts is refused with a ConfigError."""
        found = self.source.newer()
        return None if found is None else self._evened(found)

    def _evened(self, model: LoopModel) -> LoopModel:
        from models.prior import even_shift  # scipy takes a while to load, and loops without --even-classes need none of it

        if model.counts is None:
            raise ConfigError(
                f"The model {model.version} does not say how many faces of each emotion it learnt from, which --even-classes "
                "needs: its operator trains with --class-histogram and the loss cross-entropy, and a round has to be over; or "
                "leave --even-classes out."
            )
        return replace(model, shift=even_shift(model.counts, self.share).astype(np.float32))
