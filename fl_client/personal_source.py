"""Published models with the device's own head, for the camera loop: `fl-client webcam --personal DIR`. Nothing of it is sent.

A head is used only with the very layers that it was fitted to; a newer model with others comes as it was published.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from common.errors import ConfigError
from fl_client.own_head import FITTED, OwnHead, personal_folder, read_head
from fl_client.webcam.model import LoopModel, ModelSource

OWN = "with your own head, which stays here"
"""Line of the badge."""


@dataclass
class PersonalSource:
    """A `ModelSource` over another.

    Attributes:
        source: gives verified models.
        head: as `fl_client.personalise_commands` stored it.
        say: receives a sentence when a model comes without it.
    """

    source: ModelSource
    head: OwnHead
    say: Callable[[str], None] = lambda sentence: None

    def newest(self) -> LoopModel:
        """As `ModelSource`."""
        return self._personal(self.source.newest())

    def newer(self) -> LoopModel | None:
        """As `ModelSource`."""
        found = self.source.newer()
        return None if found is None else self._personal(found)

    def _personal(self, model: LoopModel) -> LoopModel:
        from models.graft import graft  # onnx takes a while to load, and loops without --personal need none of it

        facts, onnx = self.head.facts, None
        if facts.get("classes") == ",".join(model.classes):
            onnx = graft(model.onnx, self.head.arrays, facts.get("trunk", ""))
        if onnx is None:
            self.say(f"{model.version} is used without your own head, which was fitted to {facts.get('model', 'another model')}.")
            return model
        seal = model.seal
        return replace(model, onnx=onnx, badge=replace(seal, promises=(*seal.promises, OWN)))


def own_fitted_head(data: Path) -> OwnHead:
    """The head fitted to the faces in `data`.

    Raises:
        ConfigError: there is none.
        IntegrityError: it is damaged.
    """
    head = read_head(personal_folder(data.expanduser()) / FITTED)
    if head is None:
        raise ConfigError(f"There is no head for the faces in {data}: fl-client personalise --data {data} fits one.")
    return head
