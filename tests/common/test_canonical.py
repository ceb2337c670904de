from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.canonical import decode, encode, sha256
from common.errors import IntegrityError

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@given(VALUES)
def test_every_json_value_survives_a_round_trip(value: Any) -> None:
    assert decode(encode(value)) == value


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.integers()))
def test_the_order_of_keys_does_not_matter(value: dict[str, int]) -> None:
    assert encode(value) == encode(dict(reversed(list(value.items()))))


def test_the_form_is_fixed() -> None:
    content = '{"a":[1,0.5,null,true],"é":"“"}\n'.encode()
    assert encode({"é": "“", "a": [1, 0.5, None, True]}) == content
    assert sha256(content) == "c48e173a956959a7008b2b5898f19ffd1db70cc85af189ede6c5b287f71c7504"


@pytest.mark.parametrize(
    "content",
    [
        b'{"a":1}',
        b'{"a": 1}\n',
        b' {"a":1}\n',
        b'{"a":1}\n\n',
        b'{"b":1,"a":2}\n',
        b'{"a":1,"a":1}\n',
        b'{"a":1,"a":2}\n',
        b'{"a":1.50}\n',
        b'{"a":1e0}\n',
        b'{"a":"\\u0041"}\n',
        b'{"a":NaN}\n',
        b'{"a":Infinity}\n',
        b'{"a":1e999}\n',
        b'{"a":"\\ud800"}\n',
        b'\xef\xbb\xbf{"a":1}\n',
        '{"a":1}\n'.encode("utf-16"),
        b'{"a":1\n',
        b"\xff\n",
        b"",
        b"[" * 100_000 + b"]" * 100_000,
        b"1" * 10_000 + b"\n",
    ],
)
def test_any_other_form_is_refused(content: bytes) -> None:
    with pytest.raises(IntegrityError):
        decode(content)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": -float("inf")}, object(), {1, 2}, b"raw", "\ud800"])
def test_what_has_no_json_form_is_refused(value: object) -> None:
    with pytest.raises(IntegrityError):
        encode(value)
