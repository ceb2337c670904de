"""The text that people agree to, and the record of it."""

from pathlib import Path

import pytest

from common.canonical import sha256
from common.errors import ConfigError
from fl_client.capture import consent
from fl_client.capture.album import Album

DOCUMENT = Path(consent.__file__).parents[2] / "docs" / "capture.md"

TEXTS = {1: "309490e77173a3a40ce16582dacf86870cc79b4d959fa72029edc6a65ac793e7"}


def test_who_changes_a_word_raises_the_version():
    assert TEXTS[consent.TEXT_VERSION] == sha256(consent.TEXT.encode())


def test_the_documentation_quotes_the_text_word_by_word():
    quoted = " ".join(line.removeprefix(">") for line in DOCUMENT.read_text().splitlines() if line.startswith(">"))
    for heading, sentences in consent.PARTS:
        assert f"**{heading}.** {sentences}" in " ".join(quoted.split())


def test_the_record_is_for_its_owner_only_and_needs_to_say_who(faces: Path):
    Album(faces)
    with pytest.raises(ConfigError, match="who is in the pictures"):
        consent.record(faces, "  ")
    assert not consent.is_given(faces)
    assert consent.record(faces, " me \n and  Ada ").people == "me and Ada"
    assert (faces / "consent.json").stat().st_mode & 0o777 == 0o600
