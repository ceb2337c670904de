import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fl_client.terminal import PlainFormatter, plain


@given(st.text())
def test_nothing_unprintable_and_no_line_end_is_left(text: str) -> None:
    shown = plain(text, 100)
    assert shown.isprintable()
    assert len(shown) <= 100


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;owned\x07 ok", "\ufffd[2J\ufffd]0;owned\ufffd ok"),
        ("two\r\nlines\tand tabs", "two lines and tabs"),
        ("right \u202eto left", "right \ufffdto left"),
        ("plain — as it was", "plain — as it was"),
        ("x" * 20, "x" * 9 + "…"),
    ],
)
def test_escape_sequences_lose_their_escape(text: str, shown: str) -> None:
    assert plain(text, 10 if set(text) == {"x"} else 500) == shown


def test_the_log_keeps_its_lines_and_nothing_else_that_moves_the_cursor() -> None:
    record = logging.LogRecord("emofl", logging.ERROR, "f", 1, "a\x1b[31m %s\nb", ("\x9b1m",), None)
    assert PlainFormatter("%(message)s").format(record) == "a\ufffd[31m \ufffd1m\nb"
