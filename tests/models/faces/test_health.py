"""A folder looked at closely: what is alike, useless or open to others is named, and nothing is changed."""

from io import StringIO
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from common.emotions import EMOTIONS_7
from models.faces.contact_sheet import Layout, Row, contact_sheet, write_sheet
from models.faces.health import Health, check_folder, exposed_in
from models.preprocess import Preprocessing

from .conftest import face


def check(folder: Path) -> Health:
    return check_folder(folder, Preprocessing(), EMOTIONS_7)[0]


@pytest.fixture
def private(tmp_path: Path, save) -> Path:
    """One good face of every emotion, for nobody else's eyes."""
    folder = tmp_path / "my_faces"
    for seed, name in enumerate(EMOTIONS_7):
        save(folder / name / "1.png", seed)
    close(folder)
    return folder


def close(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)


def shown(health: Health) -> str:
    page = StringIO()
    Console(width=120, file=page).print(health)
    return page.getvalue()


def test_a_good_folder_is_clean(private: Path):
    health = check(private)
    assert health.clean
    assert health.imbalance == 1.0
    assert health.advice() == []
    assert "Worth a look" not in shown(health)


def test_the_same_face_saved_again_is_found_although_no_byte_is_equal(private: Path, save):
    save(private / "anger" / "2.jpg", face(0), quality=90)
    save(private / "anger" / "3.png", cv2.resize(face(0), (96, 96), interpolation=cv2.INTER_NEAREST))
    close(private)
    health = check(private)
    assert health.near == (("anger/1.png", "anger/2.jpg", "anger/3.png"),)
    assert health.report.usable == 9
    assert "nearly the same picture (2 too many)" in shown(health)
    assert not health.clean


def test_one_picture_under_two_emotions_is_found_too(private: Path, save):
    save(private / "fear" / "2.png", face(0)[:, ::-1][:, ::-1] // 2 + 60)
    close(private)
    assert check(private).near == (("anger/1.png", "fear/2.png"),)


def test_useless_pictures_are_named_with_the_reason_and_still_counted(private: Path, save):
    save(private / "fear" / "small.png", face(50, 20))
    save(private / "fear" / "dark.png", face(51) // 12)
    save(private / "fear" / "soft.png", cv2.GaussianBlur(cv2.resize(face(52)[:4, :4], (48, 48)), (0, 0), 2))
    close(private)
    health = check(private)
    assert [str(thing) for thing in health.flawed] == [
        "fear/dark.png: too dark",
        "fear/small.png: too small",
        "fear/soft.png: blurred",
    ]
    assert health.report.usable == 10


def test_an_unbalanced_folder_gets_a_word(private: Path, save):
    for seed in range(4):
        save(private / "fear" / f"{seed + 2}.png", 60 + seed)
    close(private)
    health = check(private)
    assert (health.imbalance, health.clean) == (5.0, False)
    assert "fear has 5 faces and anger 1: more of the rare ones help most." in health.advice()


def test_what_others_can_read_is_named_and_what_they_cannot_reach_is_not(private: Path):
    (private / "fear").chmod(0o755)
    (private / "fear" / "1.png").chmod(0o644)
    (private / "anger" / "1.png").chmod(0o644)
    assert exposed_in(private) == []
    private.chmod(0o711)
    assert exposed_in(private) == ["./", "fear/", "fear/1.png"]
    assert "chmod -R go= " in shown(check(private))


def test_the_devices_own_folder_and_the_record_of_consent_are_no_concern(private: Path):
    (private / ".emofl").mkdir(mode=0o755)
    (private / ".capture").mkdir(mode=0o700)
    (private / "consent.json").write_text("{}")
    close(private)
    assert check(private).clean


def test_for_programs_everything_is_there(private: Path, save):
    save(private / "anger" / "2.jpg", face(0), quality=90)
    (private / "fear" / "broken.png").write_text("x")
    facts = check(private).as_json()
    assert facts["counts"]["anger"] == 2
    assert facts["near_duplicates"] == [["anger/1.png", "anger/2.jpg"]]
    assert facts["left_out"] == [{"path": "fear/broken.png", "reason": "broken or cut short", "detail": ""}]
    assert facts["clean"] is False


def test_an_empty_folder_is_no_error_and_gives_an_empty_sheet(tmp_path: Path):
    health, sheet = check_folder(tmp_path, Preprocessing(), EMOTIONS_7)
    assert (health.imbalance, health.clean, sheet.shape[2]) == (None, False, 3)


def test_the_sheet_shows_each_face_in_its_row_and_frames_the_bad_ones(private: Path, save):
    save(private / "anger" / "2.jpg", face(0), quality=90)
    _, plain = check_folder(private, Preprocessing(), EMOTIONS_7)
    tile = plain[:72, 124 : 124 + 72]
    assert (tile[1:4, 10:60] == (200, 120, 0)).all()
    clean_tile = plain[72:144, 124 : 124 + 72]
    expected = cv2.resize(face(EMOTIONS_7.index("disgust")), (72, 72), interpolation=cv2.INTER_CUBIC)
    np.testing.assert_array_equal(clean_tile, np.stack([expected] * 3, axis=2))


def test_the_sheet_shows_no_more_than_so_many_faces_of_an_emotion(private: Path, save, monkeypatch: pytest.MonkeyPatch):
    save(private / "anger" / "2.png", face(7))
    for most, there in ((2, True), (1, False)):
        monkeypatch.setattr("models.faces.health.MOST_TILES", most)
        _, sheet = check_folder(private, Preprocessing(), EMOTIONS_7)
        assert (sheet[:72, 124 + 72 : 124 + 2 * 72].std() > 0) == there


def test_a_sheet_wraps_long_rows():
    layout = Layout(columns=4, tile=20, margin=50)
    sheet = contact_sheet([Row("a", [face(seed) for seed in range(9)]), Row("b", [])], layout, [("note", (1, 2, 3))])
    assert sheet.shape == (3 * 20 + 20 + 26, 130, 3)


def test_a_sheet_is_written_for_its_owner_only(tmp_path: Path):
    write_sheet(tmp_path / "sheet.png", contact_sheet([Row("a", [face(1)])]), mode=0o600)
    assert (tmp_path / "sheet.png").stat().st_mode & 0o777 == 0o600
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[2] == 3
