"""From face boxes to probabilities: all faces of a frame in one batch through ONNX Runtime, on the CPU.

The loop calls `probabilities` once per frame; a new model version becomes a new `Classifier`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.errors import ModelError
from fl_client.webcam.model import LoopModel
from models.faces.inputs import model_inputs, softmax
from models.onnx_outputs import only
from models.onnx_session import cpu_session
from models.preprocess import Box

HEAT = "heatmap"
"""Name of the output, (N, C, h, w), that shows where in the face each class is seen; models without it have no heatmap."""


@dataclass(frozen=True)
class Reading:
    """What the model says of N faces.

    Attributes:
        probabilities: (N, C) float32; each row sums to 1, columns follow `model.classes`.
        heat: (N, C, h, w) float32 class activation maps, or None: not asked for, or the model gives none.
    """

    probabilities: NDArray[np.float32]
    heat: NDArray[np.float32] | None = None


class Classifier:
    """A published model, ready to run.

    Attributes:
        model: what it runs, with its classes, preprocessing, version and privacy statement.
        has_heat: whether it can say where in the face it saw what.
    """

    def __init__(self, model: LoopModel, threads: int = 1) -> None:
        """Build the session and run it once on an empty face, so that a model that cannot work is refused here.

        Args:
            threads: for one inference (intra-op).

        Raises:
            ModelError: ONNX Runtime refuses the model, or its input or output does not fit the manifest.
        """
        self.model = model
        try:
            self._explaining = cpu_session(model.onnx, threads)
            self._input = self._explaining.get_inputs()[0].name
            names = [output.name for output in self._explaining.get_outputs()]
            self._output = names[0]
            self.has_heat = HEAT in names[1:]
            self._session = self._explaining
            if self.has_heat:
                # a session computes all of its outputs, and most frames need no heatmap
                self._session = cpu_session(only(model.onnx, self._output), threads)
            size = model.preprocessing.size
            blank = np.zeros((2, size, size), dtype=np.uint8)
            self._run(model.preprocessing.normalise(blank), self.has_heat)
            self._run(model.preprocessing.normalise(blank))
        except ModelError:
            raise
        except Exception as error:
            # onnxruntime's own exceptions share no public base class
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(f"The model {model.version} cannot be run by ONNX Runtime: {first_line}") from error

    def probabilities(self, picture: NDArray[np.uint8], boxes: Sequence[Box]) -> NDArray[np.float32]:
        """(H, W, 3) uint8 and N boxes -> (N, C) float32; each row sums to 1, columns follow `model.classes`.

        One inference for all faces; none when there is no face.

        Raises:
            ModelError: the model's answer is not finite.
        """
        return self.read(picture, boxes).probabilities

    def read(self, picture: NDArray[np.uint8], boxes: Sequence[Box], heat: bool = False) -> Reading:
        """As `probabilities`, with the heatmaps if they are asked for and the model gives them."""
        if not boxes:
            return Reading(np.empty((0, len(self.model.classes)), dtype=np.float32))
        logits, maps = self._run(model_inputs(self.model.preprocessing, picture, boxes), heat and self.has_heat)
        return Reading(softmax(logits), maps)

    def _run(self, inputs: NDArray[np.float32], heat: bool = False) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        session, wanted = (self._explaining, [self._output, HEAT]) if heat else (self._session, [self._output])
        answers = [np.asarray(answer) for answer in session.run(wanted, {self._input: inputs})]
        logits = answers[0]
        expected = (len(inputs), len(self.model.classes))
        if logits.shape != expected:
            raise ModelError(f"The model {self.model.version} answers {logits.shape} where its manifest promises {expected}.")
        if heat and (answers[1].ndim != 4 or answers[1].shape[:2] != expected):
            raise ModelError(f"The model {self.model.version} answers heatmaps {answers[1].shape}, not {(*expected, 'h', 'w')}.")
        if not all(np.isfinite(answer).all() for answer in answers):
            raise ModelError(f"The model {self.model.version} answers with numbers that are not finite.")
        return logits.astype(np.float32, copy=False), answers[1].astype(np.float32, copy=False) if heat else None
