"""From face boxes to probabilities: all faces of a frame in one batch through ONNX Runtime, on the CPU.

The loop calls `probabilities` once per frame; a new model version becomes a new `Classifier`.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.errors import ModelError
from fl_client.webcam.graph import check_graph
from fl_client.webcam.model import LoopModel
from models.faces.inputs import model_inputs, softmax
from models.onnx_outputs import only
from models.onnx_session import cpu_session
from models.preprocess import Box

HEAT = "heatmap"
"""Name of the output, (N, C, h, w), that shows where in the face each class is seen; models without it have no heatmap."""

TRIAL_SECONDS = 10.0
"""That a model may take for the trial's four faces: the largest takes hundredths of a second."""


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
        """Build the session and try it on four made-up faces, so that a model that cannot work is refused here.

        Args:
            threads: for one inference (intra-op).

        Raises:
            ModelError: it holds what no export of this project does (`fl_client.webcam.graph`), ONNX Runtime refuses it, it takes
                too long, its input or output does not fit the manifest, or an answer is not finite.
        """
        self.model = model
        check_graph(model.onnx, f"The model {model.version}")
        with self._refusing():
            self._explaining = cpu_session(model.onnx, threads)
            self._input = self._explaining.get_inputs()[0].name
            names = [output.name for output in self._explaining.get_outputs()]
            self._output = names[0]
            self.has_heat = HEAT in names[1:]
            self._session = self._explaining
            if self.has_heat:
                # a session computes all of its outputs, and most frames need no heatmap
                self._session = cpu_session(only(model.onnx, self._output), threads)
        faces = model.preprocessing.normalise(_made_up_faces(model.preprocessing.size))
        with _limited(TRIAL_SECONDS) as limit:
            try:
                self._run(faces, self.has_heat, limit)
                self._run(faces, False, limit)
            except ModelError:
                if not limit.terminate:
                    raise
        if limit.terminate:
            raise ModelError(f"The model {model.version} takes more than {TRIAL_SECONDS:g} seconds to try.")

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
        return Reading(softmax(logits if self.model.shift is None else logits + self.model.shift), maps)

    def _run(
        self, inputs: NDArray[np.float32], heat: bool = False, *limits: Any
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        session, wanted = (self._explaining, [self._output, HEAT]) if heat else (self._session, [self._output])
        with self._refusing():
            answers = [np.asarray(answer) for answer in session.run(wanted, {self._input: inputs}, *limits)]
        logits = answers[0]
        expected = (len(inputs), len(self.model.classes))
        if logits.shape != expected:
            raise ModelError(f"The model {self.model.version} answers {logits.shape} where its manifest promises {expected}.")
        if heat and (answers[1].ndim != 4 or answers[1].shape[:2] != expected):
            raise ModelError(f"The model {self.model.version} answers heatmaps {answers[1].shape}, not {(*expected, 'h', 'w')}.")
        if not all(np.isfinite(answer).all() for answer in answers):
            raise ModelError(f"The model {self.model.version} answers with numbers that are not finite.")
        return logits.astype(np.float32, copy=False), answers[1].astype(np.float32, copy=False) if heat else None

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Whatever ONNX Runtime throws becomes a ModelError: its own exceptions share no public base class."""
        try:
            yield
        except ModelError:
            raise
        except Exception as error:
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ModelError(f"The model {self.model.version} cannot be run by ONNX Runtime: {first_line}") from error


@contextmanager
def _limited(seconds: float) -> Iterator[Any]:
    """Options for runs that end with an error once so many seconds are over, after the operation that is under way."""
    import onnxruntime  # `common` came first: it turns onnxruntime's telemetry off

    options = onnxruntime.RunOptions()
    clock = threading.Timer(seconds, setattr, (options, "terminate", True))
    clock.daemon = True
    clock.start()
    try:
        yield options
    finally:
        clock.cancel()


def _made_up_faces(size: int) -> NDArray[np.uint8]:
    """(4, size, size): black, white, noise, and dark to bright."""
    noise = np.random.default_rng(0).integers(0, 256, (size, size), dtype=np.uint8)
    slope = np.broadcast_to(np.linspace(0, 255, size).astype(np.uint8), (size, size))
    return np.stack([np.zeros_like(noise), np.full_like(noise, 255), noise, slope])
