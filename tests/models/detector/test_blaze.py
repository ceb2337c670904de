from pathlib import Path

import cv2
import numpy as np
import pytest

from common.errors import DependencyError, ModelError
from models.detector import detectors
from models.detector.blaze import OUTPUTS, BlazeDetector, network_path
from models.detector.detection import overlap
from models.detector.detectors import make_detector
from models.detector.tflite import onnx_from_tflite
from tests.realdata import data_folder

STORED = network_path()


@pytest.fixture(autouse=True)
def _data_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


@pytest.fixture
def fetched() -> Path:
    """The real network, where the person who runs the tests has fetched it."""
    if not STORED.is_file():
        pytest.skip("The network of 'blaze' is not here; `fl-client webcam --get-detector` fetches it.")
    network_path().parent.mkdir(parents=True)
    network_path().write_bytes(STORED.read_bytes())
    return network_path()


def test_without_the_network_one_sentence_says_how_to_get_it() -> None:
    with pytest.raises(DependencyError, match="--get-detector fetches it once"):
        make_detector("blaze")


def test_another_file_in_its_place_is_refused() -> None:
    network_path().parent.mkdir(parents=True)
    network_path().write_bytes(b"something else")
    with pytest.raises(DependencyError, match="is not the network that the detector 'blaze' expects"):
        BlazeDetector()


def test_where_it_cannot_run_the_next_best_takes_its_place_with_a_sentence() -> None:
    network_path().parent.mkdir(parents=True)
    network_path().write_bytes(b"something else")
    said: list[str] = []
    assert make_detector(say=said.append).name != "blaze"
    assert len(said) >= 1
    assert said[0].endswith("is used in its place.")


def test_where_nobody_fetched_it_haar_works_and_one_sentence_says_what_could_be_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detectors, "grid_is_shipped", lambda: False)
    said: list[str] = []
    assert make_detector(say=said.append).name == "haar"
    assert said == [detectors.HINT]


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\x08\x00\x00\x00" * 40, bytes(range(256)) * 4])
def test_a_damaged_network_is_a_model_error(content: bytes) -> None:
    with pytest.raises(ModelError, match=r"no TensorFlow Lite file of the expected kind|is not known here|does not have"):
        onnx_from_tflite(content, {"scores": 1}, scale=1.0, shift=0.0)


def test_the_converted_network_answers_as_opencvs_reading_of_the_same_file(fetched: Path) -> None:
    """On its own 128-pixel square, where both read all of it."""
    picture = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    theirs = cv2.dnn.readNetFromTFLite(str(fetched))
    theirs.setInput(np.ascontiguousarray((picture.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None]))
    by_size = {answer.shape[2]: answer for answer in theirs.forward(theirs.getUnconnectedOutLayersNames())}
    mine = BlazeDetector()._session.run(list(OUTPUTS), {"picture": picture[None]})
    flat = [answer[0].transpose(1, 2, 0) for answer in mine]
    scores = np.concatenate([flat[0].ravel(), flat[2].ravel()])
    boxes = np.concatenate([flat[1].reshape(-1, 16), flat[3].reshape(-1, 16)])
    np.testing.assert_allclose(by_size[1].ravel(), scores, atol=2e-3)
    np.testing.assert_allclose(by_size[16].reshape(-1, 16), boxes, atol=2e-2)


@pytest.mark.slow
def test_real_faces_are_found_framed_as_the_training_crops_with_their_eyes_in_place(fetched: Path) -> None:
    from benchmarks.camera_frames import stills

    with np.load(data_folder() / "ferplus.npz", allow_pickle=False) as data:
        faces = data["images"][data["usage"] == 2]
    finder = make_detector("blaze")
    found, ways, wanted = 0, [], 0
    for frame in stills(faces, 60, seed=3):
        detections = finder.detect(frame.picture)
        for face in frame.faces:
            wanted += 1
            best = max(detections, key=lambda one: overlap(one.box, face.box), default=None)
            if best is None or overlap(best.box, face.box) < 0.4:
                continue
            found += 1
            x, y, side, _ = face.box
            ways.append(((best.box[0] + best.box[2] / 2 - x) / side - 0.5, (best.box[1] + best.box[3] / 2 - y) / side - 0.5))
            assert best.keypoints is not None
            right, left = best.keypoints[:2]
            assert right[0] < left[0]
    assert found >= 0.92 * wanted
    assert np.abs(np.median(ways, axis=0)).max() < 0.04
