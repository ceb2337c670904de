"""The embedded data set is reproducible, balanced, learnable, and its emotions show in the face alone."""

import numpy as np
import pytest

from common.emotions import EMOTIONS_7, EMOTIONS_8
from common.errors import ConfigError
from models.faces.faceset import FaceSet
from simulation.synthetic_faces import Conditions, draw_faces
from tests.simulation.probe import edges, ridge_accuracy

CHANCE = 1 / 7
STEADY = Conditions(yaw=0, pitch=0, roll=0, shift=0, scale=0, blur=0, noise=0)


@pytest.fixture(scope="module")
def train() -> FaceSet:
    return draw_faces(980, seed=1, people=70)


@pytest.fixture(scope="module")
def test() -> FaceSet:
    return draw_faces(280, seed=2, people=40)


def test_the_same_seed_draws_the_same_faces_and_another_seed_other_ones() -> None:
    first, again, other = (draw_faces(10, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first.images, again.images)
    assert np.array_equal(first.targets, again.targets)
    assert not (first.images == other.images).all(axis=(1, 2)).any()


def test_a_longer_set_starts_with_the_shorter_one() -> None:
    short, long = draw_faces(20, seed=3, people=9), draw_faces(140, seed=3, people=9)
    assert np.array_equal(short.images, long.images[:20])
    assert np.array_equal(short.labels, long.labels[:20])
    assert np.array_equal(short.people, long.people[:20])


def test_no_two_faces_are_the_same(train: FaceSet) -> None:
    assert len({image.tobytes() for image in train.images}) == len(train)


def test_shapes_classes_and_sizes_are_as_asked() -> None:
    faces = draw_faces(9, seed=0, size=64, people=2, classes=EMOTIONS_8)
    assert faces.images.shape == (9, 64, 64)
    assert faces.classes == EMOTIONS_8
    assert faces.people.dtype == np.int32
    assert len(draw_faces(0, seed=0)) == 0


def test_emotions_and_people_are_spread_evenly_and_apart(train: FaceSet) -> None:
    assert set(train.counts().values()) == {140}
    assert set(np.bincount(train.people)) == {14}
    table = np.zeros((70, 7))
    np.add.at(table, (train.people, train.labels), 1)
    chi_square = ((table - 2) ** 2 / 2).sum()
    assert chi_square < 69 * 6 + 4 * np.sqrt(2 * 69 * 6)
    assert (table > 0).sum() > 350


def test_one_person_looks_alike_and_two_people_do_not() -> None:
    faces = draw_faces(160, seed=5, people=8, conditions=STEADY)
    flat = faces.images.reshape(len(faces), -1).astype(np.float64)
    flat = (flat - flat.mean(1, keepdims=True)) / flat.std(1, keepdims=True)
    means = np.stack([flat[:120][faces.people[:120] == person].mean(0) for person in range(8)])
    guessed = (flat[120:] @ means.T).argmax(1)
    assert (guessed == faces.people[120:]).mean() > 0.45


def test_each_emotion_is_drawn_with_its_own_muscles() -> None:
    """On steady faces, a smile's corners, an open mouth and wide eyes show as a difference of the class means."""
    faces = draw_faces(210, seed=6, people=30, conditions=STEADY)
    mean = {name: faces.images[faces.labels == k].mean(0) for k, name in enumerate(EMOTIONS_7)}
    mouth = (slice(38, 45), slice(20, 28))
    assert mean["surprise"][mouth].mean() < mean["neutral"][mouth].mean() - 15
    between_brows = (slice(9, 14), slice(20, 28))
    assert mean["anger"][between_brows].mean() < mean["neutral"][between_brows].mean() - 8


def test_faces_of_unseen_people_are_learnable_but_not_trivial(train: FaceSet, test: FaceSet) -> None:
    accuracy = ridge_accuracy(edges(train.images), train.labels, edges(test.images), test.labels)
    assert 0.45 < accuracy < 0.95


def test_light_and_background_do_not_tell_the_emotion(train: FaceSet) -> None:
    """One-way analysis of variance of the corners' brightness: F stays near 1 (above 4: p < 0.001)."""
    images, labels = train.images.astype(np.float64), train.labels
    for rows, columns in ((slice(6), slice(6)), (slice(6), slice(-6, None)), (slice(-6, None), slice(None))):
        light = images[:, rows, columns].mean((1, 2))
        means = np.array([light[labels == label].mean() for label in range(7)])
        between = (np.bincount(labels) * (means - light.mean()) ** 2).sum() / 6
        within = ((light - means[labels]) ** 2).sum() / (len(light) - 7)
        assert between / within < 4


def test_who_it_is_does_not_tell_the_emotion(train: FaceSet) -> None:
    half = len(train) // 2
    who = np.eye(70)[train.people]
    assert ridge_accuracy(who[:half], train.labels[:half], who[half:], train.labels[half:]) < CHANCE + 0.06


@pytest.mark.parametrize(
    "wrong",
    [
        {"count": -1},
        {"seed": -1},
        {"size": 8},
        {"people": 0},
        {"classes": ()},
        {"classes": ("joy",)},
        {"classes": ("fear", "fear")},
    ],
)
def test_a_wrong_argument_is_one_clear_sentence(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"must be .*\.$"):
        draw_faces(**({"count": 1, "seed": 0} | wrong))
