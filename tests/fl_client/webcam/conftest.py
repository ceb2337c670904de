"""Tiny but real parts for the camera loop: a signed ONNX model that tells bright faces from dark ones, and drawn frames."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from common.config import ModelConfig
from fl_client.webcam.classifier import Classifier
from fl_client.webcam.model import LoopModel
from fl_client.webcam.source import Facts, Frame, Kind
from fl_server.hub import PublishedVersion, Registry
from models.detector.detection import Detection
from models.preprocess import Box, Preprocessing
from tests.publishing import KEY, facts_of_round, weights_of_round

CLASSES = ModelConfig().classes
BRIGHT, DARK = CLASSES[0], CLASSES[1]
SHARPNESS = 4.0


def brightness_onnx(classes: int = len(CLASSES), size: int = 48, sharpness: float = SHARPNESS) -> bytes:
    """Logits: the input's mean times `sharpness` for class 0, minus that for class 1, zero for the others."""
    weights = np.zeros((size * size, classes), dtype=np.float32)
    weights[:, 0] = sharpness / size**2
    weights[:, 1] = -sharpness / size**2
    nodes = [
        helper.make_node("Flatten", ["faces"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("faces", TensorProto.FLOAT, ["batch", 1, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def loop_model(**changes: Any) -> LoopModel:
    values: dict[str, Any] = {
        "classes": CLASSES,
        "preprocessing": Preprocessing(),
        "onnx": brightness_onnx(),
        "version": "run demo round 1 #1",
        "privacy": "record-level epsilon 7.9",
        "private": True,
    }
    return LoopModel(**values | changes)


def publish(folder: Path, number: int, content: bytes | None = None, **changes: Any) -> PublishedVersion:
    """Sign and publish round `number`, through the server's own registry."""
    onnx_file = brightness_onnx() if content is None else content
    return Registry(folder, KEY).publish(weights_of_round(number), onnx_file, facts_of_round(number, **changes))


def frame_with(faces: Sequence[tuple[Box, int]], size: tuple[int, int] = (320, 240), ground: int = 128) -> NDArray[np.uint8]:
    """A (H, W, 3) frame with a flat square of the given grey level in each box."""
    picture = np.full((size[1], size[0], 3), ground, dtype=np.uint8)
    for (x, y, width, height), level in faces:
        picture[y : y + height, x : x + width] = level
    return picture


def write_video(path: Path, pictures: Sequence[NDArray[np.uint8]], fps: float = 10.0) -> Path:
    rows, columns = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, (columns, rows))
    for picture in pictures:
        writer.write(picture)
    writer.release()
    return path


def read_video(path: Path) -> tuple[list[NDArray[np.uint8]], float]:
    """All frames, and the frame rate."""
    capture = cv2.VideoCapture(str(path))
    fps = capture.get(cv2.CAP_PROP_FPS)
    frames = []
    while True:
        ok, picture = capture.read()
        if not ok:
            capture.release()
            return frames, fps
        frames.append(np.asarray(picture, dtype=np.uint8))


@dataclass
class FakeDetector:
    """Says that every frame has faces in these boxes; `before` runs first, with the frame's number."""

    boxes: Sequence[Box] = ()
    before: Callable[[int], None] = lambda number: None
    name: str = "fake"
    calls: int = 0

    def detect(self, picture: NDArray[np.uint8]) -> list[Detection]:
        self.before(self.calls)
        self.calls += 1
        return [Detection(box, 1.0) for box in self.boxes]


@dataclass
class FakeSource:
    """Frames from memory."""

    pictures: Sequence[NDArray[np.uint8]]
    kind: Kind = Kind.VIDEO
    fps: float = 200.0
    dropped: int = 0
    error: Exception | None = None

    @property
    def facts(self) -> Facts:
        rows, columns = self.pictures[0].shape[:2]
        return Facts(self.kind, "memory", (columns, rows), self.fps, len(self.pictures))

    def frames(self) -> Iterator[Frame]:
        for index, picture in enumerate(self.pictures):
            taken = time.monotonic() if self.kind.live else None
            yield Frame(index, picture, index / self.fps, "memory", taken)
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        pass


@dataclass
class Spy:
    """Stands before a classifier's session and keeps every batch that goes in."""

    session: Any
    batches: list[NDArray[np.float32]] = field(default_factory=list)

    def run(self, outputs: list[str], inputs: dict[str, NDArray[np.float32]]) -> Any:
        self.batches += inputs.values()
        return self.session.run(outputs, inputs)


def spied(classifier: Classifier) -> Spy:
    spy = Spy(classifier._session)
    classifier._session = spy
    return spy


@pytest.fixture(autouse=True)
def _state_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def registry(tmp_path: Path) -> Path:
    """A registry with one version."""
    publish(tmp_path / "registry", 1)
    return tmp_path / "registry"
