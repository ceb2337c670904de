import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import IntegrityError
from common.secagg.fields import RingVector
from common.secagg.wire import (
    Advertisement,
    Confirmation,
    Delivery,
    Directory,
    MaskedInput,
    Quorum,
    Shares,
    Survivors,
    Terms,
    Unmasking,
    WireMessage,
)

MESSAGES: list[WireMessage] = [
    Terms("run-1", 7, 1000, b"\x01" * 32, (b"\x02" * 32, b"\x03" * 32)),
    Advertisement(3, b"\x01" * 32, b"\x02" * 32, b"\x03" * 64),
    Directory(((0, b"\x01" * 128), (4, b"\x02" * 128))),
    Shares(1, b"\x05" * 32, ((0, b"\x01" * 100), (2, b"\x02" * 100))),
    Delivery((0, 1, 2), ((0, b"\x01" * 100), (2, b"\x02" * 100))),
    MaskedInput(2, b"\x04" * 64, RingVector(np.arange(5, dtype=np.uint32))),
    MaskedInput(2, b"\x04" * 64, RingVector(np.arange(100, dtype=np.uint32), 21)),
    Survivors((0, 2), ((0, b"\x01" * 64),)),
    Confirmation(2, b"\x01" * 64),
    Quorum(((0, b"\x01" * 64), (2, b"\x02" * 64))),
    Unmasking(2, ((0, b"\x01" * 36),), ((1, b"\x02" * 36), (3, b"\x03" * 36))),
]
named = pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)


@named
def test_a_message_has_one_byte_form_and_comes_back_from_it(message: WireMessage) -> None:
    content = message.encode()
    back = type(message).decode(content)
    assert back == message
    assert back.encode() == content
    assert hash(back) == hash(message)
    assert content[:4] == b"EMSA"


@named
def test_a_message_cut_short_anywhere_or_with_a_byte_too_many_is_refused(message: WireMessage) -> None:
    content = message.encode()
    for end in range(len(content)):
        with pytest.raises(IntegrityError):
            type(message).decode(content[:end])
    with pytest.raises(IntegrityError, match="1 bytes too many"):
        type(message).decode(content + b"\0")


@named
def test_a_message_of_another_type_or_version_is_refused(message: WireMessage) -> None:
    content = bytearray(message.encode())
    for at in range(6):
        bent = bytes(content[:at]) + bytes([content[at] ^ 1]) + bytes(content[at + 1 :])
        with pytest.raises(IntegrityError, match="is no"):
            type(message).decode(bent)


@pytest.mark.parametrize("kind", [type(message) for message in MESSAGES])
@settings(max_examples=30)
@given(content=st.binary(max_size=200), headed=st.booleans())
def test_any_bytes_give_a_message_or_the_typed_error(kind: type[WireMessage], content: bytes, headed: bool) -> None:
    whole = b"EMSA\x01" + bytes([kind.code]) + content if headed else content
    with contextlib.suppress(IntegrityError):
        assert kind.decode(whole).encode() == whole


def test_no_two_types_share_a_code() -> None:
    assert sorted(kind.code for kind in {type(message) for message in MESSAGES}) == list(range(1, 11))


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Terms, ("", 1, 4, bytes(32), ())),
        (Terms, ("a" * 65, 1, 4, bytes(32), ())),
        (Terms, ("rün", 1, 4, bytes(32), ())),
        (Terms, ("a\n", 1, 4, bytes(32), ())),
        (Terms, ("a", -1, 4, bytes(32), ())),
        (Terms, ("a", 2**32, 4, bytes(32), ())),
        (Terms, ("a", True, 4, bytes(32), ())),
        (Terms, ("a", 1, 2**27 + 1, bytes(32), ())),
        (Terms, ("a", 1, 4, bytes(31), ())),
        (Terms, ("a", 1, 4, bytes(32), (b"\x02" * 32, b"\x01" * 32))),
        (Terms, ("a", 1, 4, bytes(32), (b"\x02" * 32, b"\x02" * 32))),
        (Terms, ("a", 1, 4, bytes(32), (b"\x02" * 31,))),
        (Terms, ("a", 1, 4, bytes(32), [b"\x02" * 32])),
        (Advertisement, (-1, bytes(32), bytes(32), bytes(64))),
        (Advertisement, (2**15, bytes(32), bytes(32), bytes(64))),
        (Advertisement, (0, bytes(33), bytes(32), bytes(64))),
        (Advertisement, (0, bytes(32), bytes(32), bytearray(64))),
        (Directory, (((1, bytes(128)), (0, bytes(128))),)),
        (Directory, (((1, bytes(128)), (1, bytes(128))),)),
        (Directory, (((1, bytes(127)),),)),
        (Directory, (((1,),),)),
        (Delivery, ((1, 0), ())),
        (Delivery, ((1, 1), ())),
        (MaskedInput, (0, bytes(64), RingVector(np.zeros(3, dtype=np.int64)))),
        (MaskedInput, (0, bytes(64), RingVector(np.zeros((3, 1), dtype=np.uint32)))),
        (MaskedInput, (0, bytes(64), RingVector([1, 2]))),
        (MaskedInput, (0, bytes(64), np.zeros(3, dtype=np.uint32))),
        (MaskedInput, (0, bytes(64), RingVector(np.array([2**20], dtype=np.uint32), 20))),
        (MaskedInput, (0, bytes(64), RingVector(np.zeros(3, dtype=np.uint32), 7))),
        (MaskedInput, (0, bytes(64), RingVector(np.zeros(3, dtype=np.uint32), 33))),
        (Terms, ("run", 1, 3, bytes(32), (), 7)),
        (Unmasking, (0, ((1, bytes(36)),), ((1, bytes(36)),))),
        (Unmasking, (0, ((1, bytes(35)),), ())),
    ],
)
def test_a_malformed_message_cannot_be_made(kind: type[WireMessage], values: tuple[object, ...]) -> None:
    with pytest.raises(IntegrityError):
        kind(*values)


def test_a_vector_that_claims_more_values_than_there_are_is_refused_without_room_being_made_for_it() -> None:
    content = bytearray(MaskedInput(2, bytes(64), RingVector(np.zeros(1, dtype=np.uint32))).encode())
    content[73:77] = b"\xff\xff\xff\xff"
    with pytest.raises(IntegrityError, match="cut short"):
        MaskedInput.decode(bytes(content))
