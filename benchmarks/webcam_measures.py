"""What `benchmarks.webcam` and its sisters measure: a detector, the whole loop, and how many faces they read right."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from benchmarks.camera_frames import FPS, HEIGHT, WIDTH, TruthFrame, stills
from benchmarks.real_data import real_folder
from common.errors import DataError
from fl_client.webcam.classifier import Classifier
from fl_client.webcam.loop import CameraLoop, LoopSettings
from fl_client.webcam.model import LoopModel
from fl_client.webcam.overlay import Status, draw
from fl_client.webcam.recorder import Outputs
from fl_client.webcam.seen import Face, Pace
from fl_client.webcam.source import Facts, Frame, Kind
from fl_client.webcam.timings import Row, Timings
from fl_client.webcam.tracking import Tracker, TrackingSettings
from models.detector.detection import overlap
from models.detector.detectors import Detector
from models.faces.fer2013 import Usage
from models.faces.ferplus import judge
from models.faces.source import open_faces

FOUND = 0.4
"""A face counts as found by a box that shares so much of their union."""

FACELESS = 200


@dataclass(frozen=True)
class Real:
    """Labelled faces: (N, 48, 48) uint8, (N,) classes of EMOTIONS_8."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass
class Found:
    """How a detector did on frames with faces and on frames without."""

    ms: list[float] = field(default_factory=list)
    faces: int = 0
    found: int = 0
    overlaps: list[float] = field(default_factory=list)
    false_boxes: int = 0

    @property
    def recall(self) -> float:
        return self.found / max(1, self.faces)


@dataclass(frozen=True)
class Looped:
    """How the whole loop did on a film."""

    rows: list[Row]
    overlap: float
    swaps_of_number: int

    @property
    def whole(self) -> Row:
        return self.rows[-1]


USAGES: tuple[Usage, ...] = get_args(Usage)
"""FER2013's splits, as ferplus.npz numbers them."""


def open_real(path: Path | None, usage: Usage = "PrivateTest") -> Real:
    """FER+'s majority faces of one of `USAGES`: from fer2013.csv with fer2013new.csv beside it, or from ferplus.npz."""
    folder = path or real_folder()
    packed = folder / "ferplus.npz" if folder.is_dir() else folder
    if packed.suffix == ".npz":
        if not packed.is_file():
            raise DataError(f"There is no {packed}; give --data fer2013.csv, with fer2013new.csv beside it.")
        with np.load(packed, allow_pickle=False) as data:
            kept = data["usage"] == USAGES.index(usage)
            images, votes = data["images"][kept], data["votes"][kept].astype(np.int64)
        targets, verdicts = judge(votes, "majority")
        return Real(images[verdicts == 0], targets[verdicts == 0].argmax(1))
    faces, _ = open_faces(folder, labels="ferplus-majority", usage=usage)
    return Real(faces.images, faces.labels)


def measure_detector(detector: Detector, frames: Sequence[TruthFrame], empty: Sequence[NDArray[np.uint8]]) -> Found:
    """Time, recall and false boxes of one detector."""
    result = Found()
    detector.detect(frames[0].picture)
    for frame in frames:
        began = time.process_time()
        boxes = [detection.box for detection in detector.detect(frame.picture)]
        result.ms.append(1000 * (time.process_time() - began))
        for face in frame.faces:
            best = max((overlap(box, face.box) for box in boxes), default=0.0)
            result.faces += 1
            result.found += best >= FOUND
            if best >= FOUND:
                result.overlaps.append(best)
    result.false_boxes = sum(len(detector.detect(picture)) for picture in empty)
    return result


def measure_classifier(classifier: Classifier, frames: Sequence[TruthFrame]) -> float:
    """Median milliseconds from a frame and one box to probabilities."""
    times = []
    for frame in frames:
        began = time.process_time()
        classifier.probabilities(frame.picture, [frame.faces[0].box])
        times.append(1000 * (time.process_time() - began))
    return float(np.median(times))


