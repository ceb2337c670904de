from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.console import run_command_line
from common.emotions import EMOTIONS_7
from common.errors import ConfigError, DataError
from models.faces.folder import read_folder
from models.preprocess import Preprocessing
from simulation.cli import app
from simulation.drawn_folder import draw_folder
from simulation.face_folders import deal_faces
from simulation.synthetic_faces import draw_faces


def pictures(folder: Path) -> list[bytes]:
    return [np.asarray(Image.open(path)).tobytes() for path in sorted(folder.rglob("*.png"))]


def test_every_device_gets_its_own_faces_and_no_face_lies_in_two(tmp_path: Path) -> None:
    faces = draw_faces(90, seed=1, people=3)
    folders = deal_faces(faces, tmp_path / "faces", devices=3, count=28, alpha=None, seed=0)
    assert [folder.name for folder in folders] == ["faces1", "faces2", "faces3"]
    dealt = [pictures(folder) for folder in folders]
    assert [len(found) for found in dealt] == [28, 28, 28]
    everything = [picture for found in dealt for picture in found]
    assert len(set(everything)) == len(everything)
    assert set(everything) <= {image.tobytes() for image in faces.images}


def test_a_device_reads_what_was_dealt_under_the_same_emotion(tmp_path: Path) -> None:
    faces = draw_faces(60, seed=2, people=2)
    label = {image.tobytes(): name for image, name in zip(faces.images, faces.labels, strict=True)}
    (folder,) = deal_faces(faces, tmp_path / "faces", devices=1, count=60, alpha=None, seed=0)
    for path in folder.rglob("*.png"):
        assert faces.classes[label[np.asarray(Image.open(path)).tobytes()]] == path.parent.name
    read, report = read_folder(folder, Preprocessing(), EMOTIONS_7)
    assert len(read) == 60
    assert not report.left_out


def test_a_small_alpha_gives_devices_different_emotions(tmp_path: Path) -> None:
    faces = draw_faces(210, seed=3, people=3)
    folders = deal_faces(faces, tmp_path / "faces", devices=3, count=70, alpha=0.1, seed=0)
    sizes = [len(pictures(folder)) for folder in folders]
    assert sum(sizes) == 210
    assert max(sizes) > min(sizes)


def test_too_few_faces_or_a_folder_that_is_there_make_nothing(tmp_path: Path) -> None:
    faces = draw_faces(20, seed=4, people=1)
    with pytest.raises(DataError, match="ask for fewer"):
        deal_faces(faces, tmp_path / "faces", devices=3, count=7, alpha=None, seed=0)
    (tmp_path / "faces2").mkdir()
    with pytest.raises(DataError, match="there already"):
        deal_faces(faces, tmp_path / "faces", devices=2, count=7, alpha=None, seed=0)
    assert not (tmp_path / "faces1").exists()


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), 0.0])
def test_shares_follow_from_a_finite_number_above_zero(tmp_path: Path, alpha: float) -> None:
    with pytest.raises(ConfigError, match="--alpha must be a finite number"):
        deal_faces(draw_faces(20, seed=4, people=1), tmp_path / "faces", devices=2, count=7, alpha=alpha, seed=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["/", "", "."])
def test_folders_without_a_name_cannot_be_numbered(folder: str) -> None:
    with pytest.raises(ConfigError, match="FOLDER needs a name"):
        deal_faces(draw_faces(20, seed=4, people=1), Path(folder), devices=2, count=7, alpha=None, seed=0)


def test_the_command_deals_a_folder_of_faces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_folder(tmp_path / "all", 28, people=1, seed=5)
    words = ["fl-sim", "deal", str(tmp_path / "all"), str(tmp_path / "faces"), "--devices", "2", "--count", "14"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        run_command_line(app)
    assert ended.value.code == 0
    said = "".join(capsys.readouterr().out.split())
    assert "14facesin" in said
    assert len(pictures(tmp_path / "faces1")) == len(pictures(tmp_path / "faces2")) == 14
