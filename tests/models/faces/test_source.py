import numpy as np
import pytest

from common.emotions import EMOTIONS_7, EMOTIONS_8
from common.errors import ConfigError, DataError
from models.faces.source import open_faces
from models.preprocess import Preprocessing

from .conftest import face, row

HAPPY, SCORN = [0, 7, 3, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 3, 0, 0, 0, 7, 0, 0]


@pytest.fixture
def both(fer2013, fer2013new):
    table = fer2013([row(3, 0), row(0, 1), row(4, 2, "PublicTest")])
    fer2013new([("Training", HAPPY), ("Training", SCORN), ("PublicTest", HAPPY)])
    return table


def test_a_csv_and_the_folder_that_holds_it_open_alike(both):
    for path in (both, both.parent):
        faces, sentence = open_faces(path, usage="Training")
        assert (faces.classes, faces.labels.tolist()) == (EMOTIONS_7, [3, 0])
        assert sentence == "fer2013.csv (Training): 2 of 2 faces used; nothing left out."


def test_ferplus_labels_come_from_the_file_beside_it(both):
    faces, sentence = open_faces(both.parent, labels="ferplus", usage="Training")
    assert faces.classes == EMOTIONS_8
    np.testing.assert_allclose(faces.targets[0, :3], [0, 0.7, 0.3], rtol=1e-6)
    assert sentence.startswith("fer2013new.csv (Training, soft): 2 of 2")


@pytest.mark.parametrize("labels", ["ferplus-majority", "ferplus-plurality"])
def test_hard_ferplus_labels_have_names_of_their_own(both, labels):
    faces, sentence = open_faces(both, labels=labels)
    assert faces.targets.max(1).tolist() == [1, 1, 1]
    assert labels.removeprefix("ferplus-") in sentence


def test_the_models_classes_set_the_columns_and_leave_out_what_it_does_not_have(both):
    faces, sentence = open_faces(both, labels="ferplus", classes=EMOTIONS_7)
    assert faces.classes == EMOTIONS_7
    assert len(faces) == 2
    assert "2 of 3 faces used; left out: emotion that the model does not have: 1." in sentence
    wide, _ = open_faces(both, classes=EMOTIONS_8)
    assert [EMOTIONS_8[i] for i in wide.labels] == ["happiness", "anger", "sadness"]


def test_faces_have_the_size_that_the_model_wants(both, tmp_path, save):
    big = Preprocessing(size=64)
    faces, _ = open_faces(both, preprocessing=big)
    np.testing.assert_array_equal(faces.images[0], big.whole(face(0)))
    save(tmp_path / "mine" / "anger" / "a.png", 0)
    assert open_faces(tmp_path / "mine", preprocessing=big)[0].images.shape == (1, 64, 64)


def test_a_folder_of_pictures_opens_whole_and_says_that_it_has_no_splits(tmp_path, save):
    save(tmp_path / "happy" / "a.png", 0)
    save(tmp_path / "contempt" / "b.png", 1)
    faces, sentence = open_faces(tmp_path, labels="ferplus")
    assert faces.classes == EMOTIONS_8
    assert sentence == f"{tmp_path}: 2 usable faces (happiness 1, contempt 1); nothing left out."
    faces, sentence = open_faces(tmp_path, usage="PublicTest", classes=EMOTIONS_7)
    assert len(faces) == 1
    assert sentence.endswith("so all of it stands for PublicTest.")


def test_ferplus_without_its_file_says_what_is_missing_and_where_it_comes_from(fer2013):
    with pytest.raises(DataError, match=r"need fer2013new\.csv beside .*microsoft/FERPlus"):
        open_faces(fer2013([row(0, 0)]), labels="ferplus")


def test_the_file_of_votes_in_place_of_the_faces_is_refused(both):
    with pytest.raises(DataError, match=r"so it is not fer2013\.csv"):
        open_faces(both.with_name("fer2013new.csv"))


def test_nothing_there_is_one_sentence_with_the_three_forms(tmp_path):
    with pytest.raises(DataError, match=r"There is no .*give fer2013\.csv, a folder that holds it, or a folder with pictures"):
        open_faces(tmp_path / "nothing")


def test_classes_without_a_single_face_are_an_error(both):
    with pytest.raises(DataError, match="no face of fear, disgust"):
        open_faces(both, classes=("fear", "disgust"))


def test_unknown_labels_and_usage_are_refused_for_every_form(tmp_path, save):
    save(tmp_path / "happy" / "a.png", 0)
    with pytest.raises(ConfigError, match=r"'kaggle'.*ferplus-majority"):
        open_faces(tmp_path, labels="kaggle")
    with pytest.raises(ConfigError, match="'test'"):
        open_faces(tmp_path, usage="test")
