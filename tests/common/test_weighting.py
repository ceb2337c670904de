import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from common.arrays import Precision, pack, unpack
from common.config import TrainConfig
from common.errors import ReplyError
from common.weighting import WEIGHT, unweigh, uploaded_shapes, weigh

BY_FACES = TrainConfig(weighting="faces", largest_weight=1000)
SHAPES = {"b": (3,), "a": (2, 2)}


def update(value: np.ndarray) -> dict[str, np.ndarray]:
    return {"b": value[:3].astype(np.float32), "a": value[3:].reshape(2, 2).astype(np.float32)}


values = arrays(np.float32, 7, elements=st.floats(-10, 10, width=32))


def mean(sent: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.mean([one[name].astype(np.float64) for one in sent], axis=0) for name in sent[0]}


@given(st.lists(st.tuples(values, st.integers(1, 1000)), min_size=1, max_size=8))
def test_means_of_both_give_the_mean_by_faces(devices: list[tuple[np.ndarray, int]]) -> None:
    found = unweigh(mean([weigh(update(value), faces, BY_FACES) for value, faces in devices]))
    expected = np.average([value for value, _ in devices], axis=0, weights=[faces for _, faces in devices])
    assert list(found) == ["b", "a"]
    assert np.allclose(np.concatenate([found["b"], found["a"].ravel()]), expected, atol=1e-4)


@given(values, st.integers(1, 10**6))
def test_one_device_gets_its_update_back_and_weighs_at_most_one(value: np.ndarray, faces: int) -> None:
    sent = weigh(update(value), faces, BY_FACES)
    assert sent[WEIGHT] == np.float32(min(faces, 1000) / 1000)
    assert np.allclose(unweigh(sent)["a"], update(value)["a"], rtol=1e-5, atol=1e-30)
    assert {name: array.shape for name, array in sent.items()} == uploaded_shapes(SHAPES, BY_FACES)


def test_in_a_mean_by_device_nothing_is_added() -> None:
    given, equal = update(np.ones(7)), TrainConfig()
    assert weigh(given, 5, equal) is given
    assert unweigh(given) is given
    assert uploaded_shapes(SHAPES, equal) == SHAPES


@pytest.mark.parametrize("weight", [0.0, -0.5, 1.1, 1e9, np.nan, np.inf, -np.inf])
def test_what_is_no_weight_is_refused(weight: float) -> None:
    with pytest.raises(ReplyError, match="above 0 and at most 1"):
        unweigh(update(np.ones(7)) | {WEIGHT: np.array([weight], np.float32)})


@pytest.mark.parametrize("precision", ["float32", "float16", "int16", "int8"])
@pytest.mark.parametrize("faces", [1, 3, 20, 999, 1000])
def test_a_weight_that_travels_in_few_bits_is_still_one(precision: Precision, faces: int) -> None:
    sent = weigh(update(np.linspace(-1, 1, 7)), faces, BY_FACES)
    came = unpack(pack(sent, precision), uploaded_shapes(SHAPES, BY_FACES), precision)
    assert came[WEIGHT][0] == pytest.approx(min(faces, 1000) / 1000, rel=2e-3)
    assert np.allclose(unweigh(came)["b"], update(np.linspace(-1, 1, 7))["b"], atol=0.02)
