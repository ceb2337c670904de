"""What the people in the pictures agree to: the text, and the record of it in the folder. Every form of capture asks first.

The record stays in the folder, as `consent.json`; nobody else sees it, and `--forget` removes it with the pictures.
"""

import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from common.canonical import encode, sha256
from common.config import Settings
from common.errors import ConfigError, DataError, IntegrityError
from common.files import read_plain, write_atomic
from models.faces.folder import CONSENT

TEXT_VERSION = 1

PARTS: tuple[tuple[str, str], ...] = (
    (
        "Who",
        "Only people who have read this and said yes may be in the pictures: you, and whoever you name below. For a child, "
        "whoever answers for it says yes.",
    ),
    (
        "What is stored",
        "Grey squares cut out around faces, one picture each, in one folder per emotion on this device. Only this account "
        "may read them. What is around the face, sound and whole films are not kept.",
    ),
    (
        "What it is for",
        "When you start `fl-client --data FOLDER`, this device trains a model of facial expressions on them. Capture itself "
        "trains nothing.",
    ),
    (
        "What leaves the device",
        "During capture, nothing. During training never a picture, a label or a count, but changes to a model. Unless you loosen "
        "your policy, noise is added to them first, and only their sum over several devices can be read. Policy and ledger bound "
        "how much they tell about one picture: `fl-client privacy --data FOLDER` shows it.",
    ),
    (
        "What cannot be undone",
        "You can delete each picture, or all of them with `fl-client capture --data FOLDER --forget`. Later training then "
        "goes without them. What models have learnt by then stays in them, within the bound, and so does the ledger.",
    ),
)
"""The text of version `TEXT_VERSION`: (heading, sentences). Whoever changes a word raises the version."""

TEXT = "\n".join(f"{heading}. {sentences}" for heading, sentences in PARTS)

_FILE_LIMIT = 1 << 20


class Consent(Settings):
    """One person's yes.

    Attributes:
        date: UTC, to the microsecond: no two are the same.
        text_version: which text they read.
        text_sha256: of that text.
        people: who is in the pictures, in the owner's words.
    """

    date: datetime
    text_version: int = Field(ge=1)
    text_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    people: str = Field(min_length=1, max_length=500)


class _Record(Settings):
    schema_version: Literal[1] = 1
    consents: tuple[Consent, ...]


def given(folder: Path) -> tuple[Consent, ...]:
    """Every consent recorded in the folder, the oldest first; none if there is no record.

    Raises:
        DataError: the record cannot be read.
    """
    path = folder / CONSENT
    if not path.exists():
        return ()
    try:
        return _Record.model_validate_json(read_plain(path, _FILE_LIMIT)).consents
    except (ValidationError, IntegrityError) as error:
        raise DataError(f"{path} is no record of consent: move it away, and you will be asked again.") from error


def is_given(folder: Path) -> bool:
    """Whether somebody said yes to the text as it is now."""
    return holds(given(folder))


def holds(consents: tuple[Consent, ...]) -> bool:
    """Whether one of these is to the text as it is now."""
    return any(consent.text_sha256 == sha256(TEXT.encode()) for consent in consents)


def goes_on(before: tuple[Consent, ...], now: tuple[Consent, ...]) -> bool:
    """Whether a yes stands now and those `before` do still, so that it is not one given after `--forget` took them back."""
    return holds(now) and now[: len(before)] == before


class NotGiven(ConfigError):
    """Nobody said yes to the text as it is now, or the yes was taken back."""

    def __init__(self) -> None:
        super().__init__("Nothing is captured before everybody in the pictures agrees; --forget takes a yes back.")


def record(folder: Path, people: str, now: datetime | None = None) -> Consent:
    """Write down that `people` agreed to `TEXT`, beside what was agreed to before.

    Raises:
        ConfigError: `people` is empty or too long.
    """
    try:
        consent = Consent(
            date=now or datetime.now(UTC),
            text_version=TEXT_VERSION,
            text_sha256=sha256(TEXT.encode()),
            people=" ".join(people.split()),
        )
    except ValidationError as error:
        raise ConfigError("Say in 1 to 500 letters who is in the pictures, as in: me") from error
    all_of_them = _Record(consents=(*given(folder), consent))
    write_atomic(folder / CONSENT, encode(all_of_them.model_dump(mode="json")), mode=0o600)
    return consent


def as_paragraphs(width: int = 88) -> str:
    """The text for a terminal."""
    return "\n\n".join(textwrap.fill(f"{heading}. {sentences}", width) for heading, sentences in PARTS)
