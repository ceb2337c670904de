from pathlib import Path

import pytest

from common.emotions import EMOTIONS_8
from common.errors import ConfigError
from fl_client.webcam.quotes import CHANGE_SECONDS, LONGEST, OURS, Quotes, read_quotes


def test_every_emotion_has_lines_and_none_is_too_long() -> None:
    assert set(OURS) == set(EMOTIONS_8)
    for lines in OURS.values():
        assert len(set(lines)) == len(lines) >= 3
        assert all(0 < len(line) <= LONGEST for line in lines)


def test_a_line_stays_for_some_seconds_and_then_the_next_one_comes() -> None:
    quotes = Quotes({"fear": ("one", "two")})
    said = [quotes.line("fear", seconds) for seconds in (0.0, CHANGE_SECONDS - 0.1, CHANGE_SECONDS, 2 * CHANGE_SECONDS)]
    assert said == ["one", "one", "two", "one"]
    assert quotes.line("anger", 0.0) == ""


def test_ones_own_lines_replace_ours_and_take_everyday_names(tmp_path: Path) -> None:
    file = tmp_path / "quotes.txt"
    file.write_text("# mine\n\nhappy: Yes: this!\nJOY: Again\nsad:  There, there. \n", encoding="utf-8-sig")
    assert read_quotes(file).lines == {"happiness": ("Yes: this!", "Again"), "sadness": ("There, there.",)}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"happiness Yes", "Line 1 of .* is no `emotion: text`"),
        (b"\nhappiness:", "Line 2 of .* is no `emotion: text`"),
        (b"boredom: Yes", "names 'boredom'; the emotions are neutral, happiness"),
        (b"fear: " + b"x" * 81, "has 81 characters; 80 can be read in time"),
        (b"fear: a\x1b[2Jb", "holds a control character"),
        (b"# nothing", "hold no line such as"),
        (b"\xff\xfe", "are not text in UTF-8"),
        (b"fear: boo\n" * 9000, "longer than 64 KiB"),
    ],
)
def test_a_malformed_file_is_one_sentence(content: bytes, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "quotes.txt"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=sentence):
        read_quotes(file)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_quotes(tmp_path / "nowhere.txt")
