import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.emotions import EMOTIONS_7, EMOTIONS_8
from common.errors import DataError
from models.faces.faceset import FaceSet, one_hot


def some(targets: np.ndarray, classes: tuple[str, ...]) -> FaceSet:
    images = np.arange(len(targets), dtype=np.uint8)[:, None, None] + np.zeros((1, 2, 2), dtype=np.uint8)
    return FaceSet(images, targets.astype(np.float32), classes, np.arange(len(targets), dtype=np.int32))


def test_other_classes_move_the_columns_by_name():
    faces = some(one_hot(np.arange(7), 7), EMOTIONS_7).with_classes(EMOTIONS_8)
    assert [faces.classes[i] for i in faces.labels] == list(EMOTIONS_7)
    assert (faces.targets[:, EMOTIONS_8.index("contempt")] == 0).all()


def test_faces_of_a_missing_class_are_left_out_and_the_weight_of_the_others_is_shared_out():
    targets = np.array([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7], [0.2, 0.5, 0.3]])
    faces = some(targets, ("anger", "fear", "contempt")).with_classes(("fear", "anger"))
    np.testing.assert_allclose(faces.targets, [[1 / 3, 2 / 3], [5 / 7, 2 / 7]], rtol=1e-6)
    assert faces.images[:, 0, 0].tolist() == [0, 2]
    assert faces.people.tolist() == [0, 2]


@given(st.permutations(EMOTIONS_8), st.integers(0, 2**32))
def test_a_permutation_of_the_classes_can_be_undone(order, seed):
    faces = some(np.random.default_rng(seed).dirichlet(np.ones(8), 5), EMOTIONS_8)
    back = faces.with_classes(tuple(order)).with_classes(EMOTIONS_8)
    np.testing.assert_allclose(back.targets, faces.targets, rtol=1e-5)
    np.testing.assert_array_equal(back.images, faces.images)


def test_taking_rows_keeps_everything_of_each_face():
    faces = some(one_hot(np.array([0, 1, 2]), 7), EMOTIONS_7).take([2, 0])
    assert faces.labels.tolist() == faces.people.tolist() == faces.images[:, 0, 0].tolist() == [2, 0]


@pytest.mark.parametrize(
    ("images", "targets", "classes", "says"),
    [
        (np.zeros((1, 4, 5), np.uint8), [[1.0]], ("anger",), "Faces must be"),
        (np.zeros((1, 4, 4), np.float32), [[1.0]], ("anger",), "Faces must be"),
        (np.zeros((1, 4, 4), np.uint8), [[1.0, 0.0]], ("anger",), "Labels must be"),
        (np.zeros((1, 4, 4), np.uint8), [[1.0]], ("boredom",), "Unknown emotion names: boredom"),
        (np.zeros((1, 4, 4), np.uint8), [[0.5]], ("anger",), "must sum to 1"),
    ],
)
def test_malformed_faces_are_refused(images, targets, classes, says):
    with pytest.raises(DataError, match=says):
        FaceSet(images, np.array(targets, dtype=np.float32), classes)
