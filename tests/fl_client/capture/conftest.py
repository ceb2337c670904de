"""Frames with faces that a fake detector finds where they are, a source of them, and a studio over a folder of its own."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from numpy.typing import NDArray

from fl_client.capture import browser_form, consent
from fl_client.capture.album import Album
from fl_client.capture.booth import Booth
from fl_client.capture.import_desk import ImportDesk
from fl_client.capture.importing import Search
from fl_client.capture.session import Rhythm, Session
from fl_client.capture.studio import Studio
from fl_client.webcam.source import Facts, Frame, Kind
from models.detector.detection import Detection
from models.preprocess import Box

BOX: Box = (100, 60, 120, 120)


def face(seed: int, side: int = 120) -> NDArray[np.uint8]:
    """A sharp grey pattern, unlike that of any other seed."""
    blocks = np.random.default_rng(seed).integers(40, 216, (24, 24), dtype=np.uint8)
    return np.kron(blocks, np.ones((side // 24, side // 24), dtype=np.uint8))


def frame_of(*seeds: int, boxes: Sequence[Box] = (BOX, (10, 10, 72, 72))) -> NDArray[np.uint8]:
    """A (240, 320, 3) frame with one pattern in each box."""
    picture = np.full((240, 320, 3), 128, dtype=np.uint8)
    for seed, (x, y, width, _) in zip(seeds, boxes, strict=False):
        picture[y : y + width, x : x + width] = face(seed, width)[:, :, None]
    return picture


@dataclass
class FixedDetector:
    """Finds a face in each box, whatever the frame shows."""

    boxes: Sequence[Box] = (BOX,)
    name: str = "fixed"
    keypoints: tuple[tuple[float, float], ...] | None = None

    def detect(self, picture: NDArray[np.uint8]) -> list[Detection]:
        return [Detection(box, 1.0, self.keypoints) for box in self.boxes]


FACTS = Facts(Kind.CAMERA, "patterns", (320, 240), 30.0)


@dataclass
class Patterns:
    """A source that shows another face in each frame; `seconds` apart by the clock it carries."""

    frames_left: int = 10_000
    step: float = 0.5
    clock: float = 0.0
    dropped: int = 0
    pictures: list[NDArray[np.uint8]] = field(default_factory=list)
    facts: Facts = FACTS

    def frames(self) -> Iterator[Frame]:
        for index in range(self.frames_left):
            self.clock += self.step
            picture = self.pictures[index] if index < len(self.pictures) else frame_of(index)
            yield Frame(index, picture, self.clock)

    def close(self) -> None: ...


class Guessing:
    """In place of a model: says anger with 60 %, of every face."""

    class model:
        classes = ("neutral", "anger")

    def probabilities(self, picture: NDArray[np.uint8], boxes: Sequence[Box]) -> NDArray[np.float32]:
        return np.array([[0.4, 0.6]] * len(boxes), np.float32)


def desk_of(studio: Studio) -> ImportDesk:
    """Takes photos for the studio's folder, with its detector."""
    guessing: Any = Guessing()
    return ImportDesk(studio.album, lambda: Search(studio.detector, studio.album, make_classifier=lambda: guessing))


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Where the pictures go; not made yet."""
    return tmp_path / "my_faces"


def agreed_album(folder: Path) -> Album:
    """An album whose folder holds a yes."""
    album = Album(folder)
    if not consent.is_given(folder):
        consent.record(folder, "me")
    return album


@pytest.fixture
def make_studio(faces: Path) -> Callable[..., Studio]:
    """A studio that wants `targets`."""

    def make(
        targets: dict[str, int] | None = None, detector: FixedDetector | None = None, agreed: bool = True, **rhythm: float
    ) -> Studio:
        album = agreed_album(faces) if agreed else Album(faces)
        session = Session.start(targets or {"happiness": 3, "fear": 2}, album.counts(), Rhythm(**rhythm))  # type: ignore[arg-type]
        return Studio(album, detector or FixedDetector(), session)

    return make


@dataclass
class Served:
    """A booth that answers at `host` until `end`."""

    host: str
    server: uvicorn.Server
    thread: threading.Thread
    listener: socket.socket

    def end(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        self.listener.close()


def serve(booth: Booth) -> Served:
    listener = browser_form._listening(0)
    host = f"{browser_form.HOST}:{listener.getsockname()[1]}"
    server = uvicorn.Server(browser_form._config(booth.app(host)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    return Served(host, server, thread, listener)
