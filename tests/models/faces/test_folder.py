import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from common.emotions import EMOTIONS_7, EMOTIONS_8
from common.errors import DataError
from models.faces.folder import OWN_FOLDER, read_folder, scan_folder
from models.faces.picture import LONGEST_SIDE, SHORTEST_SIDE
from models.faces.report import Reason
from models.preprocess import Preprocessing

from .conftest import face

PLAIN = Preprocessing()


def read(folder: Path, classes=EMOTIONS_7, preprocessing=PLAIN):
    return read_folder(folder, preprocessing, classes)


def left_out(folder: Path, classes=EMOTIONS_7) -> dict[str, tuple[Reason, str]]:
    _, report = scan_folder(folder, PLAIN, classes)
    return {thing.path: (thing.reason, thing.detail) for thing in report.left_out}


def png_header(width: int, height: int) -> bytes:
    """A png that claims a size and holds next to nothing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    size = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


def test_pictures_come_back_by_emotion_in_the_order_of_their_paths(tmp_path, save):
    for seed, name in enumerate(["sadness/2.png", "anger/b.png", "sadness/10.png", "anger/a.png"]):
        save(tmp_path / name, seed)
    faces, report = read(tmp_path)
    assert [faces.classes[i] for i in faces.labels] == ["anger", "anger", "sadness", "sadness"]
    np.testing.assert_array_equal(faces.images, [face(3), face(1), face(2), face(0)])
    assert report.left_out == ()
    assert report.sentence == f"{tmp_path}: 4 usable faces (anger 2, sadness 2); nothing left out."


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.jpeg", "a.bmp", "a.webp", "a.PNG", "a.JpG", "a.WEBP"])
def test_every_picture_format_is_read_whatever_the_case_of_its_ending(tmp_path, save, name):
    smooth = np.add.outer(np.arange(48), np.arange(48)).astype(np.uint8) * 2
    save(tmp_path / "anger" / name, smooth)
    faces, _ = read(tmp_path)
    assert np.abs(faces.images[0].astype(int) - smooth).max() <= 6


def test_the_content_decides_the_format_and_not_the_ending(tmp_path, save):
    save(tmp_path / "anger" / "a.jpg", 0, format="PNG")
    np.testing.assert_array_equal(read(tmp_path)[0].images[0], face(0))


def test_synonyms_of_one_emotion_are_read_together(tmp_path, save):
    for seed, folder in enumerate(["Happy", "happiness", "3_joy", "ANGRY"]):
        save(tmp_path / folder / "a.png", seed)
    faces, report = read(tmp_path)
    assert report.used[EMOTIONS_7.index("happiness")] == ("happiness", 3)
    assert faces.counts()["anger"] == 1
    assert not report.left_out


def test_pictures_are_prepared_as_the_model_says(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8)
    (tmp_path / "fear").mkdir()
    Image.fromarray(colour[:, :, ::-1]).save(tmp_path / "fear" / "a.png")
    wide = Preprocessing(size=64, crop_margin=0.3)
    faces, _ = read(tmp_path, preprocessing=wide)
    np.testing.assert_array_equal(faces.images[0], wide.whole(colour))


def test_a_tall_picture_read_in_bands_equals_the_picture_read_whole(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (1100, 60, 3), dtype=np.uint8)
    (tmp_path / "fear").mkdir()
    Image.fromarray(colour[:, :, ::-1]).save(tmp_path / "fear" / "a.png")
    np.testing.assert_array_equal(read(tmp_path)[0].images[0], PLAIN.whole(colour))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_a_rotated_photograph_stands_upright(tmp_path, orientation, ending):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "anger" / f"a.{ending}"
    path.parent.mkdir()
    lossless = {"lossless": True} if ending == "webp" else {}
    Image.fromarray(face(1, 48)).convert("RGB").save(path, exif=exif, **lossless)
    with Image.open(path) as stored:
        upright = np.asarray(ImageOps.exif_transpose(stored))[:, :, ::-1]
    np.testing.assert_array_equal(read(tmp_path)[0].images[0], PLAIN.whole(upright))


def test_damaged_exif_does_not_cost_the_picture(tmp_path, save):
    save(tmp_path / "anger" / "a.png", 1, exif=b"Exif\0\0II*\0\xff\xff\xff\xff\x01\x02")
    np.testing.assert_array_equal(read(tmp_path)[0].images[0], face(1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_pixel_format_gives_the_same_greys(tmp_path, mode):
    grey = np.where(face(2) > 127, 255, 0).astype(np.uint8)
    grey[0, 0] = 0
    image = Image.fromarray(grey)
    image = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    (tmp_path / "anger").mkdir()
    image.save(tmp_path / "anger" / "a.png")
    np.testing.assert_array_equal(read(tmp_path)[0].images[0], grey)


def test_sixteen_bits_are_scaled_and_not_cut(tmp_path):
    (tmp_path / "anger").mkdir()
    Image.fromarray(face(2).astype(np.uint16) * 256 + 3).save(tmp_path / "anger" / "a.png")
    np.testing.assert_array_equal(read(tmp_path)[0].images[0], face(2))


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "webp"])
def test_a_picture_that_is_cut_short_is_named(tmp_path, save, ending):
    whole = save(tmp_path / "anger" / f"a.{ending}", 0).read_bytes()
    (tmp_path / "anger" / f"a.{ending}").write_bytes(whole[: len(whole) // 2])
    assert left_out(tmp_path) == {f"anger/a.{ending}": (Reason.BROKEN, "")}


@pytest.mark.parametrize("cut", [4, 20, 40])
def test_a_picture_with_damaged_bytes_is_named(tmp_path, save, cut):
    path = save(tmp_path / "anger" / "a.png", 0)
    content = bytearray(path.read_bytes())
    content[cut : cut + 12] = bytes(12)
    path.write_bytes(content)
    assert left_out(tmp_path)["anger/a.png"][0] == Reason.BROKEN


def test_what_is_no_picture_inside_is_named(tmp_path):
    (tmp_path / "anger").mkdir()
    (tmp_path / "anger" / "a.png").write_text("not a picture")
    (tmp_path / "anger" / "b.jpg").write_bytes(b"")
    (tmp_path / "anger" / "c.txt").write_text("notes")
    (tmp_path / "anger" / "d.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "anger" / "png").write_bytes(b"")
    Image.fromarray(face(0)).save(tmp_path / "anger" / "e.png", format="GIF")
    assert left_out(tmp_path) == {
        "anger/a.png": (Reason.BROKEN, ""),
        "anger/b.jpg": (Reason.EMPTY, ""),
        "anger/c.txt": (Reason.NOT_AN_IMAGE, ""),
        "anger/d.heic": (Reason.NOT_AN_IMAGE, ""),
        "anger/e.png": (Reason.BROKEN, ""),
        "anger/png": (Reason.NOT_AN_IMAGE, ""),
    }


def test_pictures_below_sixteen_pixels_or_of_one_colour_are_named(tmp_path, save):
    save(tmp_path / "anger" / "enough.png", face(0)[:SHORTEST_SIDE, :SHORTEST_SIDE])
    save(tmp_path / "anger" / "low.png", face(0)[: SHORTEST_SIDE - 1])
    save(tmp_path / "anger" / "grey.png", np.full((48, 48), 90, dtype=np.uint8))
    assert left_out(tmp_path) == {
        "anger/low.png": (Reason.TOO_SMALL, "48x15, at least 16x16 is needed"),
        "anger/grey.png": (Reason.BLANK, ""),
    }


@pytest.mark.parametrize("size", [(LONGEST_SIDE + 1, 20), (20, LONGEST_SIDE + 1), (9_400, 9_400), (60_000, 60_000)])
def test_a_decompression_bomb_is_named_and_never_decoded(tmp_path, monkeypatch, size):
    (tmp_path / "anger").mkdir()
    (tmp_path / "anger" / "bomb.png").write_bytes(png_header(*size))
    monkeypatch.setattr("models.faces.picture._grey", lambda *_: pytest.fail("decoded"))
    (reason, detail) = left_out(tmp_path)["anger/bomb.png"]
    assert reason == Reason.TOO_LARGE
    assert "8,192 pixels" in detail


def test_a_huge_file_is_named_and_never_read(tmp_path, monkeypatch):
    (tmp_path / "anger").mkdir()
    with (tmp_path / "anger" / "huge.png").open("wb") as file:
        file.truncate(300 * 2**20)
    monkeypatch.setattr("models.faces.picture.hashlib.file_digest", lambda *_: pytest.fail("read"))
    assert left_out(tmp_path) == {"anger/huge.png": (Reason.TOO_LARGE, "300 MiB")}


def test_copies_of_a_file_count_once_and_the_first_path_stays(tmp_path, save):
    for name in ("angry/z.png", "anger/b.png", "anger/a.png"):
        save(tmp_path / name, 0)
    faces, report = read(tmp_path)
    assert len(faces) == 1
    assert [(t.path, t.reason, t.detail) for t in report.left_out] == [
        ("anger/b.png", Reason.COPY, "same as anger/a.png"),
        ("angry/z.png", Reason.COPY, "same as anger/a.png"),
    ]


def test_copies_under_different_emotions_are_all_left_out(tmp_path, save):
    for name in ("anger/a.png", "anger/b.png", "fear/c.png"):
        save(tmp_path / name, 0)
    save(tmp_path / "fear/d.png", 1)
    assert left_out(tmp_path) == {
        "anger/a.png": (Reason.CONTRADICTION, "also fear/c.png"),
        "anger/b.png": (Reason.CONTRADICTION, "also fear/c.png"),
        "fear/c.png": (Reason.CONTRADICTION, "also anger/a.png"),
    }


def test_folders_and_files_outside_the_layout_are_named(tmp_path, save):
    save(tmp_path / "anger" / "a.png", 0)
    save(tmp_path / "anger" / "monday" / "deep" / "b.png", 1)
    save(tmp_path / "confused" / "c.png", 2)
    save(tmp_path / "confused" / "more" / "d.png", 3)
    save(tmp_path / "contempt" / "e.png", 4)
    save(tmp_path / "f.png", 5)
    assert left_out(tmp_path) == {
        "anger/monday/": (Reason.NESTED_FOLDER, "1 file"),
        "confused/": (Reason.UNKNOWN_FOLDER, "2 files"),
        "contempt/": (Reason.UNUSED_EMOTION, "1 file"),
        "f.png": (Reason.NO_EMOTION, ""),
    }
    assert "contempt/" not in left_out(tmp_path, EMOTIONS_8)


def test_what_the_client_keeps_beside_the_faces_is_neither_read_nor_named(tmp_path, save):
    for seed, name in enumerate(["anger/a.png", f"{OWN_FOLDER}/registry/b.png", f"anger/{OWN_FOLDER}/c.png"]):
        save(tmp_path / name, seed)
    faces, _ = read(tmp_path)
    assert len(faces) == 1
    assert left_out(tmp_path) == {f"anger/{OWN_FOLDER}/": (Reason.HIDDEN, "1 file")}


def test_hidden_things_are_named_and_not_read(tmp_path, save):
    for seed, name in enumerate([".thumbs/a.png", "anger/.b.png", "anger/.cache/c.png", "anger/d.png"]):
        save(tmp_path / name, seed)
    (tmp_path / ".DS_Store").write_bytes(b"x")
    faces, _ = read(tmp_path)
    np.testing.assert_array_equal(faces.images, [face(3)])
    assert {path: reason for path, (reason, _) in left_out(tmp_path).items()} == dict.fromkeys(
        [".DS_Store", ".thumbs/", "anger/.b.png", "anger/.cache/"], Reason.HIDDEN
    )


def test_links_are_named_and_never_followed_but_the_folder_itself_may_be_one(tmp_path, save):
    outside = save(tmp_path / "outside" / "a.png", 0)
    save(tmp_path / "faces" / "anger" / "b.png", 1)
    (tmp_path / "faces" / "anger" / "link.png").symlink_to(outside)
    (tmp_path / "faces" / "anger" / "loop").symlink_to(tmp_path / "faces")
    (tmp_path / "faces" / "fear").symlink_to(tmp_path / "outside")
    (tmp_path / "mine").symlink_to(tmp_path / "faces")
    faces, _ = read(tmp_path / "mine")
    np.testing.assert_array_equal(faces.images, [face(1)])
    assert left_out(tmp_path / "mine") == dict.fromkeys(["anger/link.png", "anger/loop", "fear"], (Reason.LINK, ""))


def test_a_pipe_named_as_a_picture_does_not_hang(tmp_path):
    (tmp_path / "anger").mkdir()
    os.mkfifo(tmp_path / "anger" / "a.png")
    assert left_out(tmp_path) == {"anger/a.png": (Reason.NOT_AN_IMAGE, "")}


def test_what_cannot_be_opened_is_named(tmp_path, save, monkeypatch):
    save(tmp_path / "anger" / "a.png", 0)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert left_out(tmp_path) == {"anger/a.png": (Reason.UNREADABLE, "Permission denied")}


def test_names_that_would_garble_a_terminal_are_shown_harmless(tmp_path):
    (tmp_path / "anger").mkdir()
    (tmp_path / "anger" / "\x1b[31mred.txt").write_text("")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/anger/\xff.txt")).write_text("")
    assert set(left_out(tmp_path)) == {"anger/�[31mred.txt", "anger/�.txt"}


def test_no_usable_face_is_an_error_that_holds_the_report(tmp_path):
    (tmp_path / "anger").mkdir()
    (tmp_path / "anger" / "a.png").write_text("no")
    (tmp_path / "confused").mkdir()
    _, report = scan_folder(tmp_path, PLAIN, EMOTIONS_7)
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    assert report.sentence in str(caught.value)
    assert report.sentence == (
        f"{tmp_path}: 0 usable faces; left out: broken or cut short: 1 (anger/a.png); "
        "folder that names no emotion: 1 (confused/: 0 files)."
    )


def test_a_missing_folder_and_a_file_in_its_place_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is missing: give a folder"):
        read(tmp_path / "nothing")
    with pytest.raises(DataError, match="is not a folder: give a folder"):
        read(tmp_path / "file")


def test_every_entry_is_used_or_named(tmp_path, save):
    """Nothing is dropped in silence: usable faces and reported paths add up to what lies in the emotion's folder."""
    save(tmp_path / "anger" / "good.png", 0)
    save(tmp_path / "anger" / "copy.png", 0)
    save(tmp_path / "anger" / "small.png", face(0)[:4])
    save(tmp_path / "anger" / "nested" / "a.png", 1)
    for name in (".hidden", "text.txt", "broken.png", "Thumbs.db"):
        (tmp_path / "anger" / name).write_text("x" + name)
    (tmp_path / "anger" / "link.png").symlink_to("good.png")
    faces, report = read(tmp_path)
    assert len(faces) + len(report.left_out) == len(list((tmp_path / "anger").iterdir()))


@pytest.mark.slow
def test_the_real_faces_as_a_folder_are_read_without_loss(tmp_path):
    from tests.realdata import export

    folder = export(tmp_path / "faces", "folders", "--split", "test")
    faces, report = read(folder, EMOTIONS_8)
    copies = sum(thing.reason in (Reason.COPY, Reason.CONTRADICTION) for thing in report.left_out)
    assert len(faces) + copies == 3_546
    assert copies == len(report.left_out)