@dataclass
class _FilmSource:
    """Frames from memory, as a video."""

    frames_held: Sequence[TruthFrame]
    dropped: int = 0
    facts: Facts = field(default_factory=lambda: Facts(Kind.VIDEO, "film", (WIDTH, HEIGHT), FPS))

    def frames(self) -> Iterator[Frame]:
        for index, frame in enumerate(self.frames_held):
            yield Frame(index, frame.picture, index / FPS)

    def close(self) -> None: ...


def _painted(frame: Frame, faces: tuple[Face, ...], model: LoopModel, pace: Pace) -> NDArray[np.uint8]:
    return draw(frame.picture, faces, Status(model.version, model.seal, pace.fps))


def measure_loop(detector: Detector, classifier: Classifier, video: Sequence[TruthFrame], tracking: TrackingSettings) -> Looped:
    """The loop without window and files: its times, and its boxes against detecting on every frame."""
    timings = Timings(clock=time.process_time)
    seen: list[tuple[Face, ...]] = []

    def paint(frame: Frame, faces: tuple[Face, ...], model: LoopModel, pace: Pace) -> NDArray[np.uint8]:
        seen.append(faces)
        return _painted(frame, faces, model, pace)

    loop = CameraLoop(
        source=_FilmSource(video),
        detector=detector,
        classifier=classifier,
        outputs=Outputs([], False),
        settings=LoopSettings(tracking=tracking),
        painter=paint,
        heatmaps=True,
    )
    loop.tally.timings = timings
    loop.run()
    each = Tracker(detector, TrackingSettings(every=1))
    shared = []
    for frame, faces in zip(video, seen, strict=True):
        boxes = [face.box for face in faces]
        shared += [max((overlap(track.box, box) for box in boxes), default=0.0) for track in each.update(frame.picture)]
    return Looped(timings.rows(), float(np.mean(shared)), _changes(video, seen))


def _changes(video: Sequence[TruthFrame], seen: Sequence[tuple[Face, ...]]) -> int:
    """How often a face that stayed got another number."""
    before: dict[int, int | None] = {}
    changes = 0
    for frame, faces in zip(video, seen, strict=True):
        now = {}
        for placed in frame.faces:
            best = max(faces, key=lambda face: overlap(face.box, placed.box), default=None)
            if best is not None and overlap(best.box, placed.box) >= FOUND:
                now[placed.row] = best.track
                changes += before.get(placed.row, best.track) != best.track
        before = now
    return changes


def measure_accuracy(detector: Detector, classifier: Classifier, real: Real, count: int, dim: float = 1.0) -> dict[str, Any]:
    """Part of the same faces that are read right: as ready-made crops, in the frame at the true box, and by the whole loop.

    The loop's figure counts a face that was not found as wrong.
    """
    rows, right = [], {"crops": [], "true_box": [], "loop": [], "loop_if_found": []}  # type: ignore[var-annotated]
    shown = real.images[:count]
    for frame in stills(shown, count, seed=21, dim=dim):
        detections = detector.detect(frame.picture)
        for face in frame.faces:
            best = max(detections, key=lambda one: overlap(one.box, face.box), default=None)
            found = best is not None and overlap(best.box, face.box) >= FOUND
            boxes = [face.box, best.box] if found and best is not None else [face.box]
            answers = classifier.probabilities(frame.picture, boxes).argmax(1)
            label = real.labels[face.row]
            right["true_box"].append(answers[0] == label)
            right["loop"].append(found and answers[-1] == label)
            if found:
                right["loop_if_found"].append(answers[-1] == label)
            rows.append(face.row)
        if len(rows) >= count:
            break
    ready = _classified(classifier, shown)
    right["crops"] = [ready[row] == real.labels[row] for row in rows]
    return {"faces": len(rows), **{name: float(np.mean(values)) for name, values in right.items()}}


def _classified(classifier: Classifier, crops: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.array([classifier.probabilities(crop, [(0, 0, crop.shape[1], crop.shape[0])]).argmax() for crop in crops])
