"""A source of models for tests."""

from fl_client.webcam.model import LoopModel


class Versions:
    """A `ModelSource` that publishes what it is given, one after the other."""

    def __init__(self, *models: LoopModel) -> None:
        self._models = list(models)

    def newest(self) -> LoopModel:
        return self._models.pop(0)

    def newer(self) -> LoopModel | None:
        return self._models.pop(0) if self._models else None
