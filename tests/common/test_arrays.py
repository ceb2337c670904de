import json
import secrets

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save

from common.arrays import Arrays, flatten, largest_packed, pack, unflatten, unpack
from common.config import Precision
from common.errors import ReplyError

NUMBERS = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5), elements=st.floats(-1e4, 1e4, width=32)
)
NAMES = st.text("abc.xyz_019", min_size=1, max_size=8).filter(lambda name: name != "scales")
MODELS = st.dictionaries(NAMES, NUMBERS, max_size=4)


def shapes_of(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    return {name: value.shape for name, value in arrays.items()}


@given(MODELS)
def test_a_flat_vector_goes_back_into_the_same_arrays(arrays: Arrays) -> None:
    again = unflatten(flatten(arrays), shapes_of(arrays))
    assert list(again) == list(arrays)
    assert all(np.array_equal(again[name], value) for name, value in arrays.items())


@given(MODELS)
def test_a_flat_vector_does_not_depend_on_the_order_of_the_arrays(arrays: Arrays) -> None:
    assert np.array_equal(flatten(arrays), flatten(dict(reversed(arrays.items()))))


@given(MODELS)
def test_float32_arrays_come_back_exactly(arrays: Arrays) -> None:
    again = unpack(pack(arrays), shapes_of(arrays))
    assert set(again) == set(arrays)
    assert all(np.array_equal(again[name], value) for name, value in arrays.items())


@given(MODELS)
@settings(max_examples=50)
def test_float16_values_become_one_of_their_two_neighbours(arrays: Arrays) -> None:
    again = unpack(pack(arrays, "float16"), shapes_of(arrays), "float16")
    for name, value in arrays.items():
        down, up = (np.nextafter(value.astype(np.float16), np.float16(end)).astype(np.float32) for end in (-np.inf, np.inf))
        assert ((again[name] >= down) & (again[name] <= up)).all()
        exact = value.astype(np.float16).astype(np.float32) == value
        assert np.array_equal(again[name][exact], value[exact])


@given(MODELS)
@settings(max_examples=50)
def test_int8_values_are_off_by_less_than_a_127th_of_the_largest(arrays: Arrays) -> None:
    again = unpack(pack(arrays, "int8"), shapes_of(arrays), "int8")
    for name, value in arrays.items():
        step = np.abs(value).max(initial=0.0) / 127
        assert (np.abs(again[name] - value) <= step * (1 + 1e-4) + 1e-37).all()


@pytest.mark.parametrize("precision", ["float16", "int16", "int8"])
def test_rounding_leaves_the_mean_where_it_is(precision: Precision) -> None:
    value = {"w": np.array([0.3001, -0.70013, 1.0, 1e-3], np.float32)}
    found = np.mean(
        [unpack(pack(value, precision), shapes_of(value), precision)["w"] for _ in range(4000)], axis=0, dtype=np.float64
    )
    spacing = {"float16": np.spacing(value["w"].astype(np.float16)), "int16": 1 / 32767, "int8": 1 / 127}[precision]
    assert (np.abs(found - value["w"]) < 5 * np.abs(np.float64(spacing)) / 2 / np.sqrt(4000)).all()


def test_what_float16_cannot_hold_becomes_its_largest() -> None:
    value = {"w": np.array([1e6, -1e6], np.float32)}
    assert unpack(pack(value, "float16"), precision="float16")["w"].tolist() == [65504.0, -65504.0]


@pytest.mark.parametrize(("precision", "each"), [("float32", 4), ("float16", 2), ("int16", 2), ("int8", 1)])
def test_fewer_bits_are_fewer_bytes(precision: Precision, each: int) -> None:
    arrays = {"w": np.ones(100_000, np.float32), "b": np.ones(10, np.float32)}
    size = len(pack(arrays, precision))
    assert each * 100_010 <= size <= each * 100_010 + 300
    assert size <= largest_packed(shapes_of(arrays), precision)


SHAPES = {"w": (2, 3), "b": (3,)}
GOOD: dict[str, np.ndarray] = {"w": np.ones((2, 3), np.float32), "b": np.ones(3, np.float32)}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 8,
        b"\xff" * 64,
        save(GOOD)[:-1],
        save(GOOD) + b"\x00",
        save({"w": GOOD["w"]}),
        save(GOOD | {"x": np.ones(1, np.float32)}),
        save(GOOD | {"w": np.ones((3, 2), np.float32)}),
        save(GOOD | {"w": np.ones((2, 3), np.float64)}),
        save(GOOD | {"w": np.ones((2, 3), np.float16)}),
        save(GOOD) + bytes(2**20),
    ],
)
def test_what_is_not_the_arrays_that_were_asked_for_is_refused(content: bytes) -> None:
    with pytest.raises(ReplyError):
        unpack(content, SHAPES)


@pytest.mark.parametrize("scales", [None, np.ones(1, np.float32), np.ones(2, np.float64), np.ones((2, 1), np.float32)])
def test_int8_values_need_one_scale_each(scales: np.ndarray | None) -> None:
    sent = {"w": np.ones((2, 3), np.int8), "b": np.ones(3, np.int8)}
    with pytest.raises(ReplyError, match="scales"):
        unpack(save(sent if scales is None else sent | {"scales": scales}), SHAPES, "int8")


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_and_never_anything_else(content: bytes) -> None:
    with pytest.raises(ReplyError):
        unpack(content, SHAPES)


@given(st.lists(st.integers(-(2**70), 2**70), max_size=3), st.lists(st.integers(-(2**70), 2**70), max_size=3))
def test_arbitrary_headers_are_refused_and_allocate_nothing(shape: list[int], offsets: list[int]) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": offsets}}).encode()
    with pytest.raises(ReplyError):
        unpack(len(header).to_bytes(8, "little") + header + secrets.token_bytes(24), SHAPES)
