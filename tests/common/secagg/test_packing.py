import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import IntegrityError
from common.secagg.packing import pack_bits, packed_size, unpack_bits


@st.composite
def vectors(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    width = draw(st.integers(8, 32))
    return np.array(draw(st.lists(st.integers(0, 2**width - 1), max_size=70)), dtype=np.uint32), width


@given(vectors())
def test_values_come_back_from_as_few_bytes_as_their_bits_fill(case: tuple[np.ndarray, int]) -> None:
    values, width = case
    content = pack_bits(values, width)
    assert len(content) == packed_size(len(values), width) == -(-len(values) * width // 8)
    assert (unpack_bits(content, len(values), width) == values).all()


@given(vectors())
def test_the_bytes_are_the_values_as_one_number_in_base_two_to_the_width(case: tuple[np.ndarray, int]) -> None:
    values, width = case
    number = sum(int(value) << (place * width) for place, value in enumerate(values))
    assert pack_bits(values, width) == number.to_bytes(packed_size(len(values), width), "little")


@given(vectors(), st.sampled_from([-1, 1]))
def test_another_number_of_bytes_is_refused(case: tuple[np.ndarray, int], by: int) -> None:
    values, width = case
    content = pack_bits(values, width)
    with pytest.raises(IntegrityError, match="are not"):
        unpack_bits(content[:-1] if content and by < 0 else content + b"\x00", len(values), width)


@given(st.integers(1, 40), st.integers(8, 31))
def test_bits_after_the_last_value_are_refused(count: int, width: int) -> None:
    content = bytearray(pack_bits(np.zeros(count, dtype=np.uint32), width))
    if spare := -count * width % 8:
        content[-1] |= 1 << (8 - spare)
        with pytest.raises(IntegrityError, match="not filled up"):
            unpack_bits(bytes(content), count, width)
