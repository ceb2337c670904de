import numpy as np
import pytest

from common.emotions import EMOTIONS_7
from common.errors import ConfigError, DataError
from models.faces.fer2013 import load_fer2013, read_fer2013

from .conftest import face, line, row


def test_rows_come_back_in_file_order_with_their_labels(fer2013):
    rows = [row(label, seed=label) for label in (3, 0, 6, 1, 5, 2, 4)]
    faces = load_fer2013(fer2013(rows))
    assert faces.classes == EMOTIONS_7
    assert faces.labels.tolist() == [3, 0, 6, 1, 5, 2, 4]
    for image, (_, expected, _) in zip(faces.images, rows, strict=True):
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ("usage", "labels"), [("Training", [0, 4]), ("PublicTest", [1, 2]), ("PrivateTest", [3]), (None, [0, 1, 2, 3, 4])]
)
def test_a_usage_selects_its_rows_and_none_selects_all(fer2013, usage, labels):
    usages = ("Training", "PublicTest", "PublicTest", "PrivateTest", "Training")
    faces = load_fer2013(fer2013([row(i, i, u) for i, u in enumerate(usages)]), usage)
    assert faces.labels.tolist() == labels
    np.testing.assert_array_equal(faces.images[0], face(labels[0]))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_other_line_ends_column_orders_quotes_and_blank_lines_are_the_same_file(fer2013, end):
    numbers = " ".join(map(str, face(1).ravel()))
    faces = load_fer2013(fer2013([f' 3, PublicTest, "{numbers}"', ""], "\ufeffemotion, Usage, pixels", end), "PublicTest")
    assert faces.labels.tolist() == [3]
    np.testing.assert_array_equal(faces.images[0], face(1))


def test_black_rows_are_left_out_and_counted(fer2013):
    black = np.zeros((48, 48), dtype=np.uint8)
    nearly = black.copy()
    nearly[47, 47] = 1
    faces, report = read_fer2013(fer2013([(6, black, "Training"), row(2, 1), (4, nearly, "Training"), (6, black, "PublicTest")]))
    assert faces.labels.tolist() == [2, 4]
    assert (report.rows, report.used) == (4, 2)
    assert report.sentence == "fer2013.csv (all splits): 2 of 4 faces used; left out: all black: 2."


def test_a_report_says_when_nothing_was_left_out(fer2013):
    _, report = read_fer2013(fer2013([row(2, 1)]), "Training")
    assert report.sentence == "fer2013.csv (Training): 1 of 1 faces used; nothing left out."


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (line(0, face(0)[:47], "Training"), "line 3: 2,304 pixels expected (48x48), 2,256 found"),
        (line(0, "", "Training"), "line 3: 2,304 pixels expected (48x48), 0 found"),
        (line(0, "1 " * 2304 + "1", "Training"), "line 3: 2,304 pixels expected (48x48), 2,305 found"),
        (line(0, "1 " * 2303 + "256", "Training"), "line 3: a pixel must be 0 to 255, but one is 256"),
        (line(0, "1 " * 2303 + "-1", "Training"), "line 3: a pixel must be 0 to 255, but one is -1"),
        (line(0, "1 " * 2303 + "65546", "Training"), "line 3: a pixel must be 0 to 255, but one is 65546"),
        (line(0, "1 " * 2303 + "x", "Training"), "line 3: the pixels must be whole numbers"),
        (line(0, "1 " * 2303 + "0.5", "Training"), "line 3: the pixels must be whole numbers"),
        (line(7, face(0), "Training"), "line 3: the label must be 0 to 6, not '7'"),
        (line("00009", face(0), "Training"), "line 3: the label must be 0 to 6, not '00009'"),
        (line(-1, face(0), "Training"), "line 3: the label must be 0 to 6, not '-1'"),
        (line("happy", face(0), "Training"), "line 3: the label must be 0 to 6, not 'happy'"),
        (line(0, face(0), "Test"), "line 3: unknown usage 'Test'; Training, PublicTest, PrivateTest are known"),
        ("0,1 2 3", "line 3: 3 fields expected, 2 found"),
        (line(0, face(0), "Training") + ",1", "line 3: 3 fields expected, 4 found"),
        (line(0, "1 " * 10**6, "Training"), "line 3: 3 fields expected, 2 found"),
    ],
)
def test_a_malformed_row_is_named_with_its_line(fer2013, bad, says):
    with pytest.raises(DataError) as caught:
        load_fer2013(fer2013([row(0, 0), bad, row(1, 1)]))
    assert says in str(caught.value)


@pytest.mark.parametrize("header", ["emotion,pixels", "label,pixels,Usage", "emotion,pixels,Usage,more", "", "0,1 2 3,Training"])
def test_another_header_is_refused_with_the_one_expected(fer2013, header):
    with pytest.raises(DataError, match=r"header emotion,pixels,Usage.*Kaggle"):
        load_fer2013(fer2013([row(0, 0)], header))


def test_a_missing_file_is_one_sentence_that_says_where_to_get_it(tmp_path):
    with pytest.raises(DataError, match=r"There is no file .*nothing.csv.*Kaggle"):
        load_fer2013(tmp_path / "nothing.csv")


def test_a_folder_in_place_of_the_file_is_refused(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        load_fer2013(tmp_path)


def test_a_file_without_faces_of_the_usage_is_refused(fer2013):
    with pytest.raises(DataError, match="no rows of PublicTest"):
        load_fer2013(fer2013([row(0, 0)]), "PublicTest")
    with pytest.raises(DataError, match="no rows below its header"):
        load_fer2013(fer2013([]))
    with pytest.raises(DataError, match=r"no usable face.*all black: 1"):
        load_fer2013(fer2013([(0, np.zeros((48, 48), dtype=np.uint8), "Training")]))


def test_an_unknown_usage_is_refused_before_the_file_is_opened(tmp_path):
    with pytest.raises(ConfigError, match=r"'Test'.*PrivateTest"):
        load_fer2013(tmp_path / "nothing.csv", "Test")


@pytest.mark.slow
def test_the_official_file_gives_every_face_that_is_not_black(official_csvs):
    faces, report = read_fer2013(official_csvs / "fer2013.csv")
    assert (report.rows, len(faces)) == (35_887, 35_714)
    assert report.left_out == (("all black", 173),)
    tested, report = read_fer2013(official_csvs / "fer2013.csv", "PrivateTest")
    assert (report.rows, len(tested)) == (3_589, 3_574)
    np.testing.assert_array_equal(tested.images, faces.images[-3_574:])
