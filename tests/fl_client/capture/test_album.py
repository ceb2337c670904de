"""The folder: for its owner only, whole after a crash, and never larger than what was asked for."""

import os
import stat
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common import files
from common.emotions import EMOTIONS_8
from common.errors import DataError
from common.files import locked
from fl_client.capture import consent
from fl_client.capture.album import LOCK, Album
from fl_client.capture.forget import forget
from fl_client.capture.review import COLUMNS, Review
from models.faces.folder import SESSION_FOLDER, read_folder
from models.preprocess import Preprocessing

from .conftest import agreed_album, face


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_everything_it_makes_is_for_its_owner_only_whatever_the_umask(faces: Path):
    before = os.umask(0)
    try:
        agreed_album(faces).save("fear", face(1))
    finally:
        os.umask(before)
    for path in (faces, *faces.rglob("*")):
        assert mode(path) == (0o700 if path.is_dir() else 0o600), path


def test_opening_closes_what_others_could_read_and_says_how_much(faces: Path):
    stored = agreed_album(faces).save("fear", face(1))
    stored.path.chmod(0o644)
    faces.chmod(0o755)
    assert Album(faces).tightened == 2
    assert (mode(stored.path), mode(faces)) == (0o600, 0o700)
    assert Album(faces).tightened == 0


def test_pictures_are_numbered_on_and_never_overwritten(faces: Path):
    album = agreed_album(faces)
    names = [album.save("fear", face(seed)).path.name for seed in range(3)]
    album.delete(album.pictures()[1])
    assert [*names, album.save("fear", face(9)).path.name] == ["00001.png", "00002.png", "00003.png", "00004.png"]


def test_a_number_too_long_to_count_on_from_is_passed_over(faces: Path):
    album = agreed_album(faces)
    (faces / "fear").mkdir()
    for name in ("999999999.png", "1000000000.jpg"):
        (faces / "fear" / name).write_bytes(b"somebody's")
    names = [album.save("fear", face(seed)).path.name for seed in range(3)]
    assert names == ["1000000000.png", "1000000001.png", "1000000002.png"]
    moved = album.relabel(album.save("anger", face(4)), "fear")
    assert moved.path.name == "1000000003.png"
    assert (faces / "fear" / "999999999.png").read_bytes() == b"somebody's"
    assert len(list((faces / "fear").iterdir())) == 6


def test_a_picture_is_whole_or_absent_when_the_disk_fails(faces: Path, monkeypatch: pytest.MonkeyPatch):
    album = agreed_album(faces)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        album.save("fear", face(1))
    assert list((faces / "fear").iterdir()) == []


def test_what_a_killed_process_left_half_written_goes_at_the_next_opening(faces: Path):
    agreed_album(faces).save("fear", face(1))
    (faces / "fear" / ".00002.png.abc123").write_bytes(b"half")
    assert Album(faces).counts()["fear"] == 1
    assert [path.name for path in (faces / "fear").iterdir()] == ["00001.png"]


def test_synonyms_count_and_links_do_not(faces: Path, tmp_path: Path):
    Album(faces)
    for name in ("happy", "Happiness"):
        (faces / name).mkdir()
        Image.fromarray(face(len(name))).save(faces / name / "a.jpg")
    (faces / "fear").symlink_to(tmp_path)
    (faces / "happy" / "link.png").symlink_to(faces / "happy" / "a.jpg")
    counts = Album(faces).counts()
    assert (counts["happiness"], counts["fear"]) == (2, 0)


def test_a_file_in_the_folders_place_is_one_sentence(tmp_path: Path):
    (tmp_path / "a").write_text("")
    with pytest.raises(DataError, match="is not a folder"):
        Album(tmp_path / "a")
    with pytest.raises(DataError, match="cannot be used"):
        Album(tmp_path / "b" / "c")


def test_relabelling_moves_the_picture_and_what_is_known_of_it(faces: Path):
    album = agreed_album(faces)
    stored = album.save("fear", face(1))
    moved = album.relabel(stored, "anger")
    assert (moved.name, stored.path.exists()) == ("anger/00001.png", False)
    assert album.nearest("anger", face(1)) == (0, 128)
    assert album.nearest("fear", face(1)) == (128, 0)
    with pytest.raises(DataError, match="is gone"):
        album.relabel(stored, "sadness")


def test_nothing_but_pictures_shows_in_the_clients_report(faces: Path):
    album = agreed_album(faces)
    for seed, emotion in enumerate(EMOTIONS_8):
        album.save(emotion, face(seed))
    read, report = read_folder(faces, Preprocessing(), EMOTIONS_8)
    assert (len(read), report.left_out) == (8, ())


@pytest.fixture
def review(faces: Path) -> Review:
    album = agreed_album(faces)
    for seed in range(COLUMNS + 2):
        album.save("fear" if seed else "anger", face(seed))
    return Review(album)


def test_review_moves_within_the_pictures_only(review: Review):
    for keys, at in (("a", 0), ("d", 1), ("s", 1 + COLUMNS), ("s", 1 + COLUMNS), ("w", 1), ("n", COLUMNS + 1), ("p", 0)):
        review.press(keys)
        assert review.at == at


