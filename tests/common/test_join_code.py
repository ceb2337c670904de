import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConfigError
from common.join_code import JoinCode, parse_join_code

CODE = JoinCode("192.0.2.7", 8444, "ab" * 32, "cd" * 16)
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

addresses = st.one_of(
    st.ip_addresses().map(str),
    st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z]{1,10}){0,3}", fullmatch=True),
)


@given(addresses, st.integers(1, 65535), st.binary(min_size=32, max_size=32), st.binary(min_size=16, max_size=16))
def test_a_code_is_read_as_it_was_written(address, port, fingerprint, token):
    code = JoinCode(address, port, fingerprint.hex(), token.hex())
    assert parse_join_code(code.encode()) == code


@given(st.data())
def test_one_wrong_character_anywhere_is_noticed(data):
    text = CODE.encode()
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from(ALPHABET.replace(text[place], "")))
    with pytest.raises(ConfigError):
        parse_join_code(text[:place] + other + text[place + 1 :])


@given(st.integers(0, 101))
def test_two_exchanged_neighbours_are_noticed(place):
    text = CODE.encode()
    place %= len(text) - 1
    exchanged = text[:place] + text[place + 1] + text[place] + text[place + 2 :]
    if exchanged != text:
        with pytest.raises(ConfigError):
            parse_join_code(exchanged)


def test_case_spaces_dashes_line_ends_and_lookalikes_do_not_matter():
    text = CODE.encode().lower()
    broken = "-".join(text[i : i + 8] for i in range(0, len(text), 8)).replace("o", "0").replace("i", "1")
    assert parse_join_code(f"  {broken[:30]}\n {broken[30:]} ") == CODE


@given(st.text(max_size=300))
def test_any_other_text_is_refused_in_one_sentence(text):
    with pytest.raises(ConfigError, match="join code"):
        parse_join_code(text)


def test_a_cut_code_is_refused_and_an_endless_one_too():
    for text in (CODE.encode()[:-1], CODE.encode()[:-8], CODE.encode() + "A", "A" * 1_000_000):
        with pytest.raises(ConfigError, match="not a join code"):
            parse_join_code(text)


def test_a_code_of_a_later_version_asks_for_an_update(monkeypatch):
    monkeypatch.setattr("common.join_code.VERSION", 2)
    later = CODE.encode()
    monkeypatch.undo()
    with pytest.raises(ConfigError, match="newer version"):
        parse_join_code(later)


def test_the_token_shows_in_no_repr():
    assert CODE.token not in repr(CODE)


@pytest.mark.parametrize(
    "change", [{"port": 0}, {"port": 65536}, {"token": "cd" * 15}, {"fingerprint": "AB" * 32}, {"address": "a b"}]
)
def test_a_code_with_a_field_out_of_range_cannot_be_made(change):
    values = {"address": "h", "port": 1, "fingerprint": "ab" * 32, "token": "cd" * 16}
    with pytest.raises(ConfigError):
        JoinCode(**values | change)


def test_a_code_is_short_enough_to_copy():
    assert len(CODE.encode()) <= 110