def test_review_deletes_at_once_and_takes_back(review: Review, faces: Path):
    review.press("d")
    name = review.pictures[1].name
    content = (faces / name).read_bytes()
    assert review.press("x") == f"Deleted {name}; u takes it back."
    assert not (faces / name).exists()
    assert review.press("u") == f"{name} is back."
    assert (faces / name).read_bytes() == content
    assert mode(faces / name) == 0o600
    assert review.pictures[review.at].name == name
    assert review.press("u") == "Nothing was deleted here."


def test_what_is_taken_back_overwrites_nothing_that_has_its_name_now(faces: Path):
    album = agreed_album(faces)
    old = album.save("fear", face(1))
    review, content = Review(album), old.path.read_bytes()
    review.press("x")
    new = album.save("fear", face(2))
    assert new.path == old.path
    kept = new.path.read_bytes()
    assert review.press("u") == "fear/00001.png is back as fear/00002.png."
    assert new.path.read_bytes() == kept
    assert (faces / "fear" / "00002.png").read_bytes() == content
    assert review.pictures[review.at].name == "fear/00002.png"


def test_what_is_taken_back_comes_with_its_folder(faces: Path):
    album = agreed_album(faces)
    (faces / "happy").mkdir()
    Image.fromarray(face(1)).save(faces / "happy" / "a.jpg")
    review = Review(album)
    review.press("x")
    (faces / "happy").rmdir()
    assert review.press("u") == "happy/a.jpg is back."
    assert mode(faces / "happy") == 0o700


def test_a_picture_that_could_not_be_written_again_can_still_be_taken_back(
    review: Review, faces: Path, monkeypatch: pytest.MonkeyPatch
):
    review.press("x")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(files.os, "fsync", fail)
        with pytest.raises(OSError, match="No space"):
            review.press("u")
    assert review.press("u") == "anger/00001.png is back."


def agreed_anew(faces: Path) -> Album:
    """As another terminal does: everything is wiped, and the same person agrees again at once."""
    forget(faces)
    return agreed_album(faces)


def test_what_was_seen_under_a_yes_that_was_taken_back_is_not_stored_under_a_new_one(faces: Path):
    album = agreed_album(faces)
    kept = album.save("fear", face(1))
    other = agreed_anew(faces)
    assert not album.stands()
    for deed in (lambda: album.save("fear", face(3)), lambda: album.relabel(kept, "anger")):
        with pytest.raises(consent.NotGiven, match="takes a yes back"):
            deed()
    assert not list(faces.rglob("*.png"))
    assert other.save("fear", face(2)).path.exists()
    album.meet()
    assert album.save("fear", face(3)).path.exists()


def test_a_yes_beside_the_first_one_is_no_change(faces: Path):
    album = agreed_album(faces)
    consent.record(faces, "Ada")
    assert album.stands()
    assert album.save("fear", face(1)).path.exists()


def test_review_takes_nothing_back_under_a_new_yes(review: Review, faces: Path):
    review.press("x")
    new = agreed_anew(faces).save("anger", face(90))
    content = new.path.read_bytes()
    for key in ("u", "x", "2"):
        with pytest.raises(consent.NotGiven):
            review.press(key)
    review.album.meet()
    assert review.press("u") == "Nothing was deleted here."
    assert new.path.read_bytes() == content
    assert len(list(faces.rglob("*.png"))) == 1


@pytest.mark.parametrize("reopened", [False, True])
def test_after_forgetting_nothing_is_stored_relabelled_or_taken_back(faces: Path, reopened: bool):
    album = agreed_album(faces)
    kept = album.save("fear", face(1))
    album.save("anger", face(2))
    review = Review(album)
    assert review.press("x").startswith("Deleted")
    assert forget(faces).gone
    if reopened:
        Album(faces)
        (faces / "fear").mkdir()
        (faces / "anger").mkdir()
    for deed in (lambda: album.save("fear", face(3)), lambda: album.relabel(kept, "anger"), lambda: review.press("u")):
        with pytest.raises(consent.NotGiven, match="takes a yes back"):
            deed()
    album.delete(kept)
    assert not list(faces.rglob("*.png"))


def test_forgetting_waits_for_a_picture_that_is_being_written(faces: Path):
    album = agreed_album(faces)
    album.save("fear", face(1))
    writer = threading.Thread(target=lambda: forget(faces))
    with locked(faces / SESSION_FOLDER / LOCK):
        writer.start()
        writer.join(0.3)
        assert writer.is_alive()
        assert not consent.is_given(faces)
        assert len(album.pictures()) == 1
    writer.join(10)
    assert not faces.exists()


def test_review_relabels_and_draws_every_state(review: Review, faces: Path):
    assert review.canvas().shape == review.canvas("said").shape
    assert review.press("8") == "anger/00001.png is now contempt/00001.png."
    while review.pictures:
        review.press("x")
    assert review.press("x") == "There is no picture."
    assert review.press("3") == ""
    assert review.canvas().std() > 1
    assert not list(faces.rglob("*.png"))


def test_the_picture_under_the_cursor_is_framed(review: Review):
    first = review.canvas()
    review.press("d")
    changed = np.argwhere((first != review.canvas()).any(axis=2))
    assert changed.size
    assert changed[:, 1].max() < 2 * 96 + 400
